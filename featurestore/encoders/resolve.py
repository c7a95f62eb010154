"""From what a user writes (a name, variants, a weights file) to the one spec that extraction runs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import DataError, unknown_name
from .foreign import PREFIXES, foreign_spec, is_foreign
from .sources import HubWeights, LocalWeights, PageWeights
from .spec import EncoderSpec
from .table import ENCODERS, get_spec
from .weights import find_files


def any_spec(name: str) -> EncoderSpec:
    """The spec of an encoder of the table or of a foreign one. Errors as `get_spec` and `foreign.foreign_spec`."""
    if name in ENCODERS or ":" not in name:
        return get_spec(name)
    if not is_foreign(name):
        raise unknown_name("kind of encoder", name.partition(":")[0], PREFIXES)
    return foreign_spec(name)


def resolve(
    name: str,
    *,
    weights: str | Path | None = None,
    variant: Mapping[str, str] | None = None,
    precision: str = "float32",
    long_text: str = "truncate",
) -> EncoderSpec:
    """The spec of an encoder with the user's choices in it: the one way from words to what is run.

    Args:
        name: as in `ENCODERS`, or a foreign one: timm:NAME, hf:ORG/MODEL[@REVISION], open_clip:NAME[@TAG][/text],
            file:FILE.py:FUNCTION.
        weights: a file (or a folder with all files of the encoder) to use in place of the published one.
        variant: a choice for each axis that is not to be at its default, such as {"preprocessing": "authors"}.
        precision: what the network computes in, one of `spec.PRECISIONS`.
        long_text: what becomes of reports beyond the context length, one of `spec.LONG_TEXTS`.

    Raises:
        UnknownNameError: no such encoder, axis, choice, precision or way with long texts.
        DataError: no such file, or an encoder that takes none.
    """
    spec = with_variant(any_spec(name), variant or {}).computed_in(precision).with_long_text(long_text)
    return spec if weights is None else with_weights(spec, Path(weights))


def with_variant(spec: EncoderSpec, chosen: Mapping[str, str]) -> EncoderSpec:
    """`spec` with these choices. UnknownNameError for an axis or a choice that it does not have."""
    axes = {variant.axis: variant for variant in spec.variants}
    for axis, choice in chosen.items():
        if axis not in axes:
            raise unknown_name(f"variant of encoder {spec.name!r}", axis, axes)
        if choice not in axes[axis].choices:
            raise unknown_name(f"{axis} of encoder {spec.name!r}", choice, axes[axis].choices)
        if choice != axes[axis].default:
            spec = replace(spec, **axes[axis].choices[choice], chosen=(*spec.chosen, (axis, choice)))
    return spec


def with_weights(spec: EncoderSpec, path: Path) -> EncoderSpec:
    """`spec` with the weights in this file or folder. DataError where it has none to replace."""
    if not isinstance(spec.weights, HubWeights | PageWeights):
        raise DataError(f"encoder {spec.name!r} takes no weights file: its weights come with a package.")
    return replace(spec, weights=LocalWeights(paths=tuple(map(str, find_files(spec.weights, path)))))
