"""Reading a published checkpoint: safely, by its load rule, strictly.

Nothing in a file is ever executed. Torch files are read with weights_only; what trainers pickle beside the tensors
(argparse, OmegaConf, Lightning) becomes inert stand-ins; any other class or function in the file is refused by name.
"""

import argparse
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .spec import LoadRule

if TYPE_CHECKING:
    from torch import Tensor

_HARMLESS = re.compile(
    r"argparse\.Namespace|typing\.Any|collections\.(defaultdict|OrderedDict)|builtins\.(dict|list|tuple|set|int|float|str|bool)"
    r"|(pytorch_lightning|lightning|lightning_fabric|omegaconf)(\.\w+)+"
    r"|pathlib\.\w*Path|numpy(\._core|\.core)?\.multiarray\.(scalar|_reconstruct)|numpy\.(dtype|ndarray)|numpy\.dtypes\.\w+"
)
"""What the trainers of published checkpoints pickle beside the tensors. Never the thing itself: a stand-in that does
nothing takes its place."""


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a file that holds nothing else, on the CPU, in file order. Errors as `read_checkpoint`."""
    tensors = read_checkpoint(path)
    if not _only_tensors(tensors):
        raise DataError(f"the weights file {path.name} is damaged (not tensors alone): put it there again.")
    return dict(tensors)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary in a .safetensors file or a torch file of either container, its tensors on the CPU.

    Raises:
        DataError: the file is damaged, is not a dictionary, or refers to code outside the narrow list (which is named;
            nothing of it is executed).
    """
    import torch
    from safetensors.torch import load_file

    with path.open("rb") as file:
        start = file.read(16)
    try:
        # By content, not by name: users rename files, and a safetensors file begins with the length of its JSON header.
        if start[8:9] == b"{":
            return dict(load_file(path))
        with _stand_ins(path):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # over foreign bytes the unpickler may raise anything
        raise _unreadable(path, error) from error
    if not isinstance(content, Mapping):
        raise DataError(
            f"the weights file {path.name} holds a {type(content).__name__} where a dictionary is expected."
        )
    return dict(content)


def select(content: Mapping[str, Any], rule: LoadRule, *, what: str) -> "dict[str, Tensor]":
    """The network's tensors, by the file's own names, as `rule` finds them.

    Args:
        content: of the file.
        rule: the encoder's.
        what: of the file, for messages.

    Raises:
        DataError: the top key is missing, or what is below it is not tensors.
    """
    found = content
    if rule.top_key and not _only_tensors(content):
        found = content.get(rule.top_key)
        if not isinstance(found, Mapping):
            raise DataError(f"{what} has no {rule.top_key!r}; it has {_some(content)}.")
    tensors = {}
    for name, value in found.items():
        if any(fnmatchcase(name, pattern) for pattern in rule.drop):
            continue
        short = name.removeprefix(rule.strip_prefix)
        for theirs, ours in rule.rename:
            short = short.replace(theirs, ours)
        # A name without the prefix must not pass for one that had it.
        tensors[short if name.startswith(rule.strip_prefix) else f"{name} (without {rule.strip_prefix})"] = value
    strange = [name for name, value in tensors.items() if not hasattr(value, "shape")]
    if strange:
        raise DataError(f"{what}: {strange[0]!r} is not a tensor; it has {_some(found)}.")
    return tensors


def difference(tensors: "Mapping[str, Any]", expected: "Mapping[str, Any]") -> str:
    """How the tensors of a file differ from the network's, both by name and shape; empty where they do not."""
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    shapes = [
        f"{name} {list(tensors[name].shape)} for {list(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    parts = (("missing", missing), ("unexpected", extra), ("of another shape", shapes))
    return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in parts if names)


def _only_tensors(content: Mapping[str, Any]) -> bool:
    import torch

    return all(isinstance(value, torch.Tensor) for value in content.values())


def _some(names: Any, most: int = 6) -> str:
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more or "nothing"


class _Inert:
    """Stands for an object whose class is not wanted: takes whatever the unpickler gives it, and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...


def _stand_ins(path: Path) -> AbstractContextManager[None]:
    """What `torch.load` may take for the harmless classes that this file names."""
    import zipfile

    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    allowed: list[Any] = [argparse.Namespace]
    if zipfile.is_zipfile(path):  # the old container cannot be asked; its trainers pickled a Namespace and no more
        names = get_unsafe_globals_in_checkpoint(path)
        stranger = next((name for name in names if not _HARMLESS.fullmatch(name)), None)
        if stranger is not None:
            raise _Refused(stranger)
        allowed += [(type("Inert", (_Inert,), {}), name) for name in names if name != "argparse.Namespace"]
    return safe_globals(allowed)


class _Refused(Exception):
    """The file refers to this class or function."""


def _unreadable(path: Path, error: Exception) -> DataError:
    import pickle

    name = str(error) if isinstance(error, _Refused) else None
    if name is None and isinstance(error, pickle.UnpicklingError):
        found = re.search(r"(?:GLOBAL|global) `?([\w.]+)", str(error))
        name = found[1] if found else None
    if name is not None:
        return DataError(
            f"the weights file {path.name} was refused: it refers to {name}, which no published checkpoint needs. "
            "Nothing of it was executed. If you trust whoever made it, `radfs weights convert --trust` takes the "
            "tensors out."
        )
    return DataError(
        f"the weights file {path.name} is damaged or no checkpoint ({type(error).__name__}): put it there again."
    )
