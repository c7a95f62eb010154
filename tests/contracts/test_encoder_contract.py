"""What every encoder promises, over the literal table and every kind of foreign model.

What needs weights runs where they are; foreign models are small and random.
"""

import dataclasses
import importlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featurestore.encoders import ENCODERS, Encoder, build, get_spec, is_available
from featurestore.encoders.sources import PypiWeights, SeededWeights
from featurestore.encoders.spec import PRECISIONS, Architecture, EncoderSpec, ImagePreprocessing
from featurestore.errors import ItemError, UnknownNameError
from featurestore.keys import content_key
from featurestore.views import Crop, crop_of

from .foreign import FOREIGN, make

HALF_MAX = 65504  # the largest float16: tokens are stored in half precision
WORDS = ("heart", "lungs", "clear", "effusion", "acute", "opacity:", "left", "(mildly)", "unchanged", "3.5", "cm.")

every_spec = pytest.mark.parametrize("spec", [get_spec(name) for name in ENCODERS], ids=list(ENCODERS))
every_encoder = pytest.mark.parametrize(
    "encoder",
    [
        pytest.param(name, marks=() if isinstance(get_spec(name).weights, SeededWeights) else pytest.mark.weights)
        for name in ENCODERS
        if isinstance(get_spec(name).weights, SeededWeights | PypiWeights) or is_available(get_spec(name))
    ]
    + list(FOREIGN),
    indirect=True,
)
_folders = TemporaryDirectory()


@cache
def _built(name: str) -> Encoder:
    if name not in FOREIGN:
        return build(get_spec(name))
    folder = Path(_folders.name, str(list(FOREIGN).index(name)))
    folder.mkdir()
    return build(make(name, folder))


@pytest.fixture
def encoder(request: pytest.FixtureRequest) -> Encoder:
    if request.param not in FOREIGN and not is_available(get_spec(request.param)):
        pytest.skip(f"weights of {request.param} not installed")
    return _built(request.param)


def payloads(spec: EncoderSpec) -> list[Any]:
    """Items of many sizes; among the reports one of a single word and one beyond the context length."""
    rng = np.random.default_rng(7)
    if spec.modality == "image":
        sizes = [(300, 260), (64, 64), (31, 90), (224, 224), (500, 400), (1, 1), (257, 256)]
        images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
        return [*images, Image.new("RGB", (256, 256)), Image.linear_gradient("L").convert("RGB")]
    assert spec.context_length is not None
    lengths = [1, 3, 7, spec.context_length // 4, 5, 2 * spec.context_length, 12, 7]
    return [" ".join(rng.choice(WORDS, length)) for length in lengths]


def tokens_of(encoder: Encoder, prepared: list[Any]) -> list[torch.Tensor]:
    """The real tokens of each item, the class token first where there is one."""
    output = encoder.encode(prepared)
    if encoder.spec.modality == "text":
        return [output.tokens[i, :length] for i, length in enumerate(output.lengths.tolist())]
    if output.cls is None:
        return list(output.patches.cpu())
    output = output._replace(patches=output.patches.cpu(), cls=output.cls.cpu())
    return [torch.cat([cls[None], patches]) for cls, patches in zip(output.cls, output.patches, strict=True)]


def changed(value: Any) -> Any:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value + 0.125
        case str():
            return f"{value}-other"
        case Architecture():
            return dataclasses.replace(value, name=changed(value.name))
        case tuple():
            return (changed(value[0]), *value[1:]) if value else ("other",)
    raise TypeError(f"no other value for {value!r}")


def key(spec: EncoderSpec, weights: str = "0" * 64) -> str:
    return content_key(spec.key_config(weights))


# ---- the spec


@every_spec
def test_the_spec_is_json_and_complete(spec: EncoderSpec):
    assert get_spec(spec.name) is spec
    as_json = json.loads(json.dumps(dataclasses.asdict(spec)))
    assert as_json["weights"]["kind"]
    for name in ("output", "layer", "licence", "objective"):
        assert as_json[name].strip(), name
    assert str(spec.architecture) == f"{spec.architecture.library}:{spec.architecture.name}"
    assert spec.pretraining or spec.objective == "none"
    assert min(spec.tokens.dim, *(spec.tokens.grid or (1,))) > 0
    assert (spec.context_length is None) == (spec.modality == "image") == (spec.lower_case is None)
    module, _, function = spec.builder.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


@every_spec
def test_the_description_names_the_shape(spec: EncoderSpec):
    text = spec.describe()
    assert f"x {spec.tokens.dim}" in text
    assert spec.layer in text
    if spec.tokens.grid is not None:
        height, width = spec.tokens.grid
        assert text.startswith(f"{height * width} patch tokens {height}x{width} ")
        assert ("no CLS" in text) != spec.tokens.has_cls
    else:
        assert f"up to {spec.context_length} tokens" in text


@every_spec
def test_what_changes_numbers_changes_the_key(spec: EncoderSpec):
    variants = [dataclasses.replace(spec, **{f: changed(getattr(spec, f))}) for f in ("name", "architecture", "output")]
    variants.append(dataclasses.replace(spec, code_version=spec.code_version + 1))
    variants.append(dataclasses.replace(spec, tokens=dataclasses.replace(spec.tokens, dim=spec.tokens.dim + 1)))
    for field in dataclasses.fields(spec.preprocessing):
        value = getattr(spec.preprocessing, field.name)
        other = {field.name: value - 1 if field.name == "crop_px" else changed(value)}
        variants.append(dataclasses.replace(spec, preprocessing=dataclasses.replace(spec.preprocessing, **other)))
    if spec.tokens.grid is not None:
        without = dataclasses.replace(spec.tokens, has_cls=not spec.tokens.has_cls)
        variants.append(dataclasses.replace(spec, tokens=without))
    keys = {key(variant) for variant in variants} | {key(spec), key(spec, "1" * 64)}
    assert len(keys) == len(variants) + 2


@every_spec
def test_the_decoder_and_the_precision_are_in_the_key(spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch):
    before = key(spec)
    monkeypatch.setattr("featurestore.encoders.spec.DECODER", "another-decoder")
    assert (key(spec) != before) == (spec.modality == "image")
    monkeypatch.undo()
    assert len({key(spec.computed_in(precision)) for precision in PRECISIONS} | {before}) == len(PRECISIONS)
    with pytest.raises(UnknownNameError, match=r"unknown precision 'bf16'. Did you mean 'bfloat16'"):
        spec.computed_in("bf16")


@every_spec
def test_what_does_not_change_numbers_leaves_the_key_alone(spec: EncoderSpec):
    for field in ("layer", "licence", "terms", "objective", "pretraining", "notes", "builder", "asked", "cautions"):
        assert key(dataclasses.replace(spec, **{field: changed(getattr(spec, field))})) == key(spec), field
    config = spec.key_config("0" * 64)
    assert json.loads(json.dumps(config)) == config


# ---- the encoder


@every_encoder
def test_tokens_have_the_promised_shape_and_are_finite(encoder: Encoder):
    spec = encoder.spec
    prepared = [encoder.prepare(payload) for payload in payloads(spec)]
    output = encoder.encode(prepared)
    b, d = len(prepared), spec.tokens.dim
    if spec.modality == "image":
        assert isinstance(spec.preprocessing, ImagePreprocessing)
        height, width = spec.tokens.grid or (0, 0)
        side = spec.preprocessing.crop_px
        assert all(item.shape == (3, side, side) and item.dtype == torch.float32 for item in prepared)
        assert output.patches.shape == (b, height * width, d)
        assert (output.cls is not None) == spec.tokens.has_cls
        assert output.cls is None or output.cls.shape == (b, d)
    else:
        lengths = [len(item) for item in prepared]
        assert output.tokens.shape == (b, max(lengths), d)
        assert output.lengths.tolist() == lengths
        assert output.lengths.dtype == torch.int64
        assert max(lengths) == spec.context_length
        assert output.truncated.tolist() == [i == 5 for i in range(b)]
        for row, length in zip(output.tokens, lengths, strict=True):
            assert not row[length:].any()
    for tensor in tokens_of(encoder, prepared):
        assert tensor.dtype == torch.float32
        assert tensor.device.type == "cpu"
        assert not tensor.is_inference()
        assert not tensor.requires_grad
        assert tensor.isfinite().all()
        assert tensor.abs().max() < HALF_MAX


@every_encoder
def test_different_items_give_different_tokens(encoder: Encoder):
    prepared = [encoder.prepare(payload) for payload in payloads(encoder.spec)]
    assert len({tensor.numpy().tobytes() for tensor in tokens_of(encoder, prepared)}) == len(prepared)


@every_encoder
def test_an_item_alone_equals_the_item_in_a_batch(encoder: Encoder):
    prepared = [encoder.prepare(payload) for payload in payloads(encoder.spec)]
    together = tokens_of(encoder, prepared)
    for i, item in enumerate(prepared):
        (alone,) = tokens_of(encoder, [item])
        assert alone.shape == together[i].shape
        assert (alone - together[i]).norm() <= 1e-4 * alone.norm()


@every_encoder
def test_two_builds_give_the_same_bytes(encoder: Encoder):
    again = build(encoder.spec)
    some = payloads(encoder.spec)[:4]
    first = tokens_of(encoder, [encoder.prepare(payload) for payload in some])
    second = tokens_of(again, [again.prepare(payload) for payload in some])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_encoder
def test_threads_prepare_what_one_thread_prepares(encoder: Encoder):
    many = payloads(encoder.spec) * 10
    alone = [encoder.prepare(payload) for payload in many]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(encoder.prepare, many))
    if encoder.spec.modality == "image":
        assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    else:
        assert alone == together


@every_encoder
def test_encoding_leaves_prepared_items_alone(encoder: Encoder):
    payload = payloads(encoder.spec)[0]
    item = encoder.prepare(payload)
    before = item.clone() if encoder.spec.modality == "image" else item
    encoder.encode([item])
    assert torch.equal(item, before) if encoder.spec.modality == "image" else encoder.prepare(payload) == before


@every_encoder
def test_gray_and_rgb_of_equal_channels_are_prepared_alike_in_every_view(encoder: Encoder):
    if encoder.spec.modality == "text":
        pytest.skip("reads texts")
    for size in ((300, 260), (97, 511), (1024, 700)):
        gray = Image.fromarray(np.random.default_rng(3).integers(0, 256, size, dtype=np.uint8))
        for crop in (None, crop_of("d/x", 1, width=gray.width, height=gray.height)):
            assert torch.equal(encoder.prepare(gray, crop), encoder.prepare(gray.convert("RGB"), crop))


@every_encoder
def test_a_view_is_the_part_that_torchvision_would_cut_out(encoder: Encoder):
    if encoder.spec.modality == "text":
        pytest.skip("reads texts")
    image = payloads(encoder.spec)[0]
    crop = crop_of("d/x", 1, width=image.width, height=image.height)
    part = image.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
    side = encoder.prepare(image).shape[1]
    whole = encoder.prepare(part.resize((side, side), Image.Resampling.BILINEAR), Crop(0, 0, side, side))
    assert torch.equal(encoder.prepare(image, crop), whole)
    assert not torch.equal(encoder.prepare(image, crop), encoder.prepare(image))


@every_encoder
def test_every_text_encoder_keeps_its_special_tokens_once_at_both_ends(encoder: Encoder):
    if encoder.spec.modality == "image":
        pytest.skip("reads images")
    special = encoder.spec.preprocessing.special_tokens
    assert special in ((), ("[CLS]", "[SEP]"), ("<start_of_text>", "<end_of_text>"))
    if special:
        windowed = build(encoder.spec.with_long_text("window"))
        begin, end = encoder.prepare(WORDS[0]).ids[:: len(encoder.prepare(WORDS[0])) - 1]
        for payload in payloads(encoder.spec):
            for ids in (encoder.prepare(payload).ids, windowed.prepare(payload).ids):
                assert (ids[0], ids[-1], ids.count(begin), ids.count(end)) == (begin, end, 1, 1)


@every_encoder
def test_half_precision_gives_the_same_tokens_within_its_error(encoder: Encoder):
    some = payloads(encoder.spec)[:4]
    exact = tokens_of(encoder, [encoder.prepare(payload) for payload in some])
    for precision, error in (("bfloat16", 0.2), ("float16", 0.02)):
        half = build(encoder.spec.computed_in(precision))
        for one, other in zip(exact, tokens_of(half, [half.prepare(payload) for payload in some]), strict=True):
            assert other.dtype == torch.float32
            assert (one - other).norm() <= error * one.norm()


@every_encoder
def test_text_that_cannot_be_encoded_is_an_item_error(encoder: Encoder):
    if encoder.spec.modality != "text":
        pytest.skip("reads images")
    for blank in ("", "  \n\t", "\u00a0"):
        with pytest.raises(ItemError, match="empty text"):
            encoder.prepare(blank)
    with pytest.raises(ItemError, match="not valid Unicode"):
        encoder.prepare("heart \ud800")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
@every_encoder
def test_an_accelerator_gives_the_same_tokens(encoder: Encoder):
    there = build(encoder.spec, device="cuda")
    prepared = [encoder.prepare(payload) for payload in payloads(encoder.spec)]
    for here, other in zip(tokens_of(encoder, prepared), tokens_of(there, prepared), strict=True):
        assert (here - other).norm() <= 1e-4 * here.norm()
