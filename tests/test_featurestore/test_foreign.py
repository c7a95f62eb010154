"""Every format gives the same items back; what is damaged, ambiguous or hostile is refused and runs nothing."""

import json
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from featurestore.errors import DataError, ItemError
from featurestore.transfer.foreign import Choice, open_foreign

from . import strangers

KINDS = {"pooled": strangers.pooled, "dense": strangers.dense, "ragged": strangers.ragged}


def everything(path: Path, choice: Choice | None = None) -> dict[str, np.ndarray]:
    with open_foreign(path, choice) as source:
        return {item: np.array(source.read(i)) for i, item in enumerate(source.ids)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", strangers.EQUAL.values(), ids=strangers.EQUAL)
def test_every_format_gives_the_same_items(tmp_path, make, kind):
    items = KINDS[kind]()
    with open_foreign(make(tmp_path, items)) as source:
        assert sorted(source.ids) == sorted(items)
        assert source.dim == strangers.DIM
        order = np.random.default_rng(0).permutation(len(items)).tolist()
        for i in [*range(len(items)), *order]:  # in order, and with steps back
            expected = np.atleast_2d(items[source.ids[i]])
            assert source.lengths[i] == len(expected)
            assert np.array_equal(source.read(i), expected), i


def test_large_arrays_come_in_pieces(tmp_path, monkeypatch):
    """A row may cost a block, never the source: with tiny blocks the same values come."""
    monkeypatch.setattr("featurestore.transfer.hdf5._BLOCK_BYTES", 100)
    monkeypatch.setattr("featurestore.transfer.parquet._BATCH_BYTES", 100)
    items = strangers.dense(50)
    for make in (strangers.hdf5_chunked, strangers.hdf5, strangers.parquet, strangers.npz_compressed):
        with open_foreign(make(tmp_path, items)) as source:
            for i in [*range(50), *reversed(range(50))]:
                assert np.array_equal(source.read(i), items[source.ids[i]]), (make, i)


def test_fortran_order_and_half_precision(tmp_path):
    array = np.asfortranarray(np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float16))
    np.save(tmp_path / "e.npy", array)
    (tmp_path / "e.ids.txt").write_bytes("a\r\nb\r\nc\u2028x\r\nd\r\n".encode())
    found = everything(tmp_path / "e.npy")
    assert list(found) == ["a", "b", "c\u2028x", "d"]
    assert np.array_equal(np.stack(list(found.values())), array)


def test_bfloat16_is_widened_exactly(tmp_path):
    from safetensors.torch import save_file

    values = torch.randn(3, 2, 4).to(torch.bfloat16)
    save_file({"embeddings": values}, tmp_path / "e.safetensors", metadata={"ids": '["a", "b", "c"]'})
    save_file({k: v.clone() for k, v in zip("abc", values, strict=True)}, tmp_path / "i.safetensors")
    (tmp_path / "eva").mkdir()
    torch.save(values[0].clone(), tmp_path / "eva" / "a.pt")
    (tmp_path / "eva" / "manifest.csv").write_text("origin,embeddings\na,a.pt\n")
    for name in ("e.safetensors", "i.safetensors", "eva"):
        found = everything(tmp_path / name)
        assert found["a"].dtype == np.float32
        assert np.array_equal(found["a"], values[0].float().numpy())


# ids


@pytest.mark.parametrize("way", ["txt", "csv", "npy", "numbers", "named", "named column"])
def test_ids_stand_in_a_file_beside_or_named(tmp_path, way):
    np.save(tmp_path / "e.npy", np.zeros((2, 3)))
    expected, choice = ["a", "b c"], None
    if way == "txt":
        (tmp_path / "e.ids.txt").write_text("a\nb c\n")
    elif way == "csv":
        (tmp_path / "e.ids.csv").write_text('n,item\n1,a\n2,"b c"\n')
    elif way == "npy":
        np.save(tmp_path / "e.ids.npy", np.array(expected))
    elif way == "numbers":
        np.save(tmp_path / "e.ids.npy", np.array([7, 8]))
        expected = ["7", "8"]
    elif way == "named":
        (tmp_path / "other.txt").write_text("a\nb c")
        choice = Choice(ids=tmp_path / "other.txt")
    else:
        (tmp_path / "other.csv").write_text("item,key\nx,a\ny,b c\n")
        choice = Choice(ids=tmp_path / "other.csv", ids_key="key")
    assert list(everything(tmp_path / "e.npy", choice)) == expected


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("a\nb\n", "2 ids for 3 items"),
        ("a\nb\na\n", "'a' stands more than once, again as number 3"),
        ("a\n\nb\n", "line 2 is blank"),
    ],
)
def test_ids_that_do_not_fit_are_refused(tmp_path, ids, message):
    np.save(tmp_path / "e.npy", np.zeros((3, 2)))
    (tmp_path / "e.ids.txt").write_text(ids)
    with pytest.raises(DataError, match=message):
        everything(tmp_path / "e.npy")


def test_missing_files_and_kinds_are_named(tmp_path):
    np.save(tmp_path / "e.npy", np.zeros((3, 2)))
    (tmp_path / "e.pt").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("e.npy", "has no ids: put them"),
        ("none.npy", "there is no file"),
        ("e.pt", r"manifest\.csv"),
        ("folder", "neither"),
    ):
        with pytest.raises(DataError, match=message):
            everything(tmp_path / name)
    with pytest.raises(DataError, match="no file of ids"):
        everything(tmp_path / "e.npy", Choice(ids=tmp_path / "none.txt"))


def test_a_container_with_several_arrays_asks_which(tmp_path):
    np.savez(tmp_path / "e.npz", tokens=np.zeros((2, 3)), features=np.ones((2, 3)), ids=np.array(["a", "b"]))
    with pytest.raises(DataError, match=r"tokens and features: say with --tokens-key"):
        everything(tmp_path / "e.npz")
    assert everything(tmp_path / "e.npz", Choice(tokens_key="features"))["a"].tolist() == [[1, 1, 1]]
    with pytest.raises(DataError, match="no 'other'; it has tokens, features, ids"):
        everything(tmp_path / "e.npz", Choice(tokens_key="other"))


# shapes


@pytest.mark.parametrize("name", ["npz_items", "safetensors_items", "hdf5_items", "eva"])
def test_different_widths_are_refused(tmp_path, name):
    path = strangers.EQUAL[name](tmp_path, {"a": np.zeros((2, 4), np.float32), "b": np.zeros((2, 5), np.float32)})
    with pytest.raises(DataError, match="item b is 5 wide and a 4"):
        everything(path)


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 3, 4, 5)), np.zeros((2, 0))])
def test_shapes_that_mean_nothing_are_refused(tmp_path, array):
    np.savez(tmp_path / "e.npz", embeddings=array, ids=np.array(["a", "b"]))
    with pytest.raises(DataError, match="have the shape"):
        everything(tmp_path / "e.npz")


@pytest.mark.parametrize("array", [np.zeros((2, 3), int), np.array([["a"]]), np.zeros((2, 3), complex)])
def test_what_is_no_float_is_refused(tmp_path, array):
    np.savez(tmp_path / "e.npz", embeddings=array, ids=np.array(["a", "b"]))
    with pytest.raises(DataError, match="must be float16, float32 or float64"):
        everything(tmp_path / "e.npz")


@pytest.mark.parametrize("offsets", [[0, 2], [0, 3, 2, 5], [1, 2, 5], [0, 2, 6], [[0, 5]], [0.0, 5.0]])
def test_offsets_must_bound_the_tokens(tmp_path, offsets):
    np.savez(tmp_path / "e.npz", embeddings=np.zeros((5, 2)), ids=np.array(["a", "b"]), offsets=np.array(offsets))
    with pytest.raises(DataError, match="`offsets`"):
        everything(tmp_path / "e.npz")


def test_a_null_is_an_item_without_embedding(tmp_path):
    rows = [[[1.0, 2.0]], None, [], [[1.0, 2.0], None], [[1.0, None]]]
    pl.DataFrame({"item": list("abcde"), "tokens": rows}).write_parquet(tmp_path / "e.parquet")
    with open_foreign(tmp_path / "e.parquet") as source:
        assert source.lengths.tolist() == [1, 0, 0, 0, 1]
        for i in (1, 2, 3):
            with pytest.raises(ItemError, match="no embedding"):
                source.read(i)
        assert np.isnan(source.read(4)).tolist() == [[False, True]]


def test_a_flat_list_takes_its_shape_from_the_metadata(tmp_path):
    table = pa.table({"item": ["a", "b"], "embedding": [[1.0, 2, 3, 4, 5, 6], [6.0, 5, 4, 3, 2, 1]]})
    pq.write_table(table.replace_schema_metadata({"shape": "[3, 2]"}), tmp_path / "e.parquet")
    assert everything(tmp_path / "e.parquet")["a"].tolist() == [[1, 2], [3, 4], [5, 6]]
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12.0).reshape(2, 3, 2))
    pq.write_table(pa.table({"item": ["a", "b"], "embedding": tensors}), tmp_path / "t.parquet")
    assert everything(tmp_path / "t.parquet")["b"].tolist() == [[6, 7], [8, 9], [10, 11]]
    pq.write_table(table.replace_schema_metadata({"shape": "[4, 2]"}), tmp_path / "w.parquet")
    with pytest.raises(DataError, match=r"do not fill the shape \[4, 2\]"):
        everything(tmp_path / "w.parquet")


def test_tokens_of_one_item_must_be_equally_wide(tmp_path):
    pl.DataFrame({"item": ["a"], "tokens": [[[1.0], [1.0, 2.0]]]}).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match="differ in width"):
        everything(tmp_path / "e.parquet")


# no code, nothing outside


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_pickles_are_never_loaded(tmp_path):
    mark = tmp_path / "mark"
    objects = np.array([Bomb(mark), Bomb(mark)], dtype=object)
    np.save(tmp_path / "e.npy", objects, allow_pickle=True)
    np.save(tmp_path / "f.npy", np.zeros((2, 3)))
    np.save(tmp_path / "f.ids.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "e.npz", embeddings=objects, ids=np.array(["a", "b"]))
    np.savez(tmp_path / "g.npz", embeddings=np.zeros((2, 3)), ids=objects)
    (tmp_path / "e.ids.txt").write_text("a\nb\n")
    for name in ("e.npy", "f.npy", "e.npz", "g.npz"):
        with pytest.raises(DataError, match="pickles"):
            everything(tmp_path / name)
    for i, content in enumerate((Bomb(mark), [torch.zeros(2), Bomb(mark)], {"a": torch.zeros(2)})):
        torch.save(content, tmp_path / f"{i}.pt")
        (tmp_path / "manifest.csv").write_text(f"origin,embeddings\na,{i}.pt\n")
        with pytest.raises(DataError, match=r"manifest\.csv, item a: its file holds"):
            everything(tmp_path)
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Bomb(mark)))
    (tmp_path / "manifest.csv").write_text("origin,embeddings\na,old.pt\n")
    with pytest.raises(DataError, match=r"not made by torch\.save"):
        everything(tmp_path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists(), "the bomb is a real one"


@pytest.mark.parametrize("name", ["../out.pt", "{root}/out.pt", "link.pt", "folder/out.pt", "a\0b.pt", "."])
def test_paths_that_leave_the_manifests_folder_are_refused(tmp_path, name):
    torch.save(torch.zeros(3), tmp_path / "out.pt")
    inside = tmp_path / "eva"
    inside.mkdir()
    (inside / "link.pt").symlink_to(tmp_path / "out.pt")
    (inside / "folder").symlink_to(tmp_path)
    with (inside / "manifest.csv").open("w") as file:
        file.write(f"origin,embeddings\na,{name.format(root=tmp_path)}\n")
    with pytest.raises(DataError, match=r"item a: its file is (not below the manifest's folder|missing)") as refused:
        everything(inside)
    assert str(tmp_path) not in str(refused.value)


def test_hdf5_that_reads_other_files_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(48))
    ids = np.array([b"a", b"b", b"c", b"d"])
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.create_dataset("embeddings", shape=(4, 3), dtype="f4", external=[(str(tmp_path / "secret"), 0, 48)])
        file["ids"] = ids
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["embeddings"] = np.zeros((4, 3))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        layout = h5py.VirtualLayout((4, 3), dtype="f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "embeddings", shape=(4, 3))
        file.create_virtual_dataset("embeddings", layout)
        file["ids"] = ids
    for name in ("e.h5", "v.h5"):
        with pytest.raises(DataError, match="takes its data from other files"):
            everything(tmp_path / name)
    with h5py.File(tmp_path / "l.h5", "w") as file:
        file["embeddings"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "embeddings")
        file["ids"] = ids
    with pytest.raises(DataError, match="ids"):  # the link is not followed, so the ids are all that there is
        everything(tmp_path / "l.h5")


# absurd claims


def npy_header(shape: str, descr: str = "<f4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def ten_terabytes(folder: Path) -> dict[str, Path]:
    """A shape of ten terabytes in a tiny file of every kind."""
    shape = "(8500000000, 196, 3)"
    (folder / "e.npy").write_bytes(npy_header(shape) + bytes(64))
    (folder / "e.ids.txt").write_text("a\nb\n")
    (folder / "n.npy").write_bytes(npy_header("(-2, -3)") + bytes(64))
    (folder / "n.ids.txt").write_text("a\nb\n")
    with zipfile.ZipFile(folder / "e.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("embeddings.npy", npy_header(shape) + bytes(64))
    with zipfile.ZipFile(folder / "i.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", npy_header("(100000000, 10000)") + bytes(64))
    header = {"embeddings": {"dtype": "F32", "shape": [8500000000, 196, 3], "data_offsets": [0, 64]}}
    text = json.dumps(header).encode()
    (folder / "e.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    (folder / "h.safetensors").write_bytes((2**50).to_bytes(8, "little") + bytes(64))
    with h5py.File(folder / "e.h5", "w") as file:
        file.create_dataset("embeddings", shape=(8500000000, 196, 3), dtype="f4")
        file["ids"] = np.array([b"a", b"b"])
    with h5py.File(folder / "c.h5", "w") as file:
        file.create_dataset("embeddings", shape=(8500000000, 196, 3), dtype="f4", chunks=(1, 196, 3))
        file["ids"] = np.array([b"a", b"b"])
    with h5py.File(folder / "o.h5", "w") as file:
        file.create_dataset("embeddings", data=np.zeros((2, 3)))
        file.create_dataset("ids", shape=(10**13,), dtype="S8", chunks=(1000,))
    folders = {}
    for name, tensor in {
        "expanded": torch.zeros(1).expand(10**12, 10),
        "strided": torch.zeros(8).as_strided((10**6, 10**6), (0, 0)),
    }.items():
        folders[name] = folder / name
        folders[name].mkdir()
        torch.save(tensor, folders[name] / "a.pt")
        (folders[name] / "manifest.csv").write_text("origin,embeddings\na,a.pt\n")
    files = {p.name: p for p in folder.iterdir() if p.suffix in (".npy", ".npz", ".safetensors", ".h5")}
    return files | folders | {"resized": resized(folder)}


def resized(folder: Path) -> Path:
    """A .pt whose pickle claims a larger tensor than its storage holds, which torch would grow the storage for."""
    inside = folder / "resized"
    inside.mkdir()
    torch.save(torch.zeros(3, 5), inside / "good.pt")
    with zipfile.ZipFile(inside / "good.pt") as good, zipfile.ZipFile(inside / "a.pt", "w") as bad:
        for info in good.infolist():
            data = good.read(info)
            if info.filename.endswith("data.pkl"):  # BININT1 3, BININT1 5, TUPLE2 becomes 2e9, 1000, TUPLE2
                assert data.count(b"K\x03K\x05\x86") == 1
                data = data.replace(b"K\x03K\x05\x86", b"J" + struct.pack("<i", 2 * 10**9) + b"M\xe8\x03\x86")
            bad.writestr(info.filename, data)
    (inside / "manifest.csv").write_text("origin,embeddings\na,a.pt\n")
    return inside


def test_ten_terabytes_in_a_tiny_file_are_refused_before_anything_is_allocated(tmp_path):
    import resource

    sources = ten_terabytes(tmp_path)
    assert len(sources) == 12
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, hard))  # an allocation of more than a gigabyte would fail
    try:
        for name, path in sources.items():
            with pytest.raises(DataError) as refused:
                everything(path)
            assert not any(word in str(refused.value) for word in ("MemoryError", "RuntimeError")), name
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_zip_bomb_is_read_in_small_pieces_or_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "e.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("embeddings.npy", npy_header("(1, 300000000)") + bytes(100))
        file.writestr("ids.npy", npy_header("(1,)", "<U1") + b"a\0\0\0")
    raw = bytearray((tmp_path / "e.npz").read_bytes())
    # The directory says that the member unpacks to 1.2 GB.
    at = raw.index(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 1_200_000_128)
    (tmp_path / "e.npz").write_bytes(raw)
    with pytest.raises(DataError, match="claims to unpack to 1,200,000,128 bytes"):
        everything(tmp_path / "e.npz")


def test_a_compressed_pt_is_refused(tmp_path):
    torch.save(torch.zeros(1000), tmp_path / "good.pt")
    deflated = zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "good.pt") as good, deflated as bad:
        for info in good.infolist():
            bad.writestr(info.filename, good.read(info))
    (tmp_path / "manifest.csv").write_text("origin,embeddings\na,a.pt\n")
    with pytest.raises(DataError, match="claims more bytes than it holds"):
        everything(tmp_path)


def test_hdf5_that_was_never_written_is_refused(tmp_path):
    with h5py.File(tmp_path / "e.h5", "w") as file:
        data = file.create_dataset("embeddings", shape=(4, 3), dtype="f4", chunks=(1, 3))
        data[:3] = 1.0
        file["ids"] = np.array([b"a", b"b", b"c", b"d"])
    with pytest.raises(DataError, match="never written and would read as zeros"):
        everything(tmp_path / "e.h5")


@pytest.mark.parametrize("make", strangers.EQUAL.values(), ids=strangers.EQUAL)
def test_truncated_and_damaged_files_end_in_one_kind_of_error(tmp_path, make):
    """Cut anywhere, or with a bit changed, a source is refused or gives floats; nothing else is raised.

    HDF5 is only cut: its library loops or crashes on some changed bits, which nothing outside it can help.
    """
    path = make(tmp_path, strangers.dense(3))
    file = path if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix != ".csv" and p.is_file())[0]
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(150):
        if trial % 2 and file.suffix not in (".h5", ".hdf5"):
            broken = bytearray(whole)
            broken[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        else:
            broken = whole[: int(rng.integers(len(whole)))]
        file.write_bytes(bytes(broken))
        try:
            everything(path)
        except (DataError, ItemError):
            refused += 1
    assert refused > 30


def test_h5py_is_asked_for_where_it_is_absent(tmp_path, monkeypatch):
    path = strangers.hdf5(tmp_path, strangers.pooled())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match="pip install h5py"):
        everything(path)


def test_a_manifest_says_what_it_lacks(tmp_path):
    for text, message in (
        ("path,target\na,1\n", "has the columns path, target"),
        ("origin,embeddings\na,\n", "row 1 lacks its origin or its embeddings"),
        ("origin,embeddings\na,a.pt\n", "item a: its file is missing"),
    ):
        (tmp_path / "manifest.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            everything(tmp_path)


def test_nothing_of_this_loads_torch(tmp_path):
    import subprocess

    path = strangers.npz(tmp_path, strangers.pooled())
    code = f"""
import sys
from pathlib import Path
from featurestore.transfer.foreign import open_foreign
import featurestore.transfer.importing, featurestore.transfer.exporting
with open_foreign(Path({str(path)!r})) as source:
    source.read(0)
assert "torch" not in sys.modules and "h5py" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
