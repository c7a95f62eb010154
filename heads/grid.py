"""A grid: which runs a study consists of, read from `grid.toml` or made in Python, checked once and frozen.

Knows the names of methods and encoders, but no store and no torch. What is wrong is said with the key, the value and
what was allowed, before anything runs.

    grid = read_grid("grid.toml")
    grid = Grid(cohort="nih", method="image", backbone="efficientnet-lite0", fraction=[0.1, 1.0], seed=5, epochs=20)
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.encoders import list_specs
from featurestore.errors import DataError, RadfsError, unknown_name

from .hardware import PRECISIONS
from .kinds import get_head
from .methods import Method, get_method
from .values import (
    below_one,
    parse_encoders,
    parse_epochs,
    parse_fraction,
    parse_head,
    parse_integer,
    parse_list,
    parse_method,
    parse_name,
    parse_number,
    parse_one_of,
    parse_positive,
    parse_seeds,
    parse_share,
)

SECTIONS = ("grid", "train", "compare")
"""The comparisons are read by `family`: they change no run."""

GRID_KEYS = ("cohort", "backbone", "text_encoder", "method", "head", "fraction", "seed", "split_seed")
TRAIN_KEYS = (
    *("epochs", "lr", "batch_size", "dropout", "imitation", "temperature"),
    *("precision", "select", "teacher_epoch", "views"),
)
REQUIRED_KEYS = ("cohort", "method", "fraction", "seed")

SELECTIONS = ("last", "inner")
TEACHER_EPOCHS = ("best", "last", "inner")
VIEWS = ("clean", "augmented")


@dataclass(frozen=True, init=False)
class Grid:
    """A checked grid: every combination that makes sense is a run.

    Attributes:
        cohort: names of cohorts.
        method: names of methods.
        head: names of heads.
        fraction: fractions of the training samples, each above 0 and at most 1.
        seed: the seeds of the runs.
        backbone: image encoders or feature sets of such (`name` or `name@key`).
        text_encoder: text encoders or feature sets of such.
        split_seed: one split for all seeds; None: each seed has its own split.
        epochs: pairs (fraction, epochs), one for every fraction.
        lr: learning rates of Adam; of several, each setting is tuned to one (`heads.tuning`). None: the head's own.
        batch_size: samples a step.
        dropout: share of the attention weights dropped, in [0, 1).
        imitation: lambdas of equation 2, each in [0, 1].
        temperature: taus of equation 2, each above 0.
        precision: of matrix products: auto, fp32 or bf16.
        select: "last": results are of the last epoch. "inner": a fifth of each training subset is set aside as an inner
            validation part, and results are of the epoch that is best on it.
        teacher_epoch: the epoch of the teacher that a student learns from: "best" on the test part (the paper's),
            "last", or "inner".
        views: what training reads of an image: "clean", or in each step one of its "augmented" views.
    """

    cohort: tuple[str, ...]
    method: tuple[str, ...]
    head: tuple[str, ...]
    fraction: tuple[float, ...]
    seed: tuple[int, ...]
    backbone: tuple[str, ...]
    text_encoder: tuple[str, ...]
    split_seed: int | None
    epochs: tuple[tuple[float, int], ...]
    lr: tuple[float, ...] | None
    batch_size: int
    dropout: float
    imitation: tuple[float, ...]
    temperature: tuple[float, ...]
    precision: str
    select: str
    teacher_epoch: str
    views: str

    def __init__(
        self,
        *,
        cohort: str | Sequence[str],
        method: str | Sequence[str],
        fraction: float | Sequence[float],
        seed: int | Sequence[int],
        head: str | Sequence[str] = "attention",
        backbone: str | Sequence[str] | None = None,
        text_encoder: str | Sequence[str] | None = None,
        split_seed: int | None = None,
        epochs: int | Mapping[Any, int] = 20,
        lr: float | Sequence[float] | None = None,
        batch_size: int = 64,
        dropout: float = 0.2,
        imitation: float | Sequence[float] = 0.75,
        temperature: float | Sequence[float] = 0.25,
        precision: str = "auto",
        select: str = "last",
        teacher_epoch: str = "best",
        views: str = "clean",
    ) -> None:
        """Check and freeze. A single value is a list of one, but `seed=5` means the seeds 0 to 4.

        Args:
            cohort, method, head, fraction, backbone, text_encoder: as the attributes.
            lr, batch_size, dropout, imitation, temperature, precision, select, teacher_epoch, views: likewise.
            seed: how many seeds (an int), or a list of seeds.
            split_seed: as the attribute.
            epochs: one number, or a table by fraction, whose keys are matched as numbers ("0.10" is 0.1).

        Raises:
            DataError: a value that is not allowed; names the key, the value and what is allowed.
            UnknownNameError: an unknown method, head or encoder, with the nearest names.
        """
        fractions = parse_list("[grid] fraction", fraction, parse_fraction)
        checked = {
            "cohort": parse_list("[grid] cohort", cohort, parse_name),
            "method": parse_list("[grid] method", method, parse_method),
            "head": parse_list("[grid] head", head, parse_head),
            "fraction": fractions,
            "seed": parse_seeds(seed),
            "backbone": parse_encoders("backbone", "image", backbone),
            "text_encoder": parse_encoders("text_encoder", "text", text_encoder),
            "split_seed": None if split_seed is None else parse_integer("[grid] split_seed", split_seed, least=0),
            "epochs": parse_epochs(epochs, fractions),
            "lr": None if lr is None else parse_list("[train] lr", lr, parse_positive),
            "batch_size": parse_integer("[train] batch_size", batch_size, least=1),
            "dropout": parse_number("[train] dropout", dropout, "a number from 0 up to, not including, 1", below_one),
            "imitation": parse_list("[train] imitation", imitation, parse_share),
            "temperature": parse_list("[train] temperature", temperature, parse_positive),
            "precision": parse_one_of("[train] precision", precision, PRECISIONS),
            "select": parse_one_of("[train] select", select, SELECTIONS),
            "teacher_epoch": parse_one_of("[train] teacher_epoch", teacher_epoch, TEACHER_EPOCHS),
            "views": parse_one_of("[train] views", views, VIEWS),
        }
        for key, value in checked.items():
            object.__setattr__(self, key, value)
        self._check_encoders_given()
        self._check_heads_fit()
        self._check_inner_part()

    def encoders(self, modality: str) -> tuple[str, ...]:
        """The encoders of the grid for "image" or "text"."""
        return {"image": self.backbone, "text": self.text_encoder}[modality]

    def with_precision(self, precision: str) -> "Grid":
        """The same grid in another precision: auto, fp32 or bf16."""
        other = copy(self)
        object.__setattr__(other, "precision", parse_one_of("--precision", precision, PRECISIONS))
        return other

    def methods(self) -> tuple[Method, ...]:
        """The methods of the grid, and the teachers that they need."""
        listed = [get_method(name) for name in self.method]
        teachers = [get_method(method.teacher) for method in listed if method.teacher]
        return tuple(dict.fromkeys([*listed, *teachers]))

    def modalities(self) -> tuple[str, ...]:
        """What the neediest sample must have: every modality that some method of the grid, or its teacher, reads."""
        read = {modality for method in self.methods() for modality in method.reads}
        return tuple(modality for modality in ("image", "text") if modality in read)

    def epochs_at(self, fraction: float) -> int:
        """The number of epochs for one of the grid's fractions."""
        return dict(self.epochs)[fraction]

    def _check_encoders_given(self) -> None:
        for modality, key in (("image", "backbone"), ("text", "text_encoder")):
            if modality in self.modalities() and not self.encoders(modality):
                readers = [method.name for method in self.methods() if modality in method.reads]
                known = ", ".join(spec.name for spec in list_specs(modality))
                raise DataError(
                    f"[grid] {key} is missing: method {readers[0]!r} reads {modality} tokens. "
                    f"Give one or more of: {known}."
                )

    def _check_heads_fit(self) -> None:
        """Each method has a head that goes with it, and each head a method; the pairs that do not fit are left out."""
        methods, heads = [get_method(name) for name in self.method], [(name, get_head(name)) for name in self.head]
        for method in methods:
            if not any(kind.goes_with(method) for _, kind in heads):
                raise DataError(f"[grid] head = {list(self.head)!r}: {_misfit(self.head[0], method)}")
        for name, kind in heads:
            if not any(kind.goes_with(method) for method in methods):
                raise DataError(f"[grid] head = {name!r}: {_misfit(name, methods[0])}")

    def _check_inner_part(self) -> None:
        """What is chosen on an inner validation part needs one."""
        if self.select == "inner":
            return
        if self.lr is not None and len(self.lr) > 1:
            raise DataError(
                f'[train] lr = {list(self.lr)!r}: several are tuned on an inner validation part: add select = "inner", '
                "or name one."
            )
        if self.teacher_epoch == "inner":
            raise DataError('[train] teacher_epoch = "inner": there is no inner validation part; add select = "inner".')


def _misfit(head: str, method: Method) -> str:
    if get_head(head).is_baseline:
        return f"a baseline trains methods image, text and teacher, not {method.name!r}. Add a head such as attention."
    return f"it reads class tokens of images, and method {method.name!r} reads none. Add a head such as mean."


def read_grid(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Grid:
    """The grid in a TOML file, with other values for some of its keys.

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
        return parse_grid(tables, overrides)
    except RadfsError as error:
        raise type(error)(f"{path}: {error}") from None


def parse_grid(tables: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Grid:
    """The grid of the sections `[grid]` and `[train]`, given as nested mappings, with other values for some keys.

    Raises:
        DataError: a section or key is missing or a value not allowed.
        UnknownNameError: an unknown section, key, method or encoder, with the nearest names.
    """
    for section in tables:
        if section not in SECTIONS:
            raise unknown_name("section", section, SECTIONS)
    grid, train = _section(tables, "grid", GRID_KEYS), _section(tables, "train", TRAIN_KEYS)
    missing = [key for key in REQUIRED_KEYS if key not in grid and key not in (overrides or {})]
    if missing:
        raise DataError(f"[grid] {missing[0]} is missing. Required keys: {', '.join(REQUIRED_KEYS)}.")
    return Grid(**{**grid, **train, **(overrides or {})})


def _section(tables: Mapping[str, Any], section: str, known: Sequence[str]) -> Mapping[str, Any]:
    keys = tables.get(section, {})
    if not isinstance(keys, Mapping):
        raise DataError(f"{section} = {keys!r}: is a section, so write [{section}] and its keys below it.")
    for key in keys:
        if key not in known:
            raise unknown_name(f"key in [{section}]", key, known)
    return keys
