"""Networks of `foreign` specs: loaded from files of this machine, without any code of theirs. Loads torch."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .checkpoint import read_checkpoint, read_tensors
from .frozen import ImageEncoder, TextEncoder
from .spec import EncoderSpec
from .timm_models import features_of
from .transformers_models import check_loading, image_encoder_of, quiet, set_up, text_encoder_of
from .weights import weight_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def build_timm(spec: EncoderSpec, *, device: str) -> ImageEncoder:
    """A model of timm from its published file, which timm's own filter translates; strictly."""
    import timm
    import torch

    tensors = read_checkpoint(weight_files(spec)[0])
    try:
        # The whole classifier: timm loads strictly only where the number of classes is the file's.
        model: Any = timm.create_model(
            spec.architecture.name, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors}
        )
    except (RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"the weights do not fit timm's {spec.architecture.name}: {error}") from error
    model.eval().to(device=device, memory_format=torch.channels_last)
    return ImageEncoder(spec, features_of(spec, model), device=device)


def make_model(folder: Path) -> Any:
    """The network of a Hugging Face folder on the ambient device, random. DataError where it needs code of its own."""
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return AutoModel.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{folder.name} is no model that transformers knows without code of its own: {reason}"
        ) from error


def image_tower(model: Any) -> Any:
    """The part that sees, of a model of images and texts; the model itself where it only sees."""
    return getattr(model, "vision_model", model)


def build_hub_image(spec: EncoderSpec, *, device: str) -> ImageEncoder:
    """An image model of a Hugging Face folder."""
    return image_encoder_of(spec, image_tower(_load_hub(spec)), device=device)


def build_hub_text(spec: EncoderSpec, *, device: str) -> TextEncoder:
    """A text model of a Hugging Face folder."""
    folder = weight_files(spec)[0].parent
    return text_encoder_of(spec, _load_hub(spec), load_tokenizer(folder), device=device)


def load_tokenizer(folder: Path) -> "Tokenizer":
    """The folder's tokenizer.json, set up. DataError where there is none: a slow tokenizer may bring code."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(f"{folder.name} has no tokenizer.json, and no other kind of tokenizer is read.")
    try:
        return set_up(Tokenizer.from_file(str(path)))
    except Exception as error:
        raise DataError(f"tokenizer.json of {folder.name} cannot be read: {error}") from error


def build_file(spec: EncoderSpec, *, device: str) -> Any:
    """The user's own encoder, on `device` where its function takes one."""
    import inspect

    make = load_function(Path(spec.architecture.options["path"]), spec.architecture.name)
    encoder = make(device=device) if "device" in inspect.signature(make).parameters else make()
    encoder.spec = spec
    return encoder


def load_function(path: Path, name: str) -> Any:
    """The function called `name` of the user's Python file. DataError where the file fails or has none."""
    spec = spec_from_file_location(f"radfs_encoder_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path.name} cannot be run: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, name, None)):
        raise DataError(f"{path.name} has no function {name!r}.")
    return getattr(module, name)


def _load_hub(spec: EncoderSpec) -> Any:
    import torch

    path = weight_files(spec)[0]
    with torch.device("meta"):
        empty = make_model(path.parent)
    with quiet():
        model, found = type(empty).from_pretrained(
            None,
            config=empty.config,
            state_dict=read_tensors(path),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    # Heads of its training are expected to be left over. A pooler that the file lacks is random, and is not used.
    missing = {name for name in found["missing_keys"] if not name.startswith("pooler.")}
    check_loading(spec.name, {"missing_keys": missing, "mismatched_keys": found["mismatched_keys"]})
    return model.eval()
