"""Results for elsewhere give nothing of a patient away; results from elsewhere are checked, and kept apart."""

import csv
import io
import json
import math
import os
import re
import zipfile
from pathlib import Path

import polars as pl
import pytest

from cohorts.cohort import load_cohort
from featurestore.errors import DamageError, DataError, UnknownNameError
from featurestore.store import Store, open_store
from heads.catalog import open_catalog
from heads.exchange.bundle import RUN_COLUMNS, Salt, export_bundle
from heads.exchange.peers import PEER_RESULTS, import_peer
from heads.schema import METRICS, RUNS
from heads.train import train_grid

from .invented import invent_run
from .stores import make_store, report_of, toy_grid


def catalog_of(store: Store):
    catalog = open_catalog(store)
    catalog.fold()
    return catalog


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Store:
    store = make_store(tmp_path_factory.mktemp("exchange") / "hidden-folder" / "store", subjects=100)
    train_grid(store, toy_grid(method=["image", "distill"], fraction=[0.5, 1.0], seed=3, epochs=2))
    return store


def table(folder: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / f"{name}.csv").read_text())))


@pytest.mark.parametrize("predictions", [False, True])
def test_a_public_bundle_holds_no_id_text_or_path(trained, tmp_path, predictions):
    export_bundle(trained, catalog_of(trained), tmp_path / "public", predictions=predictions)
    export_bundle(trained, catalog_of(trained), tmp_path / "public.zip", predictions=predictions)
    with zipfile.ZipFile(tmp_path / "public.zip") as archive:
        zipped = {name: archive.read(name) for name in archive.namelist()}
    assert zipped == {path.name: path.read_bytes() for path in (tmp_path / "public").iterdir()}
    everything = b"\n".join(zipped.values()).decode().lower()
    samples = load_cohort(trained, "toy").samples
    hidden = {value for name in ("sample", "subject", "image", "text", "text_sha256") for value in samples[name]} - {
        None
    }
    hidden |= {sample.partition("/")[2] for sample in samples["sample"]}
    hidden |= {report_of(sample) for sample in samples["sample"]} | {"nowhere", "hidden-folder", str(trained.root)}
    words = set(re.findall(r"[\w./@-]+", everything))
    assert [
        value for value in hidden if value.lower() in words or (len(value) > 5 and value.lower() in everything)
    ] == []
    hashes = catalog_of(trained).query("SELECT run, cohort_key, common_rows, content, split, teacher_setting FROM runs")
    assert [h for h in {h for column in hashes for h in column.drop_nulls()} if h in everything] == []
    assert Salt.known(trained).key.hex() not in everything
    assert "started_at" not in everything
    assert os.uname().nodename.lower() not in words
    assert ("predictions.csv" in zipped) == predictions


def test_a_public_bundle_holds_the_numbers(trained, tmp_path):
    catalog = catalog_of(trained)
    report = export_bundle(trained, catalog, tmp_path / "public", where="fraction = 1", predictions=True)
    folder, salt = tmp_path / "public", Salt.known(trained)
    assert report.left_out == 0
    assert report.names == {
        "cohort": ("toy",),
        "backbone": ("tiny",),
        "text_encoder": ("tiny-text",),
        "classes": ("class 0", "class 1"),
    }
    ours = catalog.query("SELECT * FROM results WHERE fraction = 1").rows_by_key("run", named=True, unique=True)
    runs = {row["run"]: row for row in table(folder, "runs")}
    assert set(runs) == {salt.public("run", run) for run in ours}
    for run, row in ours.items():
        theirs = runs[salt.public("run", run)]
        assert [float(theirs[m]) for m in METRICS] == [row[m] for m in METRICS]
        assert (theirs["method"], int(theirs["seed"]), int(theirs["n_train"])) == (
            row["method"],
            row["seed"],
            row["n_train"],
        )
        if row["teacher_run"]:
            assert runs[theirs["teacher_run"]]["method"] == "teacher"
    assert len(table(folder, "epochs")) == 2 * len(runs)
    (cohort,) = table(folder, "cohorts")
    assert (cohort["n_samples"], cohort["n_subjects"]) == ("200", "100")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rows"]["runs"] == len(runs)
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}


def test_salted_splits_can_be_audited_and_nobody_can_be_followed(trained, tmp_path):
    export_bundle(trained, catalog_of(trained), tmp_path / "public", predictions=True)
    splits = pl.DataFrame(table(tmp_path / "public", "splits"))
    runs = pl.DataFrame(table(tmp_path / "public", "runs"))
    assert splits["split"].n_unique() == 3
    assert (
        splits.group_by("split", "subject").agg(pl.col("part").n_unique())["part"].to_list() == [1] * 297
    )  # one subject has no report at all
    assert splits["sample"].is_unique().all()  # across splits too
    tested = splits.filter(pl.col("part") == "test").group_by("split").len()
    assert tested["len"].cast(pl.Int64).unique().to_list() == runs["n_test"].cast(pl.Int64).unique().to_list()
    assert splits.sort("cohort", "split", "part", "sample").equals(splits)  # an order that says nothing
    said = pl.DataFrame(table(tmp_path / "public", "predictions")).join(runs.select("run", "split"), on="run")
    of_test = splits.filter(pl.col("part") == "test").select("split", "sample", "subject")
    assert said.join(of_test, on=["split", "sample", "subject"], how="anti").is_empty()


def test_another_store_has_another_salt_and_the_same_store_the_same(trained, tmp_path):
    first, second = Salt.of(trained), Salt.of(open_store(tmp_path / "other", create=True))
    assert first == Salt.of(trained)
    assert first != second
    assert len(first.key) == 32
    path = tmp_path / "other" / "publishing.json"
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("{}")
    with pytest.raises(DamageError, match="restore it from a copy"):
        Salt.known(Store(tmp_path / "other"))


def test_new_columns_of_runs_stay_at_home_unless_they_are_listed():
    left_out = {column.name for column in RUNS.columns} - set(RUN_COLUMNS)
    assert left_out == {"config", "stage", "started_at", "finished_at"}


def test_runs_with_few_test_subjects_of_a_class_are_left_out(tmp_path):
    store = make_store(tmp_path / "store", subjects=60)  # 15 test subjects, 7 or 8 of a class
    train_grid(store, toy_grid(method="image", fraction=1.0, seed=2, epochs=1))
    catalog = catalog_of(store)
    with pytest.raises(DataError, match="none of 2 runs has a test part with 10 subjects of every class"):
        export_bundle(store, catalog, tmp_path / "public")
    assert export_bundle(store, catalog, tmp_path / "public", smallest=7).rows["runs"] == 2
    rows = [(f"p{i}/a", int(i == 0), 0.5) for i in range(30)]
    invent_run(store, rows, cohort="other", split="few")
    report = export_bundle(store, catalog_of(store), tmp_path / "more", smallest=7)
    assert (report.rows["runs"], report.left_out) == (2, 1)
    assert "left out: 1 runs" in (tmp_path / "more" / "README.md").read_text()
    with pytest.raises(DataError, match=r"more exists: name a new folder"):
        export_bundle(store, catalog, tmp_path / "more")


PEER = """\
Method,backbone,cohort,fraction,n_train,auroc,auroc_ci_low,auroc_ci_high,gpu
distill,mrm,toy,0.5,,0.71,0.69,1.02,A100

image,mrm,toy,,150,0.70,,,A100
"""


def test_a_peers_results_are_kept_apart(trained, tmp_path):
    file = tmp_path / "peer.csv"
    file.write_text(PEER)
    store = open_store(tmp_path / "store", create=True)
    report = import_peer(store, file, label="Peer et al.")
    assert (report.rows, report.outcome, report.ignored, report.cohorts) == (2, "imported", ("gpu",), {"toy": 2})
    catalog = catalog_of(store)
    rows = catalog.query(
        "SELECT label, line, method, fraction, n_train, auroc, auroc_ci_high FROM peer_results ORDER BY line"
    )
    assert rows.rows() == [
        ("Peer et al.", 2, "distill", 0.5, None, 0.71, 1.02),
        ("Peer et al.", 4, "image", None, 150, 0.70, None),
    ]
    assert catalog.query("SELECT count(*) AS n FROM results")["n"][0] == 0
    assert import_peer(store, file, label=" Peer et al. ").outcome == "unchanged"
    file.write_text(PEER.replace("0.71", "0.72"))
    with pytest.raises(DataError, match=r"has other results of 'Peer et al\.': take another --label, or --replace"):
        import_peer(store, file, label="Peer et al.")
    assert import_peer(store, file, label="Peer et al.", replace=True).outcome == "replaced"
    assert catalog_of(store).query("SELECT max(auroc) AS best, count(*) AS n FROM peer_results").rows() == [(0.72, 2)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("image,toy,0.5,71", r"line 3: auroc '71' is not a number from 0 to 1 \(a percentage\? divide it by 100\)"),
        ("image,toy,half,0.7", "line 3: fraction 'half' is not a number above 0 and at most 1"),
        ("image,toy,0,0.7", "line 3: fraction '0' is not a number above 0"),
        ("image,toy,nan,nan", "line 3: fraction and n_train are both blank"),
        ("image,toy,0.5,", "line 3: auroc and auprc are both blank"),
        (",toy,0.5,0.7", "line 3: method is blank"),
        ("image,toy,0.5", "line 3: has 3 cells, and the heading has 4"),
        ("image,toy,0.5,inf", "line 3: auroc 'inf' is not a number from 0 to 1"),
        ("im\x07age,toy,0.5,0.7", "line 3: method 'im.x07age' holds control characters"),
    ],
)
def test_a_bad_row_of_a_peer_is_refused_with_its_line(tmp_path, row, reason):
    store = open_store(tmp_path / "store", create=True)
    file = tmp_path / "peer.csv"
    file.write_text(f"method,cohort,fraction,auroc\nimage,toy,1,0.7\n{row}\n")
    with pytest.raises(DataError, match=f"1 of 2 rows are refused, so nothing was imported:\n  {reason}"):
        import_peer(store, file, label="Peer")
    assert not (store.root / "peers").exists()


def test_a_peers_file_of_another_form_is_refused(tmp_path):
    store, file = open_store(tmp_path / "store", create=True), tmp_path / "peer.csv"
    for text, reason in {
        "": "has no rows below a heading. Known columns: method, backbone",
        "method,cohort,auroc\na,b,0.5\n": "has neither a column fraction nor n_train",
        "method,cohort,n_train\na,b,5\n": "has neither a column auroc nor auprc",
        "method,cohort,cohort,n_train\na,b,b,5\n": "has the column 'cohort' twice",
        "method,cohort,n_train,auroc,auroc_ci_low,auroc_ci_high\na,b,5,.5,.7,.6\n": "auroc_ci_low 0.7 is above",
    }.items():
        file.write_text(text)
        with pytest.raises(DataError, match=re.escape(reason)):
            import_peer(store, file, label="Peer")
    file.write_text("methode,cohort,n_train,auroc\na,b,5,0.5\n")
    with pytest.raises(UnknownNameError, match=r"'method'\. Did you mean 'methode'"):
        import_peer(store, file, label="Peer")
    file.write_bytes(b"method\xff,cohort\n")
    with pytest.raises(DataError, match="UTF-8"):
        import_peer(store, file, label="Peer")
    with pytest.raises(DataError, match="whose results are these"):
        import_peer(store, file, label=" ")


def test_the_documented_columns_of_peers_are_those_of_the_database(trained):
    described = catalog_of(trained).query("DESCRIBE peer_results")["column_name"].to_list()
    assert described == [column.name for column in PEER_RESULTS.columns]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_mlflow_gets_every_run_once(trained, tmp_path):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    from heads.exchange.to_mlflow import to_mlflow

    catalog = catalog_of(trained)
    assert to_mlflow(catalog, str(tmp_path / "ml"), where="fraction = 1 AND seed = 0") == (3, 0)
    assert to_mlflow(catalog, str(tmp_path / "ml"), where="fraction = 1 AND seed <= 1") == (3, 3)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/ml/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("radfs/toy").experiment_id])
    ours = catalog.query("SELECT * FROM results WHERE fraction = 1").rows_by_key("run", named=True, unique=True)
    assert len(runs) == 6
    for run in runs:
        row = ours[run.data.tags["radfs.run"]]
        assert math.isclose(run.data.metrics["chosen_auroc"], row["auroc"])
        assert run.data.params["method"] == row["method"]
        assert [m.step for m in client.get_metric_history(run.info.run_id, "auroc")] == [1, 2]
        assert not {"radfs.cohort_key", "radfs.content", "radfs.split"} & set(run.data.tags)


@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_gets_every_run_once_and_nothing_of_the_machine(trained, tmp_path):
    pytest.importorskip("wandb")
    from heads.exchange.to_wandb import to_wandb

    catalog = catalog_of(trained)
    where = "method = 'image' AND fraction = 1 AND seed = 0"
    assert to_wandb(catalog, tmp_path / "wb", where=where) == (1, 0)
    assert to_wandb(catalog, tmp_path / "wb", where=where) == (0, 1)
    (record,) = (tmp_path / "wb").rglob("*.wandb")
    data = record.read_bytes()
    run = catalog.query(f"SELECT run, auroc FROM results WHERE {where}")["run"][0]
    assert run.encode() in data
    assert b"chosen_auroc" in data
    assert str(trained.root).encode() not in data
    assert str(tmp_path).encode() not in data
