"""Encoders beyond the paper's: further specs, and any model of timm, the hub, open_clip or a Python file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from featurestore.encoders import build, get_spec, resolve, weights_sha256
from featurestore.encoders.foreign import hub_preprocessing
from featurestore.encoders.loading import check_file
from featurestore.encoders.transformers_models import quiet
from featurestore.errors import DataError, UnknownNameError

from . import published
from .test_published import shallow

ROOT = Path(__file__).parents[2]


def images(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def seeded() -> None:
    torch.manual_seed(0)


# ---- further specs


def test_xrv_equals_torchvisions_densenet_on_one_channel(tmp_path):
    from torchvision.models import densenet121

    network = densenet121(num_classes=18).eval()
    network.features.conv0 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    tensors = {name: value.clone() for name, value in network.state_dict().items()} | {"op_threshs": torch.zeros(18)}
    save_file(tensors, tmp_path / "all.safetensors")
    encoder = build(resolve("xrv-densenet121", weights=tmp_path / "all.safetensors"))
    x = images(224)
    with torch.inference_mode():
        expected = torch.relu(network.features(x[:, :1])).flatten(2).transpose(1, 2)
    assert (encoder.encode(list(x)).patches - expected).abs().max() <= 1e-5
    levels = encoder.prepare(Image.linear_gradient("L").resize((224, 224)).convert("RGB"))
    assert (levels.min().item(), levels.max().item()) == (-1024, 1024)


def test_the_image_tower_of_a_siglip_file_equals_the_whole_model(tmp_path, seeded):
    from transformers import SiglipConfig, SiglipModel

    spec = shallow(get_spec("xray-siglip"), 1)
    vision = {key: value for key, value in spec.architecture.options.items() if key != "vision_use_head"}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "vocab_size": 50, "projection_size": 1024}
    with quiet():
        whole = SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).eval()
        whole.save_pretrained(tmp_path)
    resolved = shallow(resolve("xray-siglip", weights=tmp_path), 1)
    x = images(384)
    with torch.inference_mode():
        expected = whole.vision_model(pixel_values=x).last_hidden_state
    tokens = build(resolved).encode(list(x))
    assert (tokens.patches - expected).abs().max() <= 1e-5
    assert tokens.cls is None


def test_eva_x_is_read_under_the_names_of_its_trainer(tmp_path):
    d, hidden = 768, 2048
    shapes: published.Shapes = {"cls_token": (1, 1, d), "pos_embed": (1, 197, d), "mask_token": (1, 1, d)}
    shapes |= {"patch_embed.proj.weight": (d, 3, 16, 16), "patch_embed.proj.bias": (d,), "rope.freqs_cos": (196, 64)}
    shapes |= {"norm.weight": (d,), "norm.bias": (d,), "lm_head.weight": (d, d), "lm_head.bias": (d,)}
    for i in range(12):
        b = f"blocks.{i}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{b}.{norm}.weight": (d,), f"{b}.{norm}.bias": (d,)}
        shapes |= {f"{b}.attn.{n}_proj.weight": (d, d) for n in "qkv"}
        shapes |= {f"{b}.attn.q_bias": (d,), f"{b}.attn.v_bias": (d,), f"{b}.attn.rope.freqs_sin": (196, 64)}
        shapes |= {f"{b}.attn.proj.weight": (d, d), f"{b}.attn.proj.bias": (d,)}
        for name, shape in (("w1", (hidden, d)), ("w2", (hidden, d)), ("w3", (d, hidden))):
            shapes |= {f"{b}.mlp.{name}.weight": shape, f"{b}.mlp.{name}.bias": shape[:1]}
        shapes |= {f"{b}.mlp.ffn_ln.weight": (hidden,), f"{b}.mlp.ffn_ln.bias": (hidden,)}
    module = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    torch.save({"module": module, "epoch": 599}, tmp_path / "eva_x.pt")
    assert len(check_file(get_spec("eva-x"), tmp_path / "eva_x.pt")) == 234


def test_registers_of_dinov3_are_dropped(tmp_path, seeded):
    import timm

    network = timm.create_model("vit_base_patch16_dinov3", num_classes=0, depth=1).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    encoder = build(shallow_timm(resolve("dinov3", weights=tmp_path)))
    x = images(256)
    with torch.inference_mode():
        features = network.forward_features(x)
    tokens = encoder.encode(list(x))
    assert features.shape == (2, 1 + 4 + 256, 768)
    assert (tokens.cls - features[:, 0]).abs().max() <= 1e-5
    assert (tokens.patches - features[:, 5:]).abs().max() <= 1e-5


def shallow_timm(spec):
    import dataclasses

    return dataclasses.replace(spec, architecture=dataclasses.replace(spec.architecture, options={"depth": 1}))


def test_restricted_licences_say_so():
    for name in ("medsiglip", "xray-siglip", "dinov3", "rad-dino-maira-2"):
        assert get_spec(name).terms, name
    assert not get_spec("mrm").terms


# ---- foreign models


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


def test_the_image_tower_of_any_open_clip_model(tmp_path, seeded):
    import open_clip

    model = open_clip.create_model("ViT-S-32", pretrained=None).eval()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "m.safetensors")
    spec = resolve("open_clip:ViT-S-32", weights=tmp_path / "m.safetensors")
    assert (spec.tokens.grid, spec.tokens.has_cls) == ((7, 7), True)
    x = images(224)
    blocks = []
    model.visual.transformer.register_forward_hook(lambda *seen: blocks.append(seen[2]))
    with torch.inference_mode():
        model.visual(x)
    tokens = build(spec).encode(list(x))
    assert (tokens.cls - blocks[0][:, 0]).abs().max() <= 1e-5
    assert (tokens.patches - blocks[0][:, 1:]).abs().max() <= 1e-5


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
