"""Taking the tensors out of a file that holds a whole pickled network, as TorchXRayVision's do.

WARN: unpickling runs whatever the file says. It happens only when the user has said that the file is trusted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError


def convert_weights(path: Path, target: Path) -> int:
    """Unpickle `path`, WHICH CAN RUN ANY CODE, and write its tensors to `target` as safetensors; how many they are.

    Raises:
        DataError: the target exists, the file needs a package that is not installed, or it holds no tensors.
    """
    import torch
    from safetensors.torch import save_file

    if target.exists():
        raise DataError(f"{target} exists already; name another file.")
    if not path.is_file():
        raise DataError(f"there is no file {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except ModuleNotFoundError as error:
        raise DataError(f"{path.name} refers to the package {error.name}: install it, then convert again.") from error
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{path.name} cannot be unpickled ({type(error).__name__}: {error}).") from error
    tensors = _tensors(content)
    if not tensors:
        raise DataError(f"{path.name} holds a {type(content).__name__} without tensors.")
    save_file(tensors, target, metadata={"format": "pt"})
    return len(tensors)


def _tensors(content: Any) -> dict[str, Any]:
    """A module's state, or a dictionary's tensors however nested, by names joined with dots."""
    import torch

    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    if isinstance(content, torch.nn.DataParallel):
        content = content.module.state_dict()
    found: dict[str, Any] = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, torch.Tensor):
            found[str(name)] = value.clone().contiguous()  # safetensors keeps no shared memory
        elif isinstance(value, Mapping | torch.nn.Module):
            found |= {f"{name}.{inner}": tensor for inner, tensor in _tensors(value).items()}
    return found
