"""The values of a grid: each is parsed by one function, which says the key, the value and what was allowed."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from featurestore.encoders import get_spec, list_specs
from featurestore.errors import DataError, UnknownNameError

from .kinds import get_head
from .methods import get_method

T = TypeVar("T")

_LARGEST = 2**31 - 1


def parse_list(key: str, value: object, parse: Callable[[str, object], T]) -> tuple[T, ...]:
    """`value`, or each value of a list, parsed; never empty, never the same one twice."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    if not values:
        raise DataError(f"{key} = []: give at least one value.")
    parsed = tuple(parse(key, one) for one in values)
    for i, one in enumerate(parsed):
        if one in parsed[:i]:
            raise DataError(f"{key} = {list(values)!r}: {one!r} stands there more than once.")
    return parsed


def parse_name(key: str, value: object) -> str:
    """A name."""
    if not isinstance(value, str) or not value:
        raise DataError(f"{key} = {value!r}: must be a name or a list of names.")
    return value


def parse_method(key: str, value: object) -> str:
    """The name of a method that there is."""
    try:
        return get_method(parse_name(key, value)).name
    except UnknownNameError as error:
        raise UnknownNameError(f"{key}: {error}") from None


def parse_encoders(key: str, modality: str, value: object) -> tuple[str, ...]:
    """Names of encoders of this modality; none for None."""
    if value is None:
        return ()
    return parse_list(f"[grid] {key}", value, lambda key, one: _encoder(key, modality, parse_name(key, one)))


def _encoder(key: str, modality: str, name: str) -> str:
    """`name`, once its encoder is known to be of this modality; `name@key` (a feature set) is judged by its encoder.

    A feature set of an encoder that radfs does not have was imported: the store will tell what it is of.
    """
    encoder, is_set, _ = name.partition("@")
    try:
        spec = get_spec(encoder)
    except UnknownNameError as error:
        if is_set:
            return name
        raise UnknownNameError(f"{key}: {error} Imported embeddings are named encoder@key.") from None
    if spec.modality != modality:
        known = ", ".join(spec.name for spec in list_specs(modality))
        article = "an" if spec.modality == "image" else "a"
        other = "text_encoder" if spec.modality == "text" else "backbone"
        raise DataError(
            f"{key} = {name!r}: is {article} {spec.modality} encoder, so name it under {other}. "
            f"Known {modality} encoders: {known}."
        )
    return name


def parse_integer(key: str, value: object, *, least: int) -> int:
    """A whole number, at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _LARGEST:
        raise DataError(f"{key} = {value!r}: must be a whole number, at least {least} and at most {_LARGEST:,}.")
    return value


def parse_number(key: str, value: object, allowed: str, holds: Callable[[float], bool]) -> float:
    """A finite number that `holds`; `allowed` says which."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or not holds(value):
        raise DataError(f"{key} = {value!r}: must be {allowed}.")
    return float(value)


def below_one(value: float) -> bool:
    """In [0, 1)."""
    return 0 <= value < 1


def parse_positive(key: str, value: object) -> float:
    """A number above 0."""
    return parse_number(key, value, "a number above 0", lambda v: v > 0)


def parse_share(key: str, value: object) -> float:
    """A number from 0 to 1."""
    return parse_number(key, value, "a number from 0 to 1", lambda v: 0 <= v <= 1)


def parse_one_of(key: str, value: object, allowed: Sequence[str]) -> str:
    """One of a few words."""
    if value not in allowed:
        raise DataError(f"{key} = {value!r}: must be one of {', '.join(allowed)}.")
    return str(value)


def parse_head(key: str, value: object) -> str:
    """The name of a head that there is."""
    try:
        get_head(name := parse_name(key, value))
    except UnknownNameError as error:
        raise UnknownNameError(f"{key}: {error}") from None
    return name


def parse_fraction(key: str, value: object) -> float:
    """A fraction of the training samples."""
    return parse_number(key, value, "a number above 0 and at most 1", lambda v: 0 < v <= 1)


def parse_seeds(value: object) -> tuple[int, ...]:
    """A number of seeds, or a list of them."""
    if isinstance(value, (list, tuple)):
        return parse_list("[grid] seed", value, lambda key, one: parse_integer(key, one, least=0))
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(
            f"[grid] seed = {value!r}: must be a whole number, at least 1 (5 means the seeds 0 to 4), or a list "
            "of seeds, such as [0] or [0, 7]."
        )
    return tuple(range(parse_integer("[grid] seed", value, least=1)))


def parse_epochs(value: object, fractions: tuple[float, ...]) -> tuple[tuple[float, int], ...]:
    """Pairs (fraction, epochs), one for every fraction."""
    key = "[train] epochs"
    if not isinstance(value, Mapping):
        return tuple((fraction, parse_integer(key, value, least=1)) for fraction in fractions)
    table = {_epochs_key(f): parse_integer(f"{key}, fraction {f}", n, least=1) for f, n in value.items()}
    if len(table) < len(value):
        raise DataError(f"{key} = {dict(value)!r}: a fraction stands there more than once.")
    for fraction in fractions:
        if fraction not in table:
            given = ", ".join(f"{f:g}" for f in sorted(table)) or "none"
            raise DataError(f"{key} has no number for fraction {fraction:g} of the grid; given: {given}.")
    return tuple((fraction, table[fraction]) for fraction in fractions)


def _epochs_key(value: object) -> float:
    try:
        fraction = float(value) if isinstance(value, (str, float, int)) else math.nan
    except ValueError:
        fraction = math.nan
    if not 0 < fraction <= 1:
        raise DataError(
            f'[train] epochs: {value!r} is no fraction. Write a number, or a table like {{"0.1" = 100, "1.0" = 50}} '
            "whose quoted keys are fractions above 0 and at most 1."
        )
    return fraction
