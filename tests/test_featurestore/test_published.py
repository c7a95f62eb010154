"""Every encoder of the paper, from a file in its published layout to tokens, against the network written once more."""

import dataclasses
from pathlib import Path

import pytest
import torch

from featurestore.encoders import build, get_spec, resolve
from featurestore.encoders.loading import published_layout
from featurestore.encoders.spec import EncoderSpec, ImagePreprocessing

from . import independent, published

IMAGE = ("rad-dino", "c2l", "medical-mae", "mrm", "biovil-t", "gloria", "biomedclip")
TEXT = ("biovil-t-bert", "cxr-bert-general", "bio-clinicalbert")
CHOICES = [(name, {}) for name in IMAGE] + [
    ("medical-mae", {"tokens": "before-norm"}),
    ("mrm", {"tokens": "before-norm"}),
    ("biovil-t", {"tokens": "official"}),
    ("biovil-t", {"tokens": "static"}),
    ("gloria", {"upsample": "299"}),
]
REPORT = "Heart and lungs clear, no Effusion."


def shallow(spec: EncoderSpec, depth: int) -> EncoderSpec:
    """The same encoder of fewer blocks."""
    match spec.architecture.name:
        case "resnet18" | "resnet50":
            more = {"layers": (depth,) * 4}
        case _:
            more = {"depth" if spec.architecture.library == "timm" else "num_hidden_layers": depth}
    architecture = dataclasses.replace(spec.architecture, options={**spec.architecture.options, **more})
    return dataclasses.replace(spec, architecture=architecture)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published")


_written: dict[str, tuple[Path, dict[str, torch.Tensor]]] = {}


def written(name: str, folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """The encoder's file of two blocks (one a stage), made once."""
    if name not in _written:
        _written[name] = published.write(name, folder / name, depth=1 if name in ("c2l", "biovil-t", "gloria") else 2)
    return _written[name]


def spec_of(name: str, path: Path, variant: dict[str, str]) -> EncoderSpec:
    return shallow(resolve(name, weights=path, variant=variant), 1 if name in ("c2l", "biovil-t", "gloria") else 2)


@pytest.mark.parametrize(("name", "variant"), CHOICES, ids=[f"{n}-{'-'.join(v.values())}" for n, v in CHOICES])
def test_tokens_of_images_equal_the_network_written_once_more(name, variant, files):
    path, tensors = written(name, files)
    spec = spec_of(name, path, variant)
    encoder = build(spec)
    assert isinstance(spec.preprocessing, ImagePreprocessing)
    side = spec.preprocessing.crop_px
    count = 2 if side < 400 else 1
    images = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))
    tokens = encoder.encode(list(images))
    with torch.inference_mode():
        expected = independent.expected(name, tensors, images, "".join(variant.values()))
    if spec.tokens.has_cls:
        assert (tokens.cls - expected[:, 0]).abs().max() <= 1e-5
        expected = expected[:, 1:]
    assert tokens.patches.shape == expected.shape == (count, spec.max_tokens, spec.tokens.dim)
    assert expected.std() > 0.1
    assert (tokens.patches - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", TEXT)
def test_tokens_of_reports_equal_the_network_written_once_more(name, files):
    from transformers import BertTokenizer

    path, tensors = written(name, files)
    encoder = build(spec_of(name, path, {}))
    reports = [REPORT, "no effusion", "lungs " * 600]
    prepared = [encoder.prepare(report) for report in reports]
    tokens = encoder.encode(prepared)
    tokenizer = BertTokenizer.from_pretrained(path.parent, do_lower_case=True)
    for i, report in enumerate(reports):
        ids = tokenizer(report, max_length=512, truncation=True, return_tensors="pt")["input_ids"]
        assert list(prepared[i].ids) == ids[0].tolist()
        with torch.inference_mode():
            expected = independent.bert(independent.under(tensors, "bert."), ids)[0]
        assert (tokens.tokens[i, : len(expected)] - expected).abs().max() <= 1e-5
    assert tokens.truncated.tolist() == [False, False, True]


@pytest.mark.parametrize("name", [*IMAGE, *TEXT])
def test_at_full_depth_names_and_shapes_are_the_published_ones(name):
    shapes = {
        "rad-dino": lambda: published.dinov2(12),
        "c2l": lambda: published.resnet("basic", (2, 2, 2, 2)),
        "medical-mae": lambda: published.vit(12),
        "mrm": lambda: published.vit(12),
        "gloria": lambda: published.resnet("bottleneck", (3, 4, 6, 3)),
        "biomedclip": lambda: published.vit(12),
        "biovil-t": lambda: {
            **published.resnet("bottleneck", (3, 4, 6, 3), "encoder."),
            "backbone_to_vit.weight": (256, 2048, 1, 1),
            "missing_previous_emb": (1, 256, 1, 1),
        },
        "biovil-t-bert": lambda: published.bert(12, 30522, "", position_ids=False),
        "cxr-bert-general": lambda: published.bert(12, 30522, "", position_ids=False),
        "bio-clinicalbert": lambda: published.bert(12, 28996, "", position_ids=False),
    }[name]()
    assert {key: tuple(value.shape) for key, value in published_layout(get_spec(name)).items()} == shapes


def test_the_sizes_of_the_networks_are_those_of_the_files():
    # 150 tensors of a ViT-B/16; with all it holds, BioViL-T's file has 372 tensors in 110 MB.
    assert len(published.vit(12)) == 150
    whole = published.resnet("bottleneck", (3, 4, 6, 3), "encoder.encoder.", fc=1000) | published.biovil_t_pooler()
    whole |= {"encoder.backbone_to_vit.weight": (256, 2048, 1, 1), "encoder.missing_previous_emb": (1, 256, 1, 1)}
    numbers = sum(torch.Size(shape).numel() * (8 if "num_batches" in name else 4) for name, shape in whole.items())
    assert (len(whole), numbers) == (372, 109_613_648)
