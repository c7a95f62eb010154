"""A grid: which runs a study consists of, read from `grid.toml` or made in Python, checked once and frozen.

Knows the names of methods and encoders, but no store and no torch. What is wrong is said with the key, the value and
what was allowed, before anything runs.

    grid = read_grid("grid.toml")
    grid = Grid(cohort="nih", method="image", backbone="efficientnet-lite0", fraction=[0.1, 1.0], seed=5, epochs=20)
"""

import math
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from featurestore.encoders import get_spec, list_specs
from featurestore.errors import DataError, RadfsError, UnknownNameError, unknown_name

from .methods import get_method

T = TypeVar("T")

_LARGEST = 2**31 - 1

GRID_KEYS = ("cohort", "backbone", "text_encoder", "method", "fraction", "seed", "split_seed")
TRAIN_KEYS = ("epochs", "lr", "batch_size", "dropout")
REQUIRED_KEYS = ("cohort", "method", "fraction", "seed")


@dataclass(frozen=True, init=False)
class Grid:
    """A checked grid: every combination that makes sense is a run.

    Attributes:
        cohort: names of cohorts.
        method: names of methods.
        fraction: fractions of the training samples, each above 0 and at most 1.
        seed: the seeds of the runs.
        backbone: image encoders or feature sets of such (`name` or `name@key`).
        text_encoder: text encoders or feature sets of such.
        split_seed: one split for all seeds; None: each seed has its own split.
        epochs: pairs (fraction, epochs), one for every fraction.
        lr: learning rate of Adam.
        batch_size: samples a step.
        dropout: share of the attention weights dropped, in [0, 1).
    """

    cohort: tuple[str, ...]
    method: tuple[str, ...]
    fraction: tuple[float, ...]
    seed: tuple[int, ...]
    backbone: tuple[str, ...]
    text_encoder: tuple[str, ...]
    split_seed: int | None
    epochs: tuple[tuple[float, int], ...]
    lr: float
    batch_size: int
    dropout: float

    def __init__(
        self,
        *,
        cohort: str | Sequence[str],
        method: str | Sequence[str],
        fraction: float | Sequence[float],
        seed: int | Sequence[int],
        backbone: str | Sequence[str] | None = None,
        text_encoder: str | Sequence[str] | None = None,
        split_seed: int | None = None,
        epochs: int | Mapping[Any, int] = 20,
        lr: float = 1e-4,
        batch_size: int = 64,
        dropout: float = 0.2,
    ) -> None:
        """Check and freeze. A single value is a list of one, but `seed=5` means the seeds 0 to 4.

        Args:
            cohort, method, fraction, backbone, text_encoder, lr, batch_size, dropout: as the attributes.
            seed: how many seeds (an int), or a list of seeds.
            split_seed: as the attribute.
            epochs: one number, or a table by fraction, whose keys are matched as numbers ("0.10" is 0.1).

        Raises:
            DataError: a value that is not allowed; names the key, the value and what is allowed.
            UnknownNameError: an unknown method or encoder, with the nearest names.
        """
        fractions = _list("[grid] fraction", fraction, _fraction)
        checked = {
            "cohort": _list("[grid] cohort", cohort, _name),
            "method": _list("[grid] method", method, _method),
            "fraction": fractions,
            "seed": _seeds(seed),
            "backbone": _encoders("backbone", "image", backbone),
            "text_encoder": _encoders("text_encoder", "text", text_encoder),
            "split_seed": None if split_seed is None else _integer("[grid] split_seed", split_seed, least=0),
            "epochs": _epochs(epochs, fractions),
            "lr": _number("[train] lr", lr, "a number above 0", lambda v: v > 0),
            "batch_size": _integer("[train] batch_size", batch_size, least=1),
            "dropout": _number("[train] dropout", dropout, "a number from 0 up to, not including, 1", _below_one),
        }
        for key, value in checked.items():
            object.__setattr__(self, key, value)
        self._check_encoders_given()

    def encoders(self, modality: str) -> tuple[str, ...]:
        """The encoders of the grid for "image" or "text"."""
        return {"image": self.backbone, "text": self.text_encoder}[modality]

    def modalities(self) -> tuple[str, ...]:
        """What the neediest sample must have: every modality that some method of the grid reads."""
        read = {modality for name in self.method for modality in get_method(name).reads}
        return tuple(modality for modality in ("image", "text") if modality in read)

    def epochs_at(self, fraction: float) -> int:
        """The number of epochs for one of the grid's fractions."""
        return dict(self.epochs)[fraction]

    def _check_encoders_given(self) -> None:
        for modality, key in (("image", "backbone"), ("text", "text_encoder")):
            if modality in self.modalities() and not self.encoders(modality):
                readers = [name for name in self.method if modality in get_method(name).reads]
                known = ", ".join(spec.name for spec in list_specs(modality))
                raise DataError(
                    f"[grid] {key} is missing: method {readers[0]!r} reads {modality} tokens. "
                    f"Give one or more of: {known}."
                )


def read_grid(path: str | os.PathLike[str]) -> Grid:
    """The grid in a TOML file.

    Raises:
        RadfsError: the file cannot be read, is no TOML (with the line), or holds what `parse_grid` refuses; every
            message begins with the path.
    """
    try:
        tables = tomllib.loads(Path(path).read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read the grid {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text file in UTF-8, so it is no grid.") from None
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not valid TOML: {error}.") from None
    try:
        return parse_grid(tables)
    except RadfsError as error:
        raise type(error)(f"{path}: {error}") from None


def parse_grid(tables: Mapping[str, Any]) -> Grid:
    """The grid of the sections `[grid]` and `[train]`, given as nested mappings.

    Raises:
        DataError: a section or key is missing or a value not allowed.
        UnknownNameError: an unknown section, key, method or encoder, with the nearest names.
    """
    for section in tables:
        if section not in ("grid", "train"):
            raise unknown_name("section", section, ("grid", "train"))
    grid, train = _section(tables, "grid", GRID_KEYS), _section(tables, "train", TRAIN_KEYS)
    missing = [key for key in REQUIRED_KEYS if key not in grid]
    if missing:
        raise DataError(f"[grid] {missing[0]} is missing. Required keys: {', '.join(REQUIRED_KEYS)}.")
    return Grid(**grid, **train)


def _section(tables: Mapping[str, Any], section: str, known: Sequence[str]) -> Mapping[str, Any]:
    keys = tables.get(section, {})
    if not isinstance(keys, Mapping):
        raise DataError(f"{section} = {keys!r}: is a section, so write [{section}] and its keys below it.")
    for key in keys:
        if key not in known:
            raise unknown_name(f"key in [{section}]", key, known)
    return keys


def _list(key: str, value: object, parse: Callable[[str, object], T]) -> tuple[T, ...]:
    """`value`, or each value of a list, parsed; never empty, never the same one twice."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    if not values:
        raise DataError(f"{key} = []: give at least one value.")
    parsed = tuple(parse(key, one) for one in values)
    for i, one in enumerate(parsed):
        if one in parsed[:i]:
            raise DataError(f"{key} = {list(values)!r}: {one!r} stands there more than once.")
    return parsed


def _name(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise DataError(f"{key} = {value!r}: must be a name or a list of names.")
    return value


def _method(key: str, value: object) -> str:
    try:
        return get_method(_name(key, value)).name
    except UnknownNameError as error:
        raise UnknownNameError(f"{key}: {error}") from None


def _encoders(key: str, modality: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    return _list(f"[grid] {key}", value, lambda key, one: _encoder(key, modality, _name(key, one)))


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


def _integer(key: str, value: object, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _LARGEST:
        raise DataError(f"{key} = {value!r}: must be a whole number, at least {least} and at most {_LARGEST:,}.")
    return value


def _number(key: str, value: object, allowed: str, holds: Callable[[float], bool]) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or not holds(value):
        raise DataError(f"{key} = {value!r}: must be {allowed}.")
    return float(value)


def _below_one(value: float) -> bool:
    return 0 <= value < 1


def _fraction(key: str, value: object) -> float:
    return _number(key, value, "a number above 0 and at most 1", lambda v: 0 < v <= 1)


def _seeds(value: object) -> tuple[int, ...]:
    if isinstance(value, (list, tuple)):
        return _list("[grid] seed", value, lambda key, one: _integer(key, one, least=0))
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(
            f"[grid] seed = {value!r}: must be a whole number, at least 1 (5 means the seeds 0 to 4), or a list "
            "of seeds, such as [0] or [0, 7]."
        )
    return tuple(range(_integer("[grid] seed", value, least=1)))


def _epochs(value: object, fractions: tuple[float, ...]) -> tuple[tuple[float, int], ...]:
    key = "[train] epochs"
    if not isinstance(value, Mapping):
        return tuple((fraction, _integer(key, value, least=1)) for fraction in fractions)
    table = {_epochs_key(f): _integer(f"{key}, fraction {f}", n, least=1) for f, n in value.items()}
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
