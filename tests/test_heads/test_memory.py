"""Memory is kept while heads are trained, where the C library can do so."""

import platform
import resource
import sys

import pytest
import torch

from heads.engine.memory import BLOCK_BYTES, kept_memory

PAGES = BLOCK_BYTES // resource.getpagesize()


def faults(times):
    """Pages that the system had to find for this many blocks that are written to and freed one after another."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(BLOCK_BYTES, dtype=torch.int8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_step_finds_the_memory_of_the_step_before():
    with kept_memory():
        faults(10)  # the first ones find their places
        assert faults(20) < PAGES
    assert faults(1) >= PAGES / 2  # it was given back


def test_where_the_library_cannot_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    with kept_memory():
        assert torch.ones(2).sum() == 2
