"""Encoders without a spec: any model of timm, the hub, open_clip or a Python file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from featurestore.encoders import build, resolve, weights_sha256
from featurestore.encoders.foreign import hub_preprocessing
from featurestore.encoders.transformers_models import quiet
from featurestore.errors import DataError, UnknownNameError

from ..contracts.foreign import CLIP
from . import published

ROOT = Path(__file__).parents[2]


def images(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("name", "grid", "dim", "cls"),
    [
        ("resnet18.a1_in1k", (7, 7), 512, False),
        ("vit_tiny_patch16_224", (14, 14), 192, True),
        ("swin_tiny_patch4_window7_224", (7, 7), 768, False),
    ],
)
def test_any_model_of_timm(name, grid, dim, cls, tmp_path, seeded):
    import timm

    network = timm.create_model(name, pretrained=False).eval()
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "model.safetensors")
    spec = resolve(f"timm:{name}", weights=tmp_path)
    assert (spec.tokens.grid, spec.tokens.dim, spec.tokens.has_cls) == (grid, dim, cls)
    x = images(224)
    with torch.inference_mode():
        features = network.forward_features(x)
    if name.startswith("resnet"):
        features = features.flatten(2).transpose(1, 2)
    patches = features[:, 1:] if cls else features.reshape(2, -1, dim)
    assert (build(spec).encode(list(x)).patches - patches).abs().max() <= 1e-5
    data = timm.data.resolve_model_data_config(network)
    transform = timm.data.create_transform(**data, is_training=False)
    picture = Image.effect_noise((301, 260), 60).convert("RGB")
    assert (build(spec).prepare(picture) - transform(picture)).abs().max() <= 1e-6


def test_timm_weights_that_do_not_fit_and_models_that_do_not_exist(tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="do not fit timm's resnet18"):
        build(resolve("timm:resnet18", weights=tmp_path))
    with pytest.raises(DataError, match="timm has no model 'resnet181'"):
        resolve("timm:resnet181")
    with pytest.raises(UnknownNameError, match=r"unknown kind of encoder 'tim'\. Did you mean 'timm'"):
        resolve("tim:resnet18")
    with pytest.raises(
        DataError, match=r"`radfs weights fetch timm:resnet18`.* --backbone timm:resnet18 --weights FILE"
    ):
        weights_sha256(resolve("timm:resnet18"))


def test_any_image_model_of_the_hub(tmp_path, seeded):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=56, patch_size=14)
    network = Dinov2Model(config).eval()
    with quiet():
        network.save_pretrained(tmp_path)
    processor = {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}, "do_center_crop": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor | {"resample": 3}))
    spec = resolve(f"hf:{tmp_path}")
    assert (spec.tokens.grid, spec.tokens.dim, spec.tokens.has_cls, spec.tokens.dropped) == ((4, 4), 48, True, 0)
    x = images(56)
    with torch.inference_mode():
        expected = network(pixel_values=x).last_hidden_state
    tokens = build(spec).encode(list(x))
    assert (tokens.cls - expected[:, 0]).abs().max() <= 1e-5
    assert (tokens.patches - expected[:, 1:]).abs().max() <= 1e-5
    assert len(weights_sha256(spec)) == 64


def test_any_text_model_of_the_hub(tmp_path, seeded):
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    words = 200
    published.vocabulary(tmp_path / "vocab.txt", words)
    config = BertConfig(vocab_size=words, hidden_size=48, num_hidden_layers=2, num_attention_heads=4)
    network = BertForMaskedLM(config).eval()
    with quiet():
        network.save_pretrained(tmp_path)
        tokenizer = BertTokenizer(vocab=str(tmp_path / "vocab.txt"))
        tokenizer.save_pretrained(tmp_path)
    spec = resolve(f"hf:{tmp_path}")
    assert (spec.preprocessing.special_tokens, spec.lower_case, spec.context_length) == (("[CLS]", "[SEP]"), True, 512)
    encoder = build(spec)
    report = "Heart clear, no effusion."
    ids = tokenizer(report, return_tensors="pt")["input_ids"]
    assert list(encoder.prepare(report).ids) == ids[0].tolist()
    with torch.inference_mode():
        expected = network.bert(ids).last_hidden_state[0]
    assert (encoder.encode([encoder.prepare(report)]).tokens[0] - expected).abs().max() <= 1e-5


def test_a_hub_model_with_code_of_its_own_is_refused_and_the_code_not_run(tmp_path):
    (tmp_path / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = {"auto_map": {"AutoConfig": "modeling.C", "AutoModel": "modeling.M"}, "num_channels": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 32, "width": 32}}))
    save_file({"w": torch.zeros(1)}, tmp_path / "model.safetensors")
    code = f"from featurestore.encoders import resolve; resolve('hf:{tmp_path}')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, input="y\ny\n", capture_output=True, text=True)
    assert "is no model that transformers knows without code of its own" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_preprocessing_that_cannot_be_done_exactly_is_refused():
    with pytest.raises(DataError, match=r"do_pad\) is not supported"):
        hub_preprocessing({"size": {"height": 32, "width": 32}, "do_pad": True})
    with pytest.raises(DataError, match="images of many shapes"):
        hub_preprocessing({"size": {"shortest_edge": 32}})
    with pytest.raises(DataError, match="neither a folder nor in the hub's cache: run `radfs weights fetch hf:a/b`"):
        resolve("hf:a/b")


@pytest.fixture
def clip(monkeypatch, request) -> dict:
    """The configuration of a small CLIP, known to open_clip as radfs-test."""
    import open_clip

    config = {**CLIP, **getattr(request, "param", {})}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "radfs-test", config)
    return config


def saved_clip(path: Path) -> torch.nn.Module:
    import open_clip

    model = open_clip.create_model("radfs-test", pretrained=None).eval()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return model


def test_the_image_tower_of_any_open_clip_model(tmp_path, seeded, clip):
    model = saved_clip(tmp_path / "m.safetensors")
    spec = resolve("open_clip:radfs-test", weights=tmp_path / "m.safetensors")
    assert (spec.tokens.grid, spec.tokens.has_cls) == ((4, 4), True)
    x = images(64)
    blocks = []
    model.visual.transformer.register_forward_hook(lambda *seen: blocks.append(seen[2]))
    with torch.inference_mode():
        model.visual(x)
    tokens = build(spec).encode(list(x))
    assert (tokens.cls - blocks[0][:, 0]).abs().max() <= 1e-5
    assert (tokens.patches - blocks[0][:, 1:]).abs().max() <= 1e-5


_OWN_TOWER = {"custom_text": True, "text_cfg": {**CLIP["text_cfg"], "no_causal_mask": True, "context_length": 40}}


@pytest.mark.parametrize(
    "clip", [{}, {"quick_gelu": True}, _OWN_TOWER], ids=["CLIP", "quick", "sees all"], indirect=True
)
def test_the_text_tower_of_any_open_clip_model(tmp_path, seeded, clip):
    import open_clip

    model = saved_clip(tmp_path / "m.safetensors")
    spec = resolve("open_clip:radfs-test/text", weights=tmp_path / "m.safetensors")
    context = clip["text_cfg"]["context_length"]
    assert (spec.modality, spec.tokens.dim, spec.context_length) == ("text", 64, context)
    reports = ["Heart &amp; lungs clear,  No EFFUSION.", "pneumothorax", "opacity " * 90]
    ids = open_clip.get_tokenizer("radfs-test")(reports)
    seen = []
    norm = model.ln_final if hasattr(model, "ln_final") else model.text.ln_final
    norm.register_forward_hook(lambda *found: seen.append(found[2]))
    with torch.inference_mode():
        model.encode_text(ids)
    encoder = build(spec)
    prepared = [encoder.prepare(report) for report in reports]
    tokens = encoder.encode(prepared)
    assert tokens.truncated.tolist() == [False, False, True]
    for i, item in enumerate(prepared):
        assert list(item.ids) == ids[i][ids[i] != 0].tolist()
        assert (tokens.tokens[i, : len(item)] - seen[0][i, : len(item)]).abs().max() <= 1e-5
    (alone,) = encoder.encode(prepared[1:2]).tokens
    assert (alone - tokens.tokens[1, : len(alone)]).abs().max() <= 1e-5
    begin, end = ids[0][0].item(), ids[0].max().item()
    written = encoder.prepare("clear <end_of_text> <start_of_text> lungs").ids
    assert (written.count(begin), written.count(end)) == (1, 1)


def test_text_towers_of_other_tokenizers_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"of ViT-B-16-SigLIP reads with the tokenizer timm/ViT-B-16-SigLIP, and only"):
        resolve("open_clip:ViT-B-16-SigLIP/text")
    with pytest.raises(DataError, match=r"of coca_ViT-B-32 is set up in a way of its own"):
        resolve("open_clip:coca_ViT-B-32/text")
    with pytest.raises(DataError, match=r"its text tower as open_clip:ViT-B-32@openai/text"):
        resolve("open_clip:ViT-B-32@openai/words")


OWN = """
import dataclasses
from featurestore.encoders import get_spec
from featurestore.encoders.tiny import build as tiny

def build(*, device="cpu"):
    return tiny(dataclasses.replace(get_spec("tiny"), name="mine"), device=device)
"""


def test_an_encoder_of_ones_own(tmp_path):
    (tmp_path / "my_encoder.py").write_text(OWN)
    spec = resolve(f"file:{tmp_path / 'my_encoder.py'}:build")
    encoder = build(spec)
    assert spec.name == "mine"
    assert encoder.spec is spec
    assert encoder.encode([encoder.prepare(Image.new("RGB", (40, 40)))]).patches.shape == (1, 16, 16)
    key = spec.key_config("0")
    (tmp_path / "my_encoder.py").write_text(OWN + "# another\n")
    assert resolve(f"file:{tmp_path / 'my_encoder.py'}:build").key_config("0") != key
    with pytest.raises(DataError, match="has no function 'make'"):
        resolve(f"file:{tmp_path / 'my_encoder.py'}:make")
    with pytest.raises(DataError, match="there is no file"):
        resolve("file:none.py:build")
