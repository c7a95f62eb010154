"""What every task shares: presets, checked options, images that must exist, and the last step into the store."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from featurestore.errors import DataError
from featurestore.store import Store

from ..build import BuildReport, commit, draft_cohort
from ..flow import Flow
from ..paper import PAPER_TASKS, PaperTask
from ..scheme import SplitScheme

PRESETS = ("paper",)
DRAWS = ("once", "per-seed")


@dataclass
class Task:
    """One build of one task: what every step adds to.

    Attributes:
        store: where the cohort goes.
        builder: name of the task in `COHORT_BUILDERS`.
        name: name of the cohort.
        settings: the options that the tasks of one data set share; "preset", "cohort_seed", "splits", "dataset" and
            "replace" of them are read here.
        options: all that the builder was given; steps add what they settled. Kept with the cohort.
        notes: lines for the report.
        redraw: each seed balances the classes anew, with so many more of the larger one; None for one draw for all.
    """

    store: Store
    builder: str
    name: str
    settings: Mapping[str, Any]
    options: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    redraw: int | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown preset, and keep the options."""
        one_of("preset", self.preset, (None, *PRESETS))
        given = {**{k: v for k, v in self.settings.items() if k not in ("splits", "replace")}, **self.options}
        self.options = {k: str(v) if isinstance(v, os.PathLike) else v for k, v in given.items()}

    @property
    def preset(self) -> str | None:
        """ "paper", or None."""
        return self.settings["preset"]

    @property
    def seed(self) -> int:
        """Of every draw of rows."""
        return self.settings["cohort_seed"]

    @property
    def paper(self) -> PaperTask:
        """What the paper says of this task."""
        return PAPER_TASKS[self.builder]

    @property
    def scheme(self) -> SplitScheme:
        """How the cohort is split: as the user said, else the task's default."""
        scheme = self.settings["splits"] or default_scheme(self.builder, self.preset)
        return scheme if self.redraw is None else replace(scheme, balance=self.redraw)

    def target(self, target_n: int | None) -> int | None:
        """How many samples to keep: what was asked for, else the paper's number under the preset, else all."""
        if target_n is None and self.preset == "paper":
            return self.paper.n_samples
        return target_n

    def finish(self, frame: pl.DataFrame, flow: Flow, *, classes: tuple[str, ...], licence: str) -> BuildReport:
        """Write the cohort.

        Raises:
            DataError: a class without a sample, or see `commit`.
        """
        refuse_one_class(frame, classes)
        scheme = self._final_scheme(frame["label"])
        draft = draft_cohort(
            self.name,
            frame,
            flow,
            builder=self.builder,
            options=self.options,
            classes=classes,
            scheme=scheme,
            licence=licence,
            dataset=self.settings["dataset"],
            notes=tuple(self.notes),
        )
        return commit(self.store, draft, replace=self.settings["replace"])

    def _final_scheme(self, labels: pl.Series) -> SplitScheme:
        """The scheme; with the paper's numbers of training samples, where the cohort and its shares are the paper's."""
        scheme, paper = self.scheme, self.paper
        if self.preset != "paper" or not paper.sizes:
            return scheme
        like_paper = default_scheme(self.builder, "paper")
        alike = replace(scheme, unit=like_paper.unit, test=like_paper.test, balance=None) == like_paper
        n_samples = len(labels)
        if scheme.balance is not None:
            of_class = labels.value_counts()["count"].to_list()
            n_samples = sum(min(n, min(of_class) + scheme.balance) for n in of_class)
        if n_samples == paper.n_samples and alike:
            return replace(scheme, n_train=tuple(paper.n_train.items()))
        self.notes.append(
            f"the paper's numbers of training samples are for {paper.n_samples:,} samples split {like_paper}; "
            "here a fraction takes the floor"
        )
        return scheme


def default_scheme(builder: str, preset: str | None = None) -> SplitScheme:
    """The paper's shares, by subject; under the preset "paper" by the units that it seems to have split by, and with
    its held-out part."""
    paper = PAPER_TASKS[builder]
    if preset is None:
        return SplitScheme(test_share=float(paper.test_share))
    held_out = float(paper.held_out_share)
    return SplitScheme(test_share=float(paper.test_share), unit=paper.unit, held_out_share=held_out)


def chosen_draw(draw: str, *, balanced: bool, more: int = 0) -> int | None:
    """What `Task.redraw` is for an option "once" or "per-seed".

    Raises:
        DataError: another word, or a draw for each seed where nothing is balanced by images.
    """
    one_of("draw", draw, DRAWS)
    if draw == "once":
        return None
    if not balanced:
        raise DataError("draw per-seed: there is nothing to draw unless classes are balanced by images (--balance).")
    return more


def one_of(option: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse a value that an option does not have."""
    if value not in allowed:
        words = ", ".join(str(v) for v in allowed if v is not None)
        raise DataError(f"{option} {value!r} is not known: use one of {words}.")


def drop_without_image(frame: pl.DataFrame, flow: Flow, *, hint: str) -> pl.DataFrame:
    """Leave out rows whose image file (`image_path`) is not there.

    Raises:
        DataError: none is there, which is a wrong folder rather than missing files; with `hint`.
    """
    exists = pl.Series("_exists", [os.path.isfile(path) for path in frame["image_path"]], dtype=pl.Boolean)  # noqa: PTH113
    if frame.height and not exists.any():
        raise DataError(f"none of the {frame.height:,} images is there; the first is {frame['image_path'][0]}. {hint}")
    kept = flow.drop(
        frame.with_columns(exists),
        ~pl.col("_exists"),
        step="no image file",
        reason="there is no file where the image should be",
    )
    return kept.drop("_exists")


def refuse_empty(frame: pl.DataFrame, flow: Flow) -> None:
    """Refuse to go on without rows."""
    if frame.is_empty():
        raise DataError(f"no row is left of {flow.steps[0].n_before:,}: {flow.summary()}.")


def refuse_one_class(frame: pl.DataFrame, classes: Sequence[str]) -> None:
    """Refuse a cohort in which a class has no sample."""
    held = set(frame["label"])
    absent = [name for label, name in enumerate(classes) if label not in held]
    if absent:
        raise DataError(
            f"no sample is of class {absent[0]!r} ({frame.height:,} samples are left): there is nothing to learn. "
            "Look at the counts of an earlier build, or change the options of the labels."
        )
