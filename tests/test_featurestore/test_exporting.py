"""What is exported opens in other tools and comes back byte for byte; what may not leave does not."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from cli import transfer
from featurestore.errors import DataError, UnknownNameError
from featurestore.items import remove_texts
from featurestore.reader import open_features
from featurestore.store import Store, open_store
from featurestore.transfer import exporting
from featurestore.transfer.exporting import export_features, is_open
from featurestore.transfer.importing import import_features

from .sets import DIM, IMAGE_TOKENS, add_images, add_texts, image_layout, text_layout, tokens_of, write_all

ENDINGS = (".npy", ".parquet", ".safetensors", ".hf")


def open_data(items: list[str], modality: str) -> dict[str, str]:
    return {"practice": "CC0-1.0 (synthetic)"}


def images(store: Store, folder: Path, n: int = 11, **changes):
    add_images(store, folder, [str(i) for i in range(n)])
    return write_all(store, image_layout(**changes))


def reports(store: Store, n: int = 11, **changes):
    add_texts(store, {str(i): f"report {i}" for i in range(n)})
    return write_all(store, text_layout(**changes))


def export(store: Store, name: str, out, **changes):
    return export_features(store, name, out, **({"licences": open_data} | changes))


@pytest.fixture
def small_batches(monkeypatch):
    """Two rows a batch, so that small exports have several."""
    monkeypatch.setattr(exporting, "_BATCH_BYTES", 2 * 9 * DIM * 2)
    monkeypatch.setattr("featurestore.transfer.files._PART_BYTES", 3 * 9 * DIM * 2)


# there and back


@pytest.mark.parametrize("preset", ["float16", "float32", "bfloat16", "int8"])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("what", ["images", "cls", "reports", "pooled"])
def test_an_export_imports_to_the_same_bytes(store, tmp_path, small_batches, what, ending, preset):
    changes = {"dtype": preset, **({"tokens": 1, "has_cls": False} if what == "pooled" else {})}
    if what == "pooled":
        add_images(store, tmp_path, [str(i) for i in range(11)])
        source = write_pooled(store, image_layout(**changes))
    else:
        source = reports(store, **changes) if what == "reports" else images(store, tmp_path, **changes)
    out = tmp_path / "out" / f"e{ending}"
    out.parent.mkdir()
    report = export(store, source.name, out, cls=what == "cls")
    assert (report.items, report.without_tokens) == (11, 0)
    other = open_store(tmp_path / "other", create=True)
    if what == "reports":
        add_texts(other, {str(i): f"report {i}" for i in range(11)})
    else:
        add_images(other, tmp_path, [str(i) for i in range(11)])
    modality = source.modality
    # int8 reads as float16: what was read is what must come back.
    back = "float16" if preset == "int8" else preset
    brought = import_features(other, out, encoder="copy", modality=modality, preset=back)
    assert (brought.imported, brought.failed) == (11, {})
    old, new = open_features(store, source.name), open_features(other, brought.feature_set)
    assert new.items == old.items
    if modality == "text":
        for a, b in zip(old.text_tokens(old.items), new.text_tokens(old.items), strict=True):
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
    else:
        expected = old.cls_tokens(old.items) if what == "cls" else old.image_tokens(old.items)
        assert new.image_tokens(old.items).tobytes() == expected.tobytes()
    if preset == back and what in ("images", "reports", "pooled"):
        same_rows = {i: r for rec in source.records() for i, r in zip(rec.items, rec.crc32["tokens/v0"], strict=True)}
        for record in new.feature_set.records():
            assert [same_rows[i] for i in record.items] == record.crc32["tokens/v0"], "stored bytes too"


def write_pooled(store: Store, layout):
    from featurestore.featureset import create_feature_set
    from featurestore.items import list_items
    from featurestore.sources import source_stamp
    from featurestore.writer import ShardWriter

    feature_set = create_feature_set(store, layout)
    items = list_items(store, modality="image")
    paths = dict(zip(items["item"], items["path"], strict=True))
    for plan in feature_set.plan(items):
        writer = ShardWriter(feature_set, plan)
        for position, item in enumerate(plan.items):
            content = hashlib.sha256(Path(paths[item]).read_bytes()).hexdigest()
            writer.put(position, tokens_of(item, "image")[:1], content=content, stamp=source_stamp(paths[item]))
        writer.commit()
    return feature_set


# what others see


def stacked(items: list[str]) -> np.ndarray:
    return np.stack([tokens_of(item, "image") for item in items])


def test_npy_is_mapped_and_its_rows_are_in_the_order_of_ids(store, tmp_path, small_batches):
    name = images(store, tmp_path).name
    report = export(store, name, tmp_path / "e.npy")
    assert [p.name for p in report.files] == ["e.ids.txt", "e.json", "e.npy"]
    ids = (tmp_path / "e.ids.txt").read_text().splitlines()
    assert ids == sorted(ids)
    array = np.load(tmp_path / "e.npy", mmap_mode="r", allow_pickle=False)
    assert isinstance(array, np.memmap)
    assert array.dtype == np.float16
    assert np.array_equal(array, stacked(ids))
    export(store, name, tmp_path / "c.npy", cls=True)
    assert np.array_equal(np.load(tmp_path / "c.npy"), stacked(ids)[:, 0] + np.float16(1))


def test_npy_of_reports_is_ragged(store, tmp_path, small_batches):
    report = export(store, reports(store).name, tmp_path / "e.npy")
    assert [p.name for p in report.files] == ["e.ids.txt", "e.json", "e.npy", "e.offsets.npy"]
    flat, bounds = np.load(tmp_path / "e.npy"), np.load(tmp_path / "e.offsets.npy")
    ids = (tmp_path / "e.ids.txt").read_text().splitlines()
    for i, item in enumerate(ids):
        assert np.array_equal(flat[bounds[i] : bounds[i + 1]], tokens_of(item, "text"))


def test_parquet_opens_in_duckdb_and_polars(store, tmp_path, small_batches):
    export(store, images(store, tmp_path).name, tmp_path / "e.parquet")
    frame = pl.read_parquet(tmp_path / "e.parquet")
    assert frame.schema["embedding"] == pl.Array(pl.Float16, (IMAGE_TOKENS, DIM))
    assert np.array_equal(frame["embedding"].to_numpy(), stacked(frame["item"].to_list()))
    sql = f"SELECT item, embedding[2][3] FROM '{tmp_path / 'e.parquet'}' WHERE item = 'd/7'"
    assert duckdb.sql(sql).fetchall() == [("d/7", float(tokens_of("d/7", "image")[1, 2]))]
    export(store, reports(store).name, tmp_path / "t.parquet")
    sql = f"SELECT item, len(embedding) FROM '{tmp_path / 't.parquet'}'"
    assert dict(duckdb.sql(sql).fetchall()) == {f"d/{i}": len(tokens_of(f"d/{i}", "text")) for i in range(11)}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_safetensors_opens_in_its_own_library(store, tmp_path, small_batches, dtype):
    import torch
    from safetensors import safe_open

    set_ = reports(store, dtype=dtype)
    export(store, set_.name, tmp_path / "e.safetensors")
    with safe_open(tmp_path / "e.safetensors", framework="pt") as file:
        metadata = file.metadata()
        tensor, bounds = file.get_tensor("embeddings"), file.get_tensor("offsets")
    ids = json.loads(metadata["ids"])
    assert tensor.dtype == getattr(torch, dtype)
    flat, offsets = open_features(store, set_.name).text_tokens(ids)
    assert np.array_equal(tensor.to(torch.float32).numpy(), flat.astype(np.float32))
    assert np.array_equal(bounds.numpy(), offsets)
    assert json.loads(metadata["radfs"])["encoder"] == "txt"


@pytest.mark.parametrize("out", ["e.hf", "e/"])
def test_a_folder_opens_with_load_dataset(store, tmp_path, small_batches, monkeypatch, out):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()
    report = export(store, images(store, tmp_path).name, f"{tmp_path}/{out}")
    (folder,) = report.files
    assert len(list((folder / "data").iterdir())) > 1
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["item"][:] == sorted(loaded["item"])
    rows = loaded.with_format("numpy", dtype=np.float16)
    assert np.array_equal(np.stack(rows["embedding"][:]), stacked(loaded["item"][:]))


def test_licence_encoder_weights_and_preprocessing_travel(store, tmp_path):
    what = {"weights_sha256": "ab12", "preprocessing": {"crop_px": 224}}
    name = images(store, tmp_path, what=what, about={"licence": "MIT"}).name
    for ending in ENDINGS:
        export(store, name, tmp_path / f"e{ending}")
    import pyarrow.parquet as pq
    from safetensors import safe_open

    with safe_open(tmp_path / "e.safetensors", framework="np") as file:
        documents = [file.metadata()["radfs"]]
    documents.append((tmp_path / "e.json").read_text())
    documents.append(pq.read_schema(tmp_path / "e.parquet").metadata[b"radfs"])
    card = (tmp_path / "e.hf" / "README.md").read_text()
    assert "- practice: CC0-1.0 (synthetic)" in card
    documents.append(card.partition("```json")[2].partition("```")[0])
    for document in documents:
        about = json.loads(document)
        assert (about["feature_set"], about["licence"], about["encoder"]) == (name, "MIT", "img")
        assert (about["weights_sha256"], about["preprocessing"]) == ("ab12", {"crop_px": 224})
        assert about["data_licences"] == {"practice": "CC0-1.0 (synthetic)"}
        assert about["credentialed"] is False


# what may not leave


def test_what_is_not_known_to_be_open_needs_the_users_word(store, tmp_path):
    name = images(store, tmp_path).name

    def licences(items, modality):
        assert (len(items), modality) == (11, "image")
        return {"practice": "MIT", "mimic": "PhysioNet Credentialed Health Data License 1.5.0"}

    with pytest.raises(DataError, match="nobody says which licence"):
        export(store, name, tmp_path / "e.npy", licences=lambda *_: {})
    for ending in ENDINGS:
        with pytest.raises(DataError, match=r"cohort mimic has the licence 'PhysioNet.*--i-have-the-right") as refused:
            export(store, name, tmp_path / f"e{ending}", licences=licences)
        assert "practice" not in str(refused.value)
    assert not [p for pattern in ("e.*", ".*") for p in tmp_path.glob(pattern)]
    export(store, name, tmp_path / "e.npy", licences=licences, have_the_right=True)
    assert json.loads((tmp_path / "e.json").read_text())["credentialed"] is True


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("CC0-1.0 (synthetic)", True),
        ("CC0-1.0", True),
        ("cc-by-4.0", True),
        ("CC-BY-NC-SA-4.0", True),
        ("CC BY 4.0", True),
        ("MIT", True),
        ("Apache-2.0", True),
        ("not stated", False),
        ("unknown", False),
        ("", False),
        ("MIT-CXR credentialed", False),
        ("CC-BY-4.0, reports PhysioNet", False),
        ("CC0-1.0\nPhysioNet", False),
        ("PhysioNet Credentialed Health Data License 1.5.0", False),
    ],
)
def test_open_licences_are_known_by_their_whole_name(licence, expected):
    assert is_open(licence) is expected


def test_the_tag_comes_along_with_an_import(store, tmp_path):
    name = images(store, tmp_path).name
    export(store, name, tmp_path / "e.npy", licences=lambda *_: {"mimic": "PhysioNet"}, have_the_right=True)
    for n, ending in enumerate((".npy", ".parquet", ".safetensors", ".hf")):
        other = open_store(tmp_path / f"other{n}", create=True)
        add_images(other, tmp_path, [str(i) for i in range(11)])
        out = tmp_path / f"x{ending}"
        export(store, name, out, licences=lambda *_: {"mimic": "PhysioNet"}, have_the_right=True)
        brought = import_features(other, out, encoder="copy", modality="image").feature_set
        with pytest.raises(DataError, match=r"copy@.* was imported as derived from credentialed data \(licence: MIT;"):
            export(other, brought, tmp_path / f"y{ending}")
        assert not (tmp_path / f"y{ending}").exists()
        assert "mimic: PhysioNet" in open_features(other, brought).feature_set.layout.about["licence"]


# refusals and interruptions


def test_what_exists_is_never_replaced(store, tmp_path):
    name = images(store, tmp_path).name
    for out, there in (("e.npy", "e.npy"), ("f.npy", "f.ids.txt"), ("g.npy", "g.json"), ("h.hf", "h.hf")):
        (tmp_path / there).write_text("mine")
        with pytest.raises(DataError, match=f"{there} exists"):
            export(store, name, tmp_path / out)
        assert (tmp_path / there).read_text() == "mine"


def test_refusals_say_what_to_do(store, tmp_path):
    name = images(store, tmp_path).name
    for out, message in (
        ("e.csv", r"known: \.npy, \.parquet, \.hf, \.safetensors"),
        ("none/e.npy", "there is no folder"),
    ):
        with pytest.raises(DataError, match=message):
            export(store, name, tmp_path / out)
    with pytest.raises(UnknownNameError, match=f"Known: {name}"):
        export(store, "nothing", tmp_path / "e.npy")
    with pytest.raises(DataError, match="has no tokens of these items"):
        export(store, name, tmp_path / "e.npy", items=["d/none"])
    with pytest.raises(DataError, match="has no tokens of these items in view 3"):
        export(store, name, tmp_path / "e.npy", view=3)
    with pytest.raises(DataError, match="no class token"):
        export(store, reports(store).name, tmp_path / "e.npy", cls=True)
    images(store, tmp_path, what={"weights_sha256": "11"})
    with pytest.raises(DataError, match="several sets of img"):
        export(store, "img", tmp_path / "e.npy")


def test_some_items_of_another_view(store, tmp_path):
    set_ = images(store, tmp_path)
    write_all(store, image_layout(), view=2)
    asked = ["d/3", "d/10", "d/2", "d/none", "d/3"]
    report = export(store, set_.name, tmp_path / "e.npy", items=asked, view=2)
    assert (report.items, report.without_tokens) == (3, 1)
    assert (tmp_path / "e.ids.txt").read_text() == "d/10\nd/2\nd/3\n"
    assert json.loads((tmp_path / "e.json").read_text())["view"] == 2


def test_an_interrupted_export_leaves_nothing(store, tmp_path, small_batches):
    name = images(store, tmp_path).name
    before = sorted(tmp_path.iterdir())

    def stop(done, total):
        if done > 4:
            raise KeyboardInterrupt

    for ending in ENDINGS:
        with pytest.raises(KeyboardInterrupt):
            export(store, name, tmp_path / f"e{ending}", on_progress=stop)
        assert sorted(tmp_path.iterdir()) == before


def test_damage_stops_an_export(store, tmp_path):
    from featurestore.errors import DamageError

    set_ = images(store, tmp_path)
    (file,) = (set_.path / "tokens" / "v0").glob("c.0.*")
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamageError, match="d/0"):
        export(store, set_.name, tmp_path / "e.npy")
    assert not list(tmp_path.glob("e.*"))


def test_memory_stays_bounded_by_a_batch(tmp_path):
    """200 MB in, and out in every format, in a process that takes much less than that beyond its start."""
    code = """
import sys
from pathlib import Path
import numpy as np, polars as pl
from featurestore.transfer import exporting, importing
from featurestore.transfer.exporting import export_features
from featurestore.transfer.importing import import_features
from featurestore.items import add_items
from featurestore.store import open_store
root = Path(sys.argv[1])
store = open_store(root / "s", create=True)
n = 1000
ids = [f"d/{i:05d}" for i in range(n)]
frame = pl.DataFrame({"item": ids, "modality": "image", "path": [f"/gone/{i}" for i in ids]})
add_items(store, frame.with_columns(text=pl.lit(None, pl.String)))
array = np.lib.format.open_memmap(root / "e.npy", "w+", np.float32, (n, 64, 768))
for i in range(n):
    array[i] = np.random.default_rng(i).standard_normal((64, 768))
del array
(root / "e.ids.txt").write_text("\\n".join(ids))
importing.shard_rows_for = lambda **_: 64
exporting._BATCH_BYTES = 2**22
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1e3
start, peak = anonymous(), 0.0
def look(*_):
    global peak
    peak = max(peak, anonymous() - start)
what = {"encoder": "e", "modality": "image", "preset": "float32"}
name = import_features(store, root / "e.npy", **what, on_progress=look).feature_set
for ending in ("npy", "parquet", "safetensors", "hf"):
    export_features(store, name, root / f"x.{ending}", licences=lambda *_: {"c": "MIT"}, on_progress=look)
    look()
print(peak)
"""
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert float(result.stdout) < 140


# the commands


@pytest.fixture
def run(store):
    app = typer.Typer()
    app.command("import")(transfer.import_)
    app.command("export")(transfer.export)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--store", str(store.root)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_the_commands_there_and_back(store, tmp_path, run):
    from cohorts import build_phantom
    from featurestore.items import list_items

    build_phantom(store, "practice", subjects=12)
    ids = list_items(store, modality="image")["item"].to_list()
    np.save(tmp_path / "e.npy", np.random.default_rng(0).standard_normal((len(ids), 4, 3)))
    (tmp_path / "e.ids.txt").write_text("\n".join(i.split("/", 1)[1] for i in ids))
    dataset = ids[0].split("/")[0]
    command = ("import", str(tmp_path / "e.npy"), "--encoder", "vit", "--modality", "image", "--dataset", dataset)
    assert f"{len(ids)} new, 0 there already, of {len(ids)}" in run(*command)
    assert f"0 new, {len(ids)} there already" in run(*command)
    said = run("export", "--backbone", "vit", "--cohort", "practice", "--out", str(tmp_path / "x.npy"))
    assert all(part in said for part in (f"{len(ids)} items", "cohort practice: CC0-1.0 (synthetic)"))
    again = np.load(tmp_path / "x.npy")
    assert np.array_equal(again, np.load(tmp_path / "e.npy").astype(np.float16))


def test_the_command_asks_for_the_right(store, tmp_path, run):
    from cohorts import build_table

    add_images(store, tmp_path, ["lonely"])
    lines = ["id,patient,report,finding"] + [f"r{i},p{i},text {i},{'yn'[i % 2]}" for i in range(20)]
    (tmp_path / "r.csv").write_text("\n".join(lines))
    build_table(
        store, "closed", records=tmp_path / "r.csv", label_col="finding", text_col="report", subject_col="patient",
        id_col="id", licence="PhysioNet",
    )  # fmt: skip
    ids = [f"closed/r{i}" for i in range(20)]
    np.savez(tmp_path / "e.npz", **{i: np.full((3, 2), float(n)) for n, i in enumerate(ids)})
    np.savez(tmp_path / "l.npz", **{"d/lonely": np.ones((3, 2))})
    run("import", str(tmp_path / "e.npz"), "--encoder", "bert", "--modality", "text")
    run("import", str(tmp_path / "l.npz"), "--encoder", "vit", "--modality", "image")
    closed, none = "cohort closed has the licence 'PhysioNet'", "cohort none has the licence 'unknown'"
    for backbone, message, n in (("bert", closed, 20), ("vit", none, 1)):
        command = ("export", "--backbone", backbone, "--out", str(tmp_path / f"{backbone}.safetensors"))
        with pytest.raises(DataError, match=message):
            run(*command)
        assert f"{n} items" in run(*command, "--i-have-the-right")
    remove_texts(store, "closed")  # they play no part in reading
    assert "20 items" in run("export", "--backbone", "bert", "--out", str(tmp_path / "b.npy"), "--i-have-the-right")
