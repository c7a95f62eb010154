"""Published files are whole or absent, and nothing is replaced by accident."""

import pytest

from featurestore.fsio import publish_folder, write_atomic, write_new


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


def test_many_chunks_are_written_in_order(tmp_path):
    chunks = [bytes([i % 251]) * (i % 7) for i in range(5000)]
    write_atomic(tmp_path / "a", *chunks)
    assert (tmp_path / "a").read_bytes() == b"".join(chunks)


@pytest.mark.parametrize(("mode", "of_files"), [(0o700, 0o600), (0o2770, 0o660)])
def test_files_and_folders_are_as_private_as_the_folder_they_lie_in(tmp_path, mode, of_files):
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(mode)
    write_new(root / "a" / "b" / "c", b"x")
    assert (root / "a").stat().st_mode & 0o7777 == mode == (root / "a" / "b").stat().st_mode & 0o7777
    assert (root / "a" / "b" / "c").stat().st_mode & 0o7777 == of_files
