"""Encoders without a spec of their own: any model of timm, of the Hugging Face hub, of open_clip, or of a Python file.

    timm:resnet50.a1_in1k   hf:facebook/dinov2-base@COMMIT   open_clip:ViT-B-16@openai[/text]   file:my_encoder.py:build

Preprocessing and shapes come from the model's own configuration; what this package cannot express exactly is refused.
Code of a hub repository is never run. A Python file is the user's own, and is.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .channel_stats import HALF
from .sources import HubWeights, LocalWeights, PageWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, TextPreprocessing, TokenLayout

PREFIXES = ("timm", "hf", "open_clip", "file")
HUB_FILES = ("*.json", "*.txt", "model.safetensors", "pytorch_model.bin")
"""What is fetched of a model on the hub: never Python."""

_MODELS = "featurestore.encoders.foreign_models"
_UNKNOWN: dict[str, Any] = {"objective": "unknown", "pretraining": ("not stated",)}
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def is_foreign(name: str) -> bool:
    """Whether `name` begins with one of the prefixes."""
    return name.partition(":")[0] in PREFIXES and ":" in name


def foreign_spec(name: str) -> EncoderSpec:
    """The spec of a foreign model.

    Raises:
        DataError: no such model, its files are not here, or its configuration asks for what cannot be done exactly.
    """
    kind, _, rest = name.partition(":")
    make = {"timm": _timm, "hf": _hub, "open_clip": _open_clip, "file": _file}[kind]
    return replace(make(rest), asked=name)


def safe_name(name: str) -> str:
    """`name` as the name of a feature set: hf-org-model for hf:org/model."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")[:100]


def _timm(name: str) -> EncoderSpec:
    import timm
    import torch
    from timm.data.config import resolve_data_config

    try:
        found: Any = timm.get_pretrained_cfg(name, allow_unregistered=False)
        with torch.device("meta"):
            model: Any = timm.create_model(name, pretrained=False)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"timm has no model {name!r}: {error}") from error
    data = resolve_data_config(pretrained_cfg=found.to_dict())
    _, height, side = data["input_size"]
    if height != side or data["crop_mode"] not in ("center", "squash"):
        raise DataError(f"timm:{name} wants images of {side} x {height} cut by {data['crop_mode']!r}: not supported.")
    preprocessing = ImagePreprocessing(
        resize_px=side if data["crop_mode"] == "squash" else math.floor(side / data["crop_pct"]),
        fit="stretch" if data["crop_mode"] == "squash" else "shorter",
        interpolation=data["interpolation"],
        crop_px=side,
        mean=data["mean"],
        std=data["std"],
    )
    shape = tuple(model.forward_features(torch.zeros(1, 3, side, side, device="meta")).shape)
    prefix = getattr(model, "num_prefix_tokens", 0) if len(shape) == 3 else 0
    source = (
        HubWeights(repo=found.hf_hub_id, revision="main", files=("model.safetensors",))
        if found.hf_hub_id
        else PageWeights(page=found.url or "nowhere (timm has no weights of it)", files=(found.url.split("/")[-1],))
    )
    return EncoderSpec(
        name=safe_name(f"timm-{name}"),
        modality="image",
        architecture=Architecture(library="timm", name=name),
        weights=source,
        preprocessing=preprocessing,
        tokens=_layout(shape, prefix, cls=getattr(model, "cls_token", None) is not None, dim=model.num_features),
        output="features",
        layer="timm's forward_features",
        builder=f"{_MODELS}:build_timm",
        licence=found.license or "not stated",
        **_UNKNOWN,
    )


def _layout(shape: tuple[int, ...], prefix: int, *, cls: bool, dim: int) -> TokenLayout:
    """The token layout of features of this shape: [1, prefix + n, d], [1, d, h, w] or [1, h, w, d]."""
    if len(shape) == 3:
        side = math.isqrt(shape[1] - prefix)
        if side * side != shape[1] - prefix:
            raise DataError(f"{shape[1] - prefix} patch tokens are no square grid: not supported.")
        return TokenLayout(dim=shape[2], grid=(side, side), has_cls=cls, dropped=prefix - cls)
    if len(shape) != 4:
        raise DataError(f"features of shape {list(shape)} are no tokens.")
    rows, columns = shape[2:] if shape[1] == dim else shape[1:3]
    return TokenLayout(dim=dim, grid=(rows, columns))


def _hub(name: str) -> EncoderSpec:
    folder, revision = hub_folder(name)
    config = _json(folder / "config.json")
    vision = config.get("vision_config")
    is_image = vision is not None or "num_channels" in config or "patch_size" in config
    make = _hub_image if is_image else _hub_text
    files = tuple(path for path in ("model.safetensors", "pytorch_model.bin") if (folder / path).is_file())[:1]
    if not files:
        raise DataError(f"{folder} has neither model.safetensors nor pytorch_model.bin (one file, not in parts).")
    about: dict[str, Any] = {
        "name": safe_name(f"hf-{name}"),
        "architecture": Architecture(library="transformers", name=config.get("model_type", "unknown"), options=config),
        "output": "last_hidden_state",
        "layer": "last_hidden_state",
        "licence": "see its page on the hub" if revision else "not stated",
        **_UNKNOWN,
    }
    return make(folder, config, files, about)


def hub_folder(name: str) -> tuple[Path, str | None]:
    """The folder with the files of hf:ORG/MODEL[@REVISION] in the hub's cache, or the folder that `name` itself is.

    Raises:
        DataError: it was not fetched.
    """
    if Path(name).is_dir():
        return Path(name).absolute(), None
    from huggingface_hub import snapshot_download

    repo, _, revision = name.partition("@")
    try:
        found = snapshot_download(
            repo, revision=revision or None, allow_patterns=list(HUB_FILES), local_files_only=True
        )
    except Exception as error:
        raise DataError(
            f"hf:{name} is neither a folder nor in the hub's cache: run `radfs weights fetch hf:{name}`."
        ) from error
    return Path(found), revision or "main"


def _hub_image(folder: Path, config: Mapping[str, Any], files: tuple[str, ...], about: dict[str, Any]) -> EncoderSpec:
    import torch

    from .foreign_models import image_tower, make_model

    preprocessing = hub_preprocessing(_json(folder / "preprocessor_config.json"))
    with torch.device("meta"):
        tower = image_tower(make_model(folder))
        pixels = torch.zeros(1, 3, preprocessing.crop_px, preprocessing.crop_px)
        shape = tuple(tower(pixel_values=pixels).last_hidden_state.shape)
    patch = (config.get("vision_config") or config).get("patch_size")
    side = preprocessing.crop_px // patch if isinstance(patch, int) else math.isqrt(shape[1])
    prefix = max(0, shape[1] - side * side) if len(shape) == 3 else 0
    paths = (folder / files[0], folder / "config.json")
    return EncoderSpec(
        modality="image",
        weights=LocalWeights(paths=tuple(map(str, paths))),
        preprocessing=preprocessing,
        tokens=_layout(shape, prefix, cls=prefix > 0, dim=shape[1]),
        builder=f"{_MODELS}:build_hub_image",
        **about,
    )


def hub_preprocessing(given: Mapping[str, Any]) -> ImagePreprocessing:
    """What a preprocessor_config.json says. DataError for what is not resize, centre crop, rescale, normalise."""
    size, crop = given.get("size", {}), given.get("crop_size")
    if isinstance(size, int):
        size = {"shortest_edge": size} if given.get("do_center_crop") else {"height": size, "width": size}
    crop_px = crop["height"] if isinstance(crop, Mapping) else crop
    resize_px = size.get("shortest_edge") or size.get("height")
    cropped = given.get("do_center_crop", False)
    wrong = [step for step in ("do_pad", "do_thumbnail", "do_align_long_axis") if given.get(step)]
    square = size.get("height") == size.get("width") and set(size) <= {"shortest_edge", "height", "width"}
    if wrong or not square or not resize_px or not given.get("do_resize", True) or not given.get("do_rescale", True):
        raise DataError(f"its preprocessing (size {size}{', ' + ', '.join(wrong) if wrong else ''}) is not supported.")
    if not cropped and "shortest_edge" in size:
        raise DataError("its preprocessing gives images of many shapes: not supported.")
    normalised = given.get("do_normalize", True)
    return ImagePreprocessing(
        resize_px=resize_px,
        fit="shorter" if "shortest_edge" in size else "stretch",
        interpolation=_RESAMPLE[given.get("resample", 2)],  # pyright: ignore[reportArgumentType]
        crop_px=crop_px if cropped and crop_px else resize_px,
        mean=tuple(given.get("image_mean", HALF)) if normalised else (0.0, 0.0, 0.0),  # pyright: ignore
        std=tuple(given.get("image_std", HALF)) if normalised else (1.0, 1.0, 1.0),  # pyright: ignore
        resizer="hub-pil",
    )


def _hub_text(folder: Path, config: Mapping[str, Any], files: tuple[str, ...], about: dict[str, Any]) -> EncoderSpec:
    from .foreign_models import load_tokenizer

    tokenizer = load_tokenizer(folder)
    around = tokenizer.encode("a", add_special_tokens=True)
    marks = [token for token, special in zip(around.tokens, around.special_tokens_mask, strict=True) if special]
    if around.special_tokens_mask[:1] != [1] or around.special_tokens_mask[-1:] != [1] or len(marks) != 2:
        raise DataError(
            f"its tokenizer puts {marks or 'nothing'} around a text; one token before and one after is known."
        )
    lower = tokenizer.encode("A", add_special_tokens=False).ids == tokenizer.encode("a", add_special_tokens=False).ids
    paths = (folder / files[0], folder / "config.json", folder / "tokenizer.json")
    offset = 2 if config.get("model_type") in ("roberta", "xlm-roberta", "camembert") else 0  # its positions begin at 2
    return EncoderSpec(
        modality="text",
        weights=LocalWeights(paths=tuple(map(str, paths))),
        preprocessing=TextPreprocessing(
            tokenizer="hub",
            context_length=config.get("max_position_embeddings", 512) - offset,
            lower_case=lower,
            special_tokens=tuple(marks),
        ),
        tokens=TokenLayout(dim=config["hidden_size"]),
        builder=f"{_MODELS}:build_hub_text",
        **about,
    )


def _open_clip(name: str) -> EncoderSpec:
    import open_clip

    towers, _, tower = name.partition("/")
    model, _, tag = towers.partition("@")
    config = open_clip.get_model_config(model)
    if config is None or "vision_cfg" not in config:
        raise DataError(f"open_clip has no model {model!r}; `open_clip.list_models()` lists them.")
    if tower not in ("", "text"):
        raise DataError(
            f"open_clip:{name}: a model has its image tower, and its text tower as open_clip:{towers}/text."
        )
    found = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    if tag and not found:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise DataError(f"open_clip has no weights {tag!r} of {model}. Known: {tags}.")
    repo, _, file = (found.get("hf_hub") or "").rpartition("/")
    source = (
        HubWeights(repo=repo, revision="main", files=(file or "open_clip_model.safetensors",))
        if repo
        else PageWeights(page=found.get("url") or "(no weights named: @TAG)", files=(f"{model}.pt",))
    )
    about: dict[str, Any] = {
        "name": safe_name(f"open_clip-{name}"),
        "architecture": Architecture(library="open_clip", name=model, options=config),
        "weights": source,
        "licence": "see the weights' page",
        **_UNKNOWN,
    }
    activation = " quick_gelu" if found.get("quick_gelu") else ""
    return _open_clip_text(model, activation, about) if tower else _open_clip_image(model, activation, found, about)


def _open_clip_image(model: str, activation: str, found: Mapping[str, Any], about: dict[str, Any]) -> EncoderSpec:
    from .open_clip_models import image_layout

    side = about["architecture"].options["vision_cfg"].get("image_size", 224)
    return EncoderSpec(
        modality="image",
        preprocessing=ImagePreprocessing(
            resize_px=side,
            fit="stretch" if found.get("resize_mode") == "squash" else "shorter",
            interpolation=found.get("interpolation") or "bicubic",
            crop_px=side,
            mean=tuple(found.get("mean") or (0.48145466, 0.4578275, 0.40821073)),  # pyright: ignore
            std=tuple(found.get("std") or (0.26862954, 0.26130258, 0.27577711)),  # pyright: ignore
        ),
        tokens=image_layout(model, side),
        output="last block" + activation,
        layer="the last block of the image tower, before its final norm",
        builder="featurestore.encoders.open_clip_models:build_image",
        **about,
    )


def _open_clip_text(model: str, activation: str, about: dict[str, Any]) -> EncoderSpec:
    from .open_clip_models import tokenizer_of

    tokenizer = tokenizer_of(model)
    return EncoderSpec(
        modality="text",
        preprocessing=TextPreprocessing(
            tokenizer="open_clip",
            context_length=tokenizer.context_length,
            lower_case=True,
            special_tokens=("<start_of_text>", "<end_of_text>"),
        ),
        tokens=TokenLayout(dim=about["architecture"].options["text_cfg"]["width"]),
        output="text tower, final norm" + activation,
        layer="after the final norm of the text tower",
        builder="featurestore.encoders.open_clip_models:build_text",
        **about,
    )


def _file(name: str) -> EncoderSpec:
    path, _, function = name.rpartition(":")
    source = Path(path).expanduser()
    if not path or not source.is_file():
        raise DataError(f"file:{name}: write file:FILE.py:FUNCTION; there is no file {path or name!r}.")
    from .foreign_models import load_function

    make = load_function(source, function)
    spec = make().spec
    if not isinstance(spec, EncoderSpec):
        raise DataError(f"{source.name}:{function} must return an Encoder, whose `spec` is an EncoderSpec.")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    # Its code changes numbers as its weights do, so it is in the key: by what it holds, not by where it lies.
    architecture = Architecture(library="file", name=function, options={"code": digest, "path": str(source.absolute())})
    return replace(spec, architecture=architecture, builder=f"{_MODELS}:build_file")


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"the model's folder has no {path.name}.") from None
    except ValueError as error:
        raise DataError(f"{path.name} of the model is no JSON: {error}") from error
