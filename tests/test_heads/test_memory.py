"""Memory is kept while heads are trained, where the C library can do so."""

import platform
import resource
import subprocess
import sys

import pytest
import torch

from heads.engine.memory import BLOCK_BYTES, kept_memory

PAGES = BLOCK_BYTES // resource.getpagesize()

_COUNT = """
import resource, torch
from heads.engine.memory import BLOCK_BYTES, kept_memory

def faults(times):  # pages that the system had to find for blocks that are written to and freed one after another
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(BLOCK_BYTES, dtype=torch.int8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with kept_memory():
    faults(10)  # the first ones find their places
    kept = faults(20)
print(kept, faults(1))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_step_finds_the_memory_of_the_step_before():
    # In a process of its own: what other tests left free on the heap would be found in place of these blocks.
    done = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=True)
    kept, after = map(int, done.stdout.split())
    assert kept < PAGES
    assert after >= PAGES / 2  # it was given back


def test_where_the_library_cannot_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    with kept_memory():
        assert torch.ones(2).sum() == 2
