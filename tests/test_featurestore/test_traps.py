"""What silently changes numbers, or runs code, when published checkpoints are read the obvious way, with a test each.

`TRAPS` names them all, with the tests that hold against each. Those that stand nowhere else are in this file.
"""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from featurestore.encoders import build, get_spec, resolve, timm_models
from featurestore.encoders.checkpoint import read_checkpoint
from featurestore.encoders.loading import check_file
from featurestore.encoders.preprocess import image_transform
from featurestore.errors import DataError

from . import published
from .test_preprocessing import hub, rad_dinos
from .test_published import REPORT, shallow

TRAPS = {
    "storages tagged cuda:0": ("test_weights:test_tensors_saved_on_a_gpu_are_read_without_one",),
    "a file in the container of before torch 1.6": ("test_weights:test_both_containers_give_the_same",),
    "Lightning's and OmegaConf's objects beside the tensors": (
        "test_weights:test_a_file_of_lightning_and_omegaconf_needs_neither_and_runs_nothing",
        "test_weights:test_a_name_that_only_begins_like_a_harmless_one_is_refused",
    ),
    "BERT's pooler and heads: left over, never missing": (
        "test_traps:test_of_a_bert_file_the_heads_are_left_and_nothing_may_be_missing",
    ),
    "a crop that starts one pixel off": (
        "test_preprocessing:test_the_hubs_crop_and_torchvisions_differ_by_a_pixel_where_the_margin_leaves_three",
        "test_traps:test_where_a_crop_starts",
    ),
    "the hub processor's default backend": ("test_traps:test_the_hub_processors_default_backend_gives_other_pixels",),
    "a min-max stretch that most images need": (
        "test_preprocessing:test_min_max_changes_images_that_do_not_span_all_levels_and_no_others",
    ),
    "a tokenizer without a length, in a folder that brings code": (
        "test_published:test_tokens_of_reports_equal_the_network_written_once_more",
        "test_weights:test_code_in_a_model_folder_never_runs_not_even_with_y_on_standard_input",
    ),
    "special tokens written in a report, and blank reports": ("test_weights:test_casing_and_special_words_of_reports",),
    "pooling by the mean takes the final norm away": (
        "test_traps:test_the_final_norm_is_there_unless_asked_otherwise",
    ),
    "a second BERT in the file, whole numbers in it, position embeddings that no formula gives": (
        "test_traps:test_of_mrms_file_positions_are_loaded_and_whole_numbers_stay_whole",
    ),
    "a second repository that open_clip asks for": ("test_traps:test_biomedclip_needs_its_own_file_alone",),
    "tokens beyond half precision": ("test_traps:test_half_precision_holds_the_tokens_of_every_kind_of_network",),
    "model_ema beside model": ("test_weights:test_the_network_is_taken_not_its_moving_average",),
    "a decoder whose names look like the encoder's": (
        "test_weights:test_decoder_blocks_are_not_taken_for_encoder_blocks",
    ),
    "a DataParallel prefix": ("test_weights:test_the_data_parallel_prefix_is_not_optional",),
    "a truncated file": ("test_weights:test_a_truncated_file_is_refused",),
    "a hostile pickle": ("test_weights:test_a_hostile_pickle_is_refused_by_name_and_nothing_runs",),
    "a checkpoint of another model": ("test_weights:test_the_file_of_another_encoder_is_recognised",),
    "names that transformers 5 has changed": (
        "test_weights:test_names_that_transformers_5_changed_are_found_under_their_old_names",
    ),
    "an image upsampled inside the network": (
        "test_published:test_tokens_of_images_equal_the_network_written_once_more",
    ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_has_its_tests(trap):
    for name in TRAPS[trap]:
        module, _, test = name.partition(":")
        assert test.startswith("test_")
        assert callable(getattr(import_module(f"{__package__}.{module}"), test))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traps")


def test_of_a_bert_file_the_heads_are_left_and_nothing_may_be_missing(folder):
    spec = shallow(get_spec("cxr-bert-general"), 1)
    path, tensors = published.write("cxr-bert-general", folder / "bert", depth=1)
    content = read_checkpoint(path)
    assert {"bert.pooler.dense.weight", "cls.predictions.bias", "bert.embeddings.position_ids"} <= set(content)
    assert {f"bert.{name}" for name in check_file(spec, path)} == set(tensors)
    del content["bert.encoder.layer.0.output.dense.bias"]
    torch.save(content, folder / "lacking.bin")
    with pytest.raises(DataError, match=r"1 missing: encoder\.layer\.0\.output\.dense\.bias"):
        check_file(spec, folder / "lacking.bin")


@pytest.mark.parametrize(("margin", "first_hub", "first_torchvision"), [(1, 0, 0), (2, 1, 1), (3, 1, 2), (5, 2, 2)])
def test_where_a_crop_starts(margin, first_hub, first_torchvision):
    """Half a pixel is rounded down by the hub's processor, to even by torchvision: 1.5 and 2.5 to 2."""
    columns = np.tile(np.arange(518 + margin) % 256, (518, 1)).astype(np.uint8)
    rad_dino = image_transform(get_spec("rad-dino").preprocessing)(Image.fromarray(columns))
    assert round((rad_dino[0, 0, 0].item() * 0.2583 + 0.5307) * 255) == first_hub
    columns = np.tile(np.arange(224 + margin) % 256, (224, 1)).astype(np.uint8)
    c2l = image_transform(get_spec("c2l").preprocessing)(Image.fromarray(columns))
    assert round((c2l[0, 0, 0].item() * 0.229 + 0.485) * 255) == first_torchvision


def test_the_hub_processors_default_backend_gives_other_pixels():
    from transformers import BitImageProcessor

    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (900, 1100), dtype=np.uint8))
    ours = image_transform(get_spec("rad-dino").preprocessing)(image)
    theirs = rad_dinos(BitImageProcessor)(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    levels = (ours - theirs).abs() * 0.2583 * 255
    assert 0.9 < levels.max() < 2.1  # grey levels
    assert (ours - hub(image)).abs().max() <= 1e-6


def test_the_final_norm_is_there_unless_asked_otherwise(folder):
    import timm

    path, _ = published.write("medical-mae", folder / "mae", depth=1)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    tokens = {
        choice: build(shallow(resolve("medical-mae", weights=path, variant={"tokens": choice}), 1)).encode(list(x))
        for choice in ("normed", "before-norm")
    }
    pooled = timm.create_model("vit_base_patch16_224", num_classes=0, global_pool="avg", depth=1)
    wrong = pooled.load_state_dict(check_file(shallow(get_spec("medical-mae"), 1), path), strict=False)
    assert set(wrong.missing_keys) == {"fc_norm.weight", "fc_norm.bias"}
    with torch.inference_mode():
        silent = pooled.eval().forward_features(x)[:, 1:]
    assert (silent - tokens["before-norm"].patches).abs().max() <= 1e-5
    assert (silent - tokens["normed"].patches).norm() > 0.1 * silent.norm()


def test_of_mrms_file_positions_are_loaded_and_whole_numbers_stay_whole(folder):
    path, tensors = published.write("mrm", folder / "mrm", depth=1)
    content = read_checkpoint(path)["model"]
    positions = content["bert_encoder.model.bert.embeddings.position_ids"]
    assert (positions.dtype, positions[0, -1].item()) == (torch.int64, 511)  # in half precision beyond 2048 it is not
    spec = shallow(resolve("mrm", weights=path), 1)
    assert not any("bert" in name for name in check_file(spec, path))
    model = timm_models.loaded(spec, timm_models.network(spec), device="cpu")
    assert torch.equal(model.pos_embed, tensors["pos_embed"])  # random ones: no formula could have made them
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


def test_biomedclip_needs_its_own_file_alone(folder, monkeypatch):
    path, _ = published.write("biomedclip", folder / "clip", depth=1)
    for package in ("open_clip", "transformers", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, package, None)  # to import it is an error
    assert build(shallow(resolve("biomedclip", weights=path), 1)).spec.name == "biomedclip"


@pytest.mark.parametrize("name", ["c2l", "mrm", "bio-clinicalbert"])
def test_half_precision_holds_the_tokens_of_every_kind_of_network(name, folder):
    path, _ = published.write(name, folder / f"half-{name}", depth=1)
    encoder = build(shallow(resolve(name, weights=path), 1))
    if encoder.spec.modality == "text":
        tokens = encoder.encode([encoder.prepare(REPORT)]).tokens
    else:
        tokens = encoder.encode([encoder.prepare(Image.linear_gradient("L").resize((300, 260)))]).patches
    error = (tokens.half().float() - tokens).norm() / tokens.norm()
    assert 1e-4 < error < 3e-4  # 11 bits of mantissa: 2**-11 / sqrt(3) = 2.8e-4 at worst, 2.1e-4 of real tokens
    assert tokens.abs().max() < 65504
