"""`radfs export --results` and `radfs import --results`, as a person types them."""

import json

import polars as pl
import pytest

from featurestore.errors import DataError


@pytest.fixture
def trained(study):
    study("train", "--grid", "grid.toml")
    return study


def test_results_go_to_files(trained, tmp_path):
    assert "8 runs -> r.parquet" in trained("export", "--results", "--out", "r.parquet").output
    assert "4 runs -> r.csv" in trained("export", "--results", "--out", "r.csv", "--where", "method = 'image'").output
    whole, part = pl.read_parquet(tmp_path / "r.parquet"), pl.read_csv(tmp_path / "r.csv")
    assert (whole.height, part.height) == (8, 4)
    assert part["classes"][0] == '["no", "yes"]'
    with pytest.raises(DataError, match=r"must end in .csv or .parquet \(or add --public\)"):
        trained("export", "--results", "--out", "r.txt")
    with pytest.raises(DataError, match="there is no run for which seed = 9"):
        trained("export", "--results", "--out", "r.csv", "--where", "seed = 9")


def test_a_public_bundle_says_what_is_in_it(trained, tmp_path):
    with pytest.raises(DataError, match="none of 8 runs has a test part with 10 subjects of every class"):
        trained("export", "--results", "--public", "--out", "public")
    result = trained("export", "--results", "--public", "--out", "public", "--min-cell", "2", "--predictions")
    assert "8 runs, 16 epochs, 1 cohorts" in result.output
    assert "classes: no, yes" in result.output
    assert "salted ids: see that your data's terms allow that" in result.output
    run = json.loads(trained("query", "SELECT run FROM results LIMIT 1", "--json").output)[0]["run"]
    public = json.loads(trained("show", run, "--json").output)["published_as"]
    assert public in (tmp_path / "public" / "runs.csv").read_text()
    assert f"in public bundles {public}" in trained("show", run).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--results",), "name one"),
        (("--results", "--out", "a.csv", "--mlflow", "b"), "name one"),
        (("--results", "--public", "--wandb", "b"), "--public writes a folder or a .zip"),
        (("--results", "--out", "a.csv", "--predictions"), "are for --public"),
        (("--results", "--out", "a.csv", "--backbone", "tiny"), "leave --backbone"),
        (("--backbone", "tiny", "--out", "a.npy", "--public"), "are for --results"),
        (("--out", "a.npy"), "--backbone ENCODER --out FILE, or --results"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(study, arguments, message):
    with pytest.raises(DataError, match=message):
        study("export", *arguments)


def test_a_peers_results_come_in(study, tmp_path):
    (tmp_path / "peer.csv").write_text("method,cohort,n_train,auroc,gpu\nimage,mine,30,0.8,A100\n")
    result = study("import", "peer.csv", "--results", "--label", "Peer et al.")
    assert "Peer et al.: 1 rows imported (mine 1) -> table peer_results" in result.output
    assert "left out: gpu" in result.output
    assert json.loads(study("query", "SELECT label, auroc FROM peer_results", "--json").output) == [
        {"label": "Peer et al.", "auroc": 0.8}
    ]
    with pytest.raises(DataError, match="whose results are these"):
        study("import", "peer.csv", "--results")
    with pytest.raises(DataError, match="leave --encoder"):
        study("import", "peer.csv", "--results", "--encoder", "x")
    with pytest.raises(DataError, match="--encoder and --modality say what they are"):
        study("import", "peer.csv")
    with pytest.raises(DataError, match="--label and --replace are for --results"):
        study("import", "peer.csv", "--encoder", "x", "--modality", "image", "--label", "y")
