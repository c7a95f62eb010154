"""A grid is checked before anything runs, and every refusal names the key, the value and what was allowed."""

import re
import subprocess
import sys

import pytest

from featurestore.errors import DataError, RadfsError, UnknownNameError
from heads.grid import Grid, parse_grid, read_grid

GRID = {
    "cohort": ["toy"],
    "backbone": ["tiny"],
    "text_encoder": ["tiny-text"],
    "method": ["image", "text"],
    "fraction": [0.1, 1.0],
    "seed": 2,
}


def grid_with(train: dict | None = None, **changes: object) -> Grid:
    keys = {**GRID, **changes}
    return parse_grid({"grid": {k: v for k, v in keys.items() if v is not None}, "train": train or {}})


def test_the_grid_of_the_documentation_is_read(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(
        """
[grid]                      # every combination that makes sense is a run
cohort = ["nih"]
backbone = ["efficientnet-lite0"]
text_encoder = ["minilm"]
method = ["image", "text"]
fraction = [0.1, 0.3, 1.0]
seed = 5                    # 0 to 4, or a list
split_seed = 0
[train]
epochs = {"0.1" = 100, "0.30" = 70, "1" = 50}
lr = 1e-3
"""
    )
    grid = read_grid(path)
    assert (grid.cohort, grid.method, grid.seed) == (("nih",), ("image", "text"), (0, 1, 2, 3, 4))
    assert [grid.epochs_at(f) for f in grid.fraction] == [100, 70, 50]
    assert (grid.split_seed, grid.lr, grid.batch_size, grid.dropout) == (0, (1e-3,), 64, 0.2)
    assert (grid.head, grid.imitation, grid.temperature) == (("attention",), (0.75,), (0.25,))
    assert (grid.precision, grid.select, grid.teacher_epoch, grid.views) == ("auto", "last", "best", "clean")


def test_a_bare_value_is_a_list_of_one():
    bare = Grid(cohort="toy", method="image", backbone="tiny", fraction=1, seed=[7])
    listed = Grid(cohort=["toy"], method=["image"], backbone=["tiny"], fraction=[1.0], seed=[7])
    assert bare == listed
    assert bare.fraction == (1.0,)
    assert hash(bare) == hash(listed)


def test_what_a_sample_needs_follows_from_the_methods():
    assert grid_with().modalities() == ("image", "text")
    assert grid_with(method="image").modalities() == ("image",)
    assert grid_with(method=["text"], backbone=None).modalities() == ("text",)


def test_a_student_needs_what_its_teacher_reads():
    assert grid_with(method="distill").modalities() == ("image", "text")
    assert grid_with(method="self-distill").modalities() == ("image",)
    assert grid_with(method="distill-constant", text_encoder=None).modalities() == ("image",)


def test_an_encoder_that_no_method_reads_is_no_error():
    assert grid_with(method="image").text_encoder == ("tiny-text",)


def test_a_feature_set_may_be_named_in_full():
    assert grid_with(backbone="tiny@3f9c2a1b").backbone == ("tiny@3f9c2a1b",)


REFUSED = [
    ({"fraction": [0.1, 1.5]}, ["[grid] fraction = 1.5", "above 0 and at most 1"]),
    ({"fraction": 0}, ["[grid] fraction = 0", "above 0 and at most 1"]),
    ({"fraction": [float("nan")]}, ["[grid] fraction = nan"]),
    ({"fraction": ["all"]}, ["[grid] fraction = 'all'", "a number"]),
    ({"fraction": [0.1, 0.10]}, ["[grid] fraction", "0.1 stands there more than once"]),
    ({"fraction": [True]}, ["[grid] fraction = True"]),
    ({"seed": [0, -1]}, ["[grid] seed = -1", "at least 0"]),
    ({"seed": 0}, ["[grid] seed = 0", "at least 1"]),
    ({"seed": True}, ["[grid] seed = True", "whole number"]),
    ({"seed": 1.0}, ["[grid] seed = 1.0", "whole number"]),
    ({"seed": [1, 1]}, ["[grid] seed = [1, 1]", "1 stands there more than once"]),
    ({"split_seed": -3}, ["[grid] split_seed = -3", "at least 0"]),
    ({"cohort": []}, ["[grid] cohort = []", "at least one"]),
    ({"cohort": 3}, ["[grid] cohort = 3", "a name"]),
    ({"cohort": None}, ["[grid] cohort is missing", "Required keys: cohort, method, fraction, seed"]),
    ({"cohort": ["a", "a"]}, ["'a' stands there more than once"]),
    ({"method": "imgae"}, ["[grid] method", "'imgae'", "Did you mean 'image'", "text"]),
    ({"backbone": "tinny"}, ["[grid] backbone", "'tinny'", "Did you mean 'tiny'"]),
    ({"backbone": "tiny-text"}, ["[grid] backbone = 'tiny-text'", "text encoder", "under text_encoder", "tiny"]),
    ({"text_encoder": "tiny"}, ["[grid] text_encoder = 'tiny'", "image encoder", "under backbone", "tiny-text"]),
    ({"backbone": None}, ["[grid] backbone is missing", "method 'image' reads image", "tiny"]),
    ({"text_encoder": None}, ["[grid] text_encoder is missing", "method 'text' reads text"]),
    ({"head": "atention"}, ["[grid] head", "'atention'", "Did you mean 'attention'", "logistic"]),
    ({"method": "distill", "head": "ridge"}, ["[grid] head = ['ridge']", "image, text and teacher, not 'distill'"]),
    ({"method": "distill", "head": ["mean", "ridge"]}, ["[grid] head = 'ridge'", "Add a head such as attention"]),
    ({"method": "text", "head": "cls"}, ["[grid] head = ['cls']", "class tokens of images", "mean"]),
    ({"method": "distill", "text_encoder": None}, ["text_encoder is missing: method 'teacher' reads text"]),
    ({"fractoin": 1}, ["key in [grid] 'fractoin'", "Did you mean 'fraction'", "split_seed"]),
    ({"train": {"epochs": 0}}, ["[train] epochs = 0", "at least 1"]),
    ({"train": {"epochs": 2.5}}, ["[train] epochs = 2.5", "whole number"]),
    ({"train": {"epochs": {"0.1": 5}}}, ["[train] epochs", "fraction 1 of the grid", "given: 0.1"]),
    ({"train": {"epochs": {"0.1": 5, "1": True}}}, ["[train] epochs, fraction 1 = True"]),
    ({"train": {"epochs": {"0.1": 5, "0.10": 6, "1": 7}}}, ["[train] epochs", "more than once"]),
    ({"train": {"epochs": {"0": {"1": 5}}}}, ["[train] epochs: '0' is no fraction", "quoted keys"]),
    ({"train": {"lr": 0}}, ["[train] lr = 0", "above 0"]),
    ({"train": {"lr": float("inf")}}, ["[train] lr = inf"]),
    ({"train": {"lr": [1e-3, 1e-4]}}, ["[train] lr = [0.001, 0.0001]", 'add select = "inner"']),
    ({"train": {"lr": [1e-3, 0.001], "select": "inner"}}, ["0.001 stands there more than once"]),
    ({"train": {"teacher_epoch": "inner"}}, ["teacher_epoch", 'add select = "inner"']),
    ({"train": {"teacher_epoch": "first"}}, ["[train] teacher_epoch = 'first'", "best, last, inner"]),
    ({"train": {"imitation": 1.1}}, ["[train] imitation = 1.1", "from 0 to 1"]),
    ({"train": {"imitation": [0.5, 0.5]}}, ["imitation", "0.5 stands there more than once"]),
    ({"train": {"temperature": 0}}, ["[train] temperature = 0", "above 0"]),
    ({"train": {"precision": "fp16"}}, ["[train] precision = 'fp16'", "auto, fp32, bf16"]),
    ({"train": {"select": "best"}}, ["[train] select = 'best'", "last, inner"]),
    ({"train": {"views": 4}}, ["[train] views = 4", "clean, augmented"]),
    ({"train": {"batch_size": 0}}, ["[train] batch_size = 0", "at least 1"]),
    ({"train": {"dropout": 1.0}}, ["[train] dropout = 1.0", "not including, 1"]),
    ({"train": {"learning_rate": 1}}, ["key in [train] 'learning_rate'", "lr"]),
]


@pytest.mark.parametrize(("changes", "parts"), REFUSED, ids=[str(changes) for changes, _ in REFUSED])
def test_a_refusal_names_key_value_and_what_is_allowed(changes, parts):
    with pytest.raises(RadfsError) as error:
        grid_with(**changes)
    for part in parts:
        assert part in str(error.value)


def test_python_and_toml_share_their_checks():
    with pytest.raises(DataError, match=re.escape("[train] lr = True")):
        Grid(cohort="toy", method="image", backbone="tiny", fraction=1.0, seed=1, lr=True)


def test_an_unknown_section_is_refused():
    with pytest.raises(UnknownNameError, match=r"section 'gird'.*Did you mean 'grid'"):
        parse_grid({"gird": GRID})
    with pytest.raises(DataError, match=r"write \[train\]"):
        parse_grid({"grid": GRID, "train": 20})


def test_a_file_that_is_no_grid_is_named(tmp_path):
    path = tmp_path / "grid.toml"
    with pytest.raises(DataError, match=r"cannot read the grid .*grid\.toml: No such file"):
        read_grid(path)
    path.write_text("[grid]\ncohort = nih\n")
    with pytest.raises(DataError, match=r"grid\.toml is not valid TOML: .*line 2"):
        read_grid(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"grid\.toml is not a text file in UTF-8"):
        read_grid(path)
    path.write_text("[grid]\nmethod = 'image'\n")
    with pytest.raises(DataError, match=r"grid\.toml: \[grid\] cohort is missing"):
        read_grid(path)
    with pytest.raises(DataError, match="cannot read the grid"):
        read_grid(tmp_path)


def test_no_torch_is_loaded_by_all_but_training():
    code = """
import sys
import heads, heads.catalog, heads.charts, heads.figures, heads.plan, heads.results, heads.schema
heads.Grid(cohort="toy", method=["image", "text"], backbone="tiny", text_encoder="tiny-text", fraction=1, seed=1)
sys.exit(", ".join(sorted({"torch", "altair", "vl_convert", "timm", "transformers"} & set(sys.modules))) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
