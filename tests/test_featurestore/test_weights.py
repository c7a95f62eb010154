"""Weights files as they come: every way in which one can be wrong, hostile, or right but easily misread."""

import argparse
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cli.main import app
from featurestore.encoders import build, get_spec, is_available, resolve, weights, weights_sha256
from featurestore.encoders.checkpoint import read_checkpoint, select
from featurestore.encoders.convert import convert_weights
from featurestore.encoders.hub import add_weights, fetch_weights
from featurestore.encoders.loading import check_file, looks_like
from featurestore.encoders.selfcheck import selfcheck
from featurestore.encoders.spec import LoadRule
from featurestore.errors import DataError, UnknownNameError

from . import published
from .test_published import shallow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


_files: dict[str, Path] = {}


def whole(name: str, folder: Path) -> Path:
    """The encoder's published file at full depth; a tensor is one zero: what matters is names and shapes."""
    if name not in _files:
        draw = published.random_tensors
        published.random_tensors = lambda shapes, seed=0: {n: torch.zeros(()).expand(s) for n, s in shapes.items()}
        try:
            _files[name] = published.write(name, folder / name)[0]
        finally:
            published.random_tensors = draw
    return _files[name]


# ---- the right tensors of the right file


def test_the_network_is_taken_not_its_moving_average(tmp_path):
    path, tensors = published.write("c2l", tmp_path, depth=1)
    content = read_checkpoint(path)
    assert "model_ema" in content
    taken = check_file(shallow(get_spec("c2l"), 1), path)
    assert torch.equal(taken["conv1.weight"], tensors["encoder.module.conv1.weight"])
    assert not torch.equal(taken["conv1.weight"], content["model_ema"]["encoder.module.conv1.weight"])


def test_tensors_saved_on_a_gpu_are_read_without_one(tmp_path, monkeypatch):
    with monkeypatch.context() as there:
        there.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save({"model": {"w": torch.ones(3)}}, tmp_path / "new.pth")
        torch.save({"model": {"w": torch.ones(3)}}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("new.pth", "old.pth"):
        assert b"cuda:0" in (tmp_path / name).read_bytes()
        tensor = read_checkpoint(tmp_path / name)["model"]["w"]
        assert (tensor.device.type, tensor.tolist()) == ("cpu", [1, 1, 1])


def test_both_containers_give_the_same(tmp_path):
    content = published.trainer_bundle({"w": torch.arange(4.0)})
    torch.save(content, tmp_path / "new.pth")
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    new, old = read_checkpoint(tmp_path / "new.pth"), read_checkpoint(tmp_path / "old.pth")
    assert torch.equal(new["model"]["w"], old["model"]["w"])
    assert isinstance(new["args"], argparse.Namespace)


def test_a_file_of_lightning_and_omegaconf_needs_neither_and_runs_nothing(tmp_path):
    path, tensors = published.write("gloria", tmp_path, depth=1)
    assert not {"omegaconf", "pytorch_lightning"} & set(sys.modules)
    with pytest.raises(Exception, match=r"omegaconf|pytorch_lightning"):
        torch.load(path, weights_only=False)
    content = read_checkpoint(path)
    assert torch.equal(content["state_dict"]["gloria.img_encoder.model.conv1.weight"], next(iter(tensors.values())))
    assert type(content["hyper_parameters"]).__name__ == "Inert"
    assert vars(content["hyper_parameters"]) == {}


def test_the_data_parallel_prefix_is_not_optional():
    rule = LoadRule(strip_prefix="encoder.module.")
    found = select({"encoder.module.a": torch.ones(1), "encoder.b": torch.ones(1)}, rule, what="x")
    assert set(found) == {"a", "encoder.b (without encoder.module.)"}


def test_decoder_blocks_are_not_taken_for_encoder_blocks(tmp_path):
    path, tensors = published.write("medical-mae", tmp_path, depth=2)
    taken = check_file(shallow(get_spec("medical-mae"), 2), path)
    assert set(taken) == set(tensors)
    assert taken["blocks.0.norm1.weight"].shape == (768,)
    content = read_checkpoint(path)
    for name in [n for n in content["model"] if n.startswith("blocks.1.")]:
        del content["model"][name]
    torch.save(content, path)
    with pytest.raises(DataError, match=r"12 missing: blocks\.1\.norm1"):
        check_file(shallow(get_spec("medical-mae"), 2), path)


def test_names_that_transformers_5_changed_are_found_under_their_old_names(tmp_path):
    path, _ = published.write("rad-dino", tmp_path, depth=1)
    from transformers import Dinov2Config, Dinov2Model

    inside = set(Dinov2Model(Dinov2Config(num_hidden_layers=1)).state_dict())
    assert not any("attention.attention.query" in name for name in inside)
    assert "encoder.layer.0.attention.attention.query.weight" in check_file(shallow(get_spec("rad-dino"), 1), path)


def test_a_flat_file_of_the_network_alone_is_taken_too(tmp_path):
    _, tensors = published.write("mrm", tmp_path, depth=1)
    save_file(tensors, tmp_path / "encoder.safetensors")
    assert set(check_file(shallow(get_spec("mrm"), 1), tmp_path / "encoder.safetensors")) == set(tensors)


def test_old_names_of_layer_norms_are_known():
    content = {"bert.embeddings.LayerNorm.gamma": torch.ones(2), "bert.embeddings.LayerNorm.beta": torch.ones(2)}
    found = select(content, get_spec("bio-clinicalbert").load, what="x")
    assert set(found) == {"embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"}


# ---- damaged, hostile, foreign


def test_a_truncated_file_is_refused(tmp_path):
    path, _ = published.write("mrm", tmp_path, depth=1)
    whole_file = path.read_bytes()
    for share in (0, 0.3, 0.99):
        path.write_bytes(whole_file[: int(len(whole_file) * share)])
        with pytest.raises(DataError, match=r"MRM\.pth is damaged or no checkpoint"):
            read_checkpoint(path)
    save_file({"w": torch.ones(999)}, tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes()[:-9])
    with pytest.raises(DataError, match="damaged"):
        read_checkpoint(tmp_path / "m.safetensors")


class Payload:
    """Unpickled without care, it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("container", ["new", "old", "plain pickle"])
def test_a_hostile_pickle_is_refused_by_name_and_nothing_runs(tmp_path, container):
    bundle = published.trainer_bundle({"w": torch.ones(2)}, extra=Payload(tmp_path / "ran"))
    path = tmp_path / "model.pth"
    if container == "plain pickle":
        path.write_bytes(pickle.dumps({"extra": Payload(tmp_path / "ran")}))
    else:
        torch.save(bundle, path, _use_new_zipfile_serialization=container == "new")
    with pytest.raises(DataError, match=r"model\.pth (was refused: it refers to posix\.system|is damaged)"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_a_name_that_only_begins_like_a_harmless_one_is_refused(tmp_path):
    import types

    module = types.ModuleType("omegaconf_evil")
    module.run = type("run", (), {"__module__": "omegaconf_evil"})
    sys.modules["omegaconf_evil"] = module
    try:
        torch.save({"model": {}, "x": module.run()}, tmp_path / "m.pth")
    finally:
        del sys.modules["omegaconf_evil"]
    with pytest.raises(DataError, match=r"refers to omegaconf_evil\.run"):
        read_checkpoint(tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("wanted", "given", "message"),
    [
        ("mrm", "medical-mae", r"vit-b_CXR_0.5M_mae\.pth is not the weights of encoder 'mrm'.*'medical-mae'"),
        ("medical-mae", "mrm", r"unexpected: bert_encoder.*It is a file of encoder 'mrm'"),
        ("c2l", "gloria", r"has no 'model'; it has epoch, .*It is a file of encoder 'gloria'"),
        ("gloria", "c2l", r"has no 'state_dict'.*It is a file of encoder 'c2l'"),
        ("biomedclip", "biovil-t", r"missing: cls_token.*It is a file of encoder 'biovil-t'"),
    ],
)
def test_the_file_of_another_encoder_is_recognised(wanted, given, message, folder):
    with pytest.raises(DataError, match=message):
        check_file(get_spec(wanted), whole(given, folder))


def test_a_file_without_the_final_norm_is_refused_and_looks_like_its_encoder(tmp_path, folder):
    content = dict(read_checkpoint(whole("mrm", folder))["model"])
    del content["norm.weight"]
    content["blocks.0.attn.proj.bias"] = torch.zeros(767)
    torch.save({"model": content}, tmp_path / "m.pth")
    with pytest.raises(
        DataError, match=r"1 missing: norm\.weight; 1 of another shape: blocks\.0\.attn\.proj\.bias \[767\] for \[768\]"
    ):
        check_file(get_spec("mrm"), tmp_path / "m.pth")
    name, share = looks_like(read_checkpoint(tmp_path / "m.pth"))[0]
    assert (name, round(share, 2)) == ("mrm", 0.99)


def test_a_vocabulary_of_another_size_is_refused(tmp_path):
    path, _ = published.write("cxr-bert-general", tmp_path, depth=1)
    published.vocabulary(tmp_path / "vocab.txt", 28996)
    with pytest.raises(DataError, match=r"vocab\.txt has 28996 words, encoder 'cxr-bert-general' has 30522"):
        build(shallow(resolve("cxr-bert-general", weights=path), 1))


# ---- reports


def test_casing_and_special_words_of_reports(tmp_path):
    path, _ = published.write("bio-clinicalbert", tmp_path, depth=1)
    lower = build(shallow(resolve("bio-clinicalbert", weights=path), 1))
    cased = build(shallow(resolve("bio-clinicalbert", weights=path, variant={"casing": "cased"}), 1))
    assert lower.prepare("Heart").ids == lower.prepare("heart").ids == cased.prepare("heart").ids
    assert cased.prepare("Heart").ids != cased.prepare("heart").ids
    cls, sep, mask = 2, 3, 4
    ids = lower.prepare("heart [SEP] [CLS] clear [MASK]").ids
    assert (ids[0], ids[-1]) == (cls, sep)
    assert not {cls, sep, mask} & set(ids[1:-1])
    for blank in ("", " \n "):
        with pytest.raises(Exception, match="empty text"):
            lower.prepare(blank)


def test_code_in_a_model_folder_never_runs_not_even_with_y_on_standard_input(tmp_path):
    path, _ = published.write("biovil-t-bert", tmp_path, depth=1)
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    (tmp_path / "modeling_cxrbert.py").write_text(trap + "class CXRBertModel: pass\n")
    (tmp_path / "configuration_cxrbert.py").write_text(trap + "class CXRBertConfig: pass\n")
    auto = {"AutoConfig": "configuration_cxrbert.CXRBertConfig", "AutoModel": "modeling_cxrbert.CXRBertModel"}
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": auto, "vocab_size": 30522}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["modeling_cxrbert.T", None]}})
    )
    code = (
        "from featurestore.encoders import build, resolve\n"
        "from tests.test_featurestore.test_published import shallow\n"
        f"encoder = build(shallow(resolve('biovil-t-bert', weights={str(path)!r}), 1))\n"
        "print(len(encoder.prepare('heart clear')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, input="y\ny\n", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
    assert not (tmp_path / "ran").exists()


# ---- notes


def test_added_weights_are_found_hashed_and_watched(tmp_path, folder):
    spec = get_spec("mrm")
    assert not is_available(spec)
    with pytest.raises(
        DataError, match=r"'mrm' are not here: fetch MRM\.pth in a browser from https://drive.google.com"
    ):
        weights_sha256(spec)
    path = tmp_path / "my MRM.pth"
    path.write_bytes(whole("mrm", folder).read_bytes())
    note, remarks = add_weights(spec, path)
    assert note.origin == "added by hand"
    assert any("no hash" in remark for remark in remarks)
    assert weights_sha256(spec) == weights.file_sha256(path) == note.sha256[0]
    assert is_available(spec)
    with path.open("ab") as file:
        file.write(b"!")
    with pytest.raises(DataError, match="is not the file that was added for encoder 'mrm'"):
        weights_sha256(spec)
    path.unlink()
    assert not is_available(spec)


def test_a_file_whose_encoder_cannot_be_told_is_said_to_be_so(tmp_path, folder):
    encoder = {name: torch.zeros(()).expand(shape) for name, shape in published.vit(12).items()}
    torch.save({"model": encoder}, tmp_path / "stripped.pth")
    _, remarks = add_weights(get_spec("mrm"), tmp_path / "stripped.pth")
    assert any("encoder medical-mae has the same layout" in remark for remark in remarks)


def test_known_hashes_are_held_to(tmp_path, folder):
    spec, path = get_spec("biovil-t"), whole("biovil-t", folder)
    with pytest.raises(DataError, match=r"has the layout of encoder 'biovil-t' but not its hash.*--sha256 [0-9a-f]+"):
        add_weights(spec, path)
    with pytest.raises(DataError, match="not its hash"):
        add_weights(spec, path, sha256="0" * 64)
    note, _ = add_weights(spec, path, sha256=weights.file_sha256(path).upper())
    assert weights_sha256(spec) == note.sha256[0]


def test_a_wrong_file_is_not_noted(folder):
    with pytest.raises(DataError, match="It is a file of encoder 'medical-mae'"):
        add_weights(get_spec("mrm"), whole("medical-mae", folder))
    assert weights.read_note("mrm") is None


def test_what_cannot_be_added_or_fetched_says_why(tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        add_weights(get_spec("mrm"), tmp_path / "none.pth")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"has no vocab\.txt; needed are pytorch_model\.bin, vocab\.txt"):
        add_weights(get_spec("cxr-bert-general"), tmp_path)
    with pytest.raises(DataError, match="'minilm' takes no weights file"):
        add_weights(get_spec("minilm"), tmp_path)
    with pytest.raises(DataError, match=r"are not on the hub: fetch MRM\.pth in a browser"):
        fetch_weights(get_spec("mrm"))
    with pytest.raises(DataError, match=r"model\.safetensors of microsoft/rad-dino is not in the cache"):
        fetch_weights(get_spec("rad-dino"))


def test_the_hubs_cache_is_used_with_its_commit_and_a_commit_gets_the_same_files_elsewhere(tmp_path, monkeypatch):
    import huggingface_hub.constants

    cache, old, new = tmp_path / "hub", "a" * 40, "b" * 40
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", _cached(cache))
    repository = cache / "models--microsoft--BiomedVLP-CXR-BERT-general"
    for commit, seed in ((old, 0), (new, 1)):
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        published.vocabulary(snapshot / "vocab.txt", 30522)
        shapes = published.bert(1, 30522, position_ids=False)
        torch.save({n: torch.full((), seed).expand(s) for n, s in shapes.items()}, snapshot / "pytorch_model.bin")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(old)
    spec = shallow(get_spec("cxr-bert-general"), 1)
    assert is_available(spec)
    assert f"hub microsoft/BiomedVLP-CXR-BERT-general@{old}" in CliRunner().invoke(app, ["weights", "list"]).output
    note, _ = fetch_weights(spec)
    assert note.origin == f"hub microsoft/BiomedVLP-CXR-BERT-general@{old}"
    first = weights_sha256(spec)
    (repository / "refs" / "main").write_text(new)
    assert weights_sha256(spec) == first  # the branch moved on, the note did not
    moved, _ = fetch_weights(spec)
    assert moved.origin.endswith(new)
    assert weights_sha256(spec) != first
    again, _ = fetch_weights(spec, revision=old)
    assert (again, weights_sha256(spec)) == (note, first)


def _cached(cache: Path) -> Any:
    from huggingface_hub import hf_hub_download

    return lambda *args, **kwargs: hf_hub_download(*args, **kwargs, cache_dir=cache, local_files_only=True)


def test_the_weights_and_the_variant_are_in_the_key_and_the_path_is_not(tmp_path):
    contents = {"first.pth": b"1", "again.pth": b"1", "other.pth": b"2"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    specs = [resolve("mrm", weights=tmp_path / name) for name in contents]
    keys = [spec.key_config(weights_sha256(spec)) for spec in specs]
    assert keys[0] == keys[1] != keys[2]
    assert str(tmp_path) not in json.dumps(keys)


def test_every_choice_that_changes_something_changes_the_key():
    for name in ("c2l", "medical-mae", "mrm", "biovil-t", "gloria", "bio-clinicalbert"):
        spec = get_spec(name)
        for variant in spec.variants:
            for choice, changes in variant.choices.items():
                chosen = resolve(name, variant={variant.axis: choice})
                assert (chosen.key_config("0") != spec.key_config("0")) == bool(changes), (name, variant.axis, choice)
                assert chosen.chosen == (() if choice == variant.default else ((variant.axis, choice),))
    with pytest.raises(UnknownNameError, match=r"unknown variant of encoder 'mrm' 'token'. Did you mean 'tokens'"):
        resolve("mrm", variant={"token": "before-norm"})
    with pytest.raises(UnknownNameError, match="unknown tokens of encoder 'mrm' 'raw'"):
        resolve("mrm", variant={"tokens": "raw"})


# ---- selfcheck, convert


def test_selfcheck_passes_a_whole_encoder_and_finds_a_dead_one(tmp_path):
    path, _ = published.write("mrm", tmp_path, depth=1)
    checks = selfcheck(shallow(resolve("mrm", weights=path), 1))
    assert [check.name for check in checks if not check.passed] == []
    assert checks == selfcheck(shallow(resolve("mrm", weights=path), 1))
    tensors = {name: torch.zeros(shape) for name, shape in published.vit(1).items()}
    torch.save({"model": tensors}, tmp_path / "dead.pth")
    failed = [c.name for c in selfcheck(shallow(resolve("mrm", weights=tmp_path / "dead.pth"), 1)) if not c.passed]
    assert failed == ["spread", "tokens differ within an item", "items differ"]
    tensors["norm.bias"][0] = torch.nan
    torch.save({"model": tensors}, tmp_path / "nan.pth")
    failed = [c.name for c in selfcheck(shallow(resolve("mrm", weights=tmp_path / "nan.pth"), 1)) if not c.passed]
    assert "finite" in failed


def test_a_pickled_network_is_converted_only_on_trust(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save(network, tmp_path / "net.pt")
    with pytest.raises(DataError, match="refers to"):
        read_checkpoint(tmp_path / "net.pt")
    files = [str(tmp_path / "net.pt"), str(tmp_path / "net.safetensors")]
    refused = CliRunner().invoke(app, ["weights", "convert", *files])
    assert "Python runs whatever it says, with your rights" in refused.output
    assert "nothing was done: say --trust" in str(refused.exception)
    assert convert_weights(tmp_path / "net.pt", tmp_path / "net.safetensors") == 7
    assert torch.equal(load_file(tmp_path / "net.safetensors")["0.weight"], network[0].weight)
    with pytest.raises(DataError, match="exists already"):
        convert_weights(tmp_path / "net.pt", tmp_path / "net.safetensors")
    torch.save({"epoch": 1}, tmp_path / "none.pt")
    with pytest.raises(DataError, match="holds a dict without tensors"):
        convert_weights(tmp_path / "none.pt", tmp_path / "x.safetensors")
    assert dataclasses.asdict(get_spec("mrm"))["weights"]["kind"] == "page"
