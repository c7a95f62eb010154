"""Published files are whole or absent, and nothing is replaced by accident."""

import os
import subprocess
import sys

import pytest

from featurestore.errors import StoreError
from featurestore.fsio import exclusive, publish_folder, write_atomic, write_new


def test_write_new_keeps_what_stands_there(tmp_path):
    assert write_new(tmp_path / "a", b"first")
    assert not write_new(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_write_atomic_replaces_and_leaves_no_temporary_file(tmp_path):
    write_atomic(tmp_path / "a", b"first")
    write_atomic(tmp_path / "a", b"sec", b"ond")
    assert (tmp_path / "a").read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_is_published_whole_or_not_at_all(tmp_path):
    assert publish_folder(tmp_path / "part", lambda folder: (folder / "x").write_text("1") and None)
    assert not publish_folder(tmp_path / "part", lambda folder: (folder / "x").write_text("2") and None)
    assert (tmp_path / "part" / "x").read_text() == "1"

    def break_off(folder):
        (folder / "x").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish_folder(tmp_path / "other", break_off)
    assert [p.name for p in tmp_path.iterdir()] == ["part"]


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path):
    code = (
        "import sys, time, pathlib; from featurestore.fsio import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1]), 'x'):\n print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline().strip() == b"held"
        with (
            pytest.raises(StoreError, match=rf"set s is held by another process \(PID {holder.pid}\)"),
            exclusive(tmp_path / "lock", "set s"),
        ):
            pass
        holder.kill()
        holder.wait()
    with exclusive(tmp_path / "lock", "set s"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
