"""Encoders with a spec beyond the paper's: files in their published layout, against networks that are not ours."""

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from featurestore.encoders import build, get_spec, resolve
from featurestore.encoders.loading import published_layout
from featurestore.encoders.spec import ImagePreprocessing
from featurestore.encoders.transformers_models import quiet

from . import independent, published
from .test_published import shallow


def images(spec) -> torch.Tensor:
    assert isinstance(spec.preprocessing, ImagePreprocessing)
    side = spec.preprocessing.crop_px
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_xrv_equals_torchvisions_densenet_on_one_channel(tmp_path):
    from torchvision.models import densenet121

    torch.manual_seed(0)
    network = densenet121(num_classes=18).eval()
    network.features.conv0 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    tensors = {name: value.clone() for name, value in network.state_dict().items()} | {"op_threshs": torch.zeros(18)}
    save_file(tensors, tmp_path / "all.safetensors")
    encoder = build(resolve("xrv-densenet121", weights=tmp_path / "all.safetensors"))
    x = images(encoder.spec)
    with torch.inference_mode():
        expected = torch.relu(network.features(x[:, :1])).flatten(2).transpose(1, 2)
    assert (encoder.encode(list(x)).patches - expected).abs().max() <= 1e-5
    levels = encoder.prepare(Image.linear_gradient("L").resize((224, 224)).convert("RGB"))
    assert (levels.min().item(), levels.max().item()) == (-1024, 1024)


def test_rad_dinos_successor_is_read_as_rad_dino_is(tmp_path):
    path, tensors = published.write("rad-dino", tmp_path, depth=1)
    encoder = build(shallow(resolve("rad-dino-maira-2", weights=path), 1))
    x = images(encoder.spec)[:1]
    with torch.inference_mode():
        expected = independent.dinov2(tensors, x)
    tokens = encoder.encode(list(x))
    assert (torch.cat([tokens.cls[:, None], tokens.patches], 1) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "d", "hidden", "patch", "n", "heads"),
    [
        ("medsiglip", 1152, 4304, 14, 1024, 16),
        ("xray-siglip", 1024, 4096, 16, 576, 16),
    ],
)
def test_the_image_tower_of_a_siglip_file(name, d, hidden, patch, n, heads, tmp_path):
    from transformers import SiglipConfig, SiglipModel

    shapes = published.siglip(1, d, hidden, patch, n)
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision = {key: value for key, value in shallow(get_spec(name), 1).architecture.options.items() if "head" not in key}
    with quiet(), torch.device("meta"):
        config = SiglipConfig(
            vision_config=vision | {"num_attention_heads": heads}, text_config=text | {"projection_size": d}
        )
        whole = {key: tuple(value.shape) for key, value in SiglipModel(config).state_dict().items()}
    beyond = {key: shape for key, shape in whole.items() if key not in shapes}
    assert shapes.items() <= whole.items()  # the names and shapes that transformers itself writes
    assert {key.split(".")[0] for key in beyond} == {"text_model", "logit_scale", "logit_bias", "vision_model"}
    tensors = published.random_tensors(shapes)
    path = tmp_path / "model.safetensors"
    save_file(tensors | published.random_tensors(beyond | {"vision_model.embeddings.position_ids": (1, n)}, 1), path)
    encoder = build(shallow(resolve(name, weights=path), 1))
    x = images(encoder.spec)[:1]
    with torch.inference_mode():
        expected = independent.siglip(tensors, x, patch=patch, heads=heads)
    tokens = encoder.encode(list(x))
    assert tokens.patches.shape == (1, n, d)
    assert tokens.cls is None
    assert (tokens.patches - expected).abs().max() <= 1e-5


def test_eva_x_is_read_under_the_names_of_its_trainer(tmp_path):
    names = published_layout(get_spec("eva-x"))
    assert len(names) == len(published.eva_x(12)) == 234
    tensors = published.random_tensors(published.eva_x(2))
    beyond: published.Shapes = {"mask_token": (1, 1, 768), "lm_head.weight": (768, 768), "lm_head.bias": (768,)}
    beyond |= {"rope.freqs_cos": (196, 64), "blocks.0.attn.rope.freqs_sin": (196, 64)}
    torch.save({"module": tensors | published.random_tensors(beyond, 1), "epoch": 599}, tmp_path / "eva_x.pt")
    encoder = build(shallow(resolve("eva-x", weights=tmp_path / "eva_x.pt"), 2))
    x = images(encoder.spec)
    with torch.inference_mode():
        expected = independent.eva_x(tensors, x)
    tokens = encoder.encode(list(x))
    assert (tokens.cls - expected[:, 0]).abs().max() <= 1e-5
    assert (tokens.patches - expected[:, 1:]).abs().max() <= 1e-5


def test_dinov3_equals_transformers_own_and_its_registers_are_dropped(tmp_path):
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    spec = shallow(get_spec("dinov3"), 2)
    tensors = published.random_tensors({name: tuple(value.shape) for name, value in published_layout(spec).items()})
    save_file(tensors, tmp_path / "model.safetensors")
    config = DINOv3ViTConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=2,
        num_attention_heads=12,
        image_size=256,
        num_register_tokens=4,
    )
    network = DINOv3ViTModel(config).eval()
    network.load_state_dict(as_transformers_names_it(tensors), strict=True)
    encoder = build(shallow(resolve("dinov3", weights=tmp_path), 2))
    x = images(spec)
    with torch.inference_mode():
        expected = network(pixel_values=x).last_hidden_state
    tokens = encoder.encode(list(x))
    assert expected.shape == (2, 1 + 4 + 256, 768)
    assert (tokens.cls - expected[:, 0]).abs().max() <= 1e-5
    assert (tokens.patches - expected[:, 5:]).abs().max() <= 1e-5


def as_transformers_names_it(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's copy of DINOv3 joins q, k and v, and leaves out their biases, which are zero."""
    names = {
        "cls_token": "embeddings.cls_token",
        "reg_token": "embeddings.register_tokens",
        "patch_embed.proj": "embeddings.patch_embeddings",
        "blocks.": "model.layer.",
        "gamma_1": "layer_scale1.lambda1",
        "gamma_2": "layer_scale2.lambda1",
        "attn.proj": "attention.o_proj",
        "fc1": "up_proj",
        "fc2": "down_proj",
    }
    found = {"embeddings.mask_token": torch.zeros(1, 1, 768)}
    for name, value in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        if ".attn.qkv." not in name:
            found[name] = value
            continue
        layer = name.partition(".attn.")[0]
        for part, rows in zip("qkv", value.chunk(3), strict=True):
            found[f"{layer}.attention.{part}_proj.weight"] = rows
        found |= {f"{layer}.attention.{part}_proj.bias": torch.zeros(768) for part in "qv"}
    return found


def test_restricted_licences_say_so():
    for name in ("medsiglip", "xray-siglip", "dinov3", "rad-dino-maira-2"):
        assert get_spec(name).terms, name
    assert not get_spec("mrm").terms
