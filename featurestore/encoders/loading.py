"""The one way from a weights file to a network: read it safely, apply the load rule, compare names and shapes, load.

The comparison is always strict, and made before anything is loaded: a file of another model is refused with what
differs and with the encoders that it looks like. Knows no particular network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .checkpoint import difference, read_checkpoint, select
from .spec import EncoderSpec
from .table import ENCODERS, get_spec, load_object
from .weights import weight_files

if TYPE_CHECKING:
    from torch import Tensor, nn

_ALIKE = 0.5
"""Share of an encoder's tensors that a file must have before it is said to look like that encoder."""


def published_layout(spec: EncoderSpec) -> "dict[str, Tensor]":
    """The names and shapes that the load rule must leave of the published file, as tensors without memory."""
    import torch

    module = spec.builder.partition(":")[0]
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return load_object(f"{module}:published_state")(spec)


def state_of(network: "nn.Module") -> "dict[str, Tensor]":
    """The names and shapes of a network whose file has its own names."""
    return dict(network.state_dict())


def load_tensors(spec: EncoderSpec) -> "dict[str, Tensor]":
    """The tensors of the encoder's weights file: exactly those of its published layout, on the CPU.

    Raises:
        DataError: the weights are not here, damaged, or another network's; names what differs, and which encoder they
            look like.
    """
    return check_file(spec, weight_files(spec)[0])


def check_file(spec: EncoderSpec, path: Path) -> "dict[str, Tensor]":
    """As `load_tensors`, of this file."""
    content = read_checkpoint(path)
    try:
        tensors = select(content, spec.load, what=path.name)
        found = difference(tensors, published_layout(spec))
    except DataError as error:
        raise DataError(f"not the weights of encoder {spec.name!r}: {error}{_advice(content, spec)}") from None
    if found:
        raise DataError(f"{path.name} is not the weights of encoder {spec.name!r}: {found}.{_advice(content, spec)}")
    return tensors


def looks_like(content: Mapping[str, Any], *, besides: str = "") -> list[tuple[str, float]]:
    """Encoders of the table whose published layout this content of a file has, with the share of it, best first.

    Share 1 means that the file would be taken as that encoder's.
    """
    found = []
    for name in ENCODERS:
        spec = get_spec(name)
        if name == besides or not _has_layout(spec):
            continue
        try:
            tensors = select(content, spec.load, what="")
        except DataError:
            continue
        layout = published_layout(spec)
        shared = sum(key in tensors and tensors[key].shape == value.shape for key, value in layout.items())
        share = shared / max(len(layout), len(tensors))
        if share >= _ALIKE:
            found.append((name, share))
    return sorted(found, key=lambda entry: -entry[1])


def _advice(content: Mapping[str, Any], spec: EncoderSpec) -> str:
    alike = looks_like(content, besides=spec.name)
    whole = [repr(name) for name, share in alike if share == 1]
    if whole:
        return f" It is a file of encoder {' or '.join(whole)}."
    return f" It looks most like encoder {alike[0][0]!r}, but is not quite that." if alike else ""


def _has_layout(spec: EncoderSpec) -> bool:
    from .sources import HubWeights, PageWeights

    return isinstance(spec.weights, HubWeights | PageWeights)
