"""Findings of a multi-label cohort: columns of a table, each present, absent or unknown in a sample.

Codes are those of the CheXpert labeler (Irvin et al., 2019): 1 positive, 0 negative, -1 uncertain, blank not mentioned.
Knows columns of text and lists of findings; not the table around them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from featurestore.errors import DataError

from .flow import Flow

PRESENT, ABSENT, UNKNOWN = 1, 0, -1
"""What a sample says of a finding."""

BLANK = {"unknown": UNKNOWN, "absent": ABSENT}
"""What a blank cell may mean."""

UNCERTAIN = {"unknown": UNKNOWN, "positive": PRESENT, "negative": ABSENT}
"""What -1 may mean: CheXpert's U-Ignore, U-Ones and U-Zeros."""

_WORDS = {"true": PRESENT, "yes": PRESENT, "false": ABSENT, "no": ABSENT}


@dataclass(frozen=True)
class FindingColumns:
    """The columns of a table that hold findings, and how their cells are read.

    Attributes:
        names: of the columns, which are the names of the findings.
        blank: what a blank cell means, a key of `BLANK`.
        uncertain: what -1 means, a key of `UNCERTAIN`.
    """

    names: tuple[str, ...]
    blank: str = "unknown"
    uncertain: str = "unknown"

    def __post_init__(self) -> None:
        """Refuse what names no finding, or one twice, and meanings that are not known."""
        twice = [name for i, name in enumerate(self.names) if name in self.names[:i]]
        if not self.names or "" in self.names or twice:
            fault = f"{twice[0]!r} stands twice" if twice else "a name is missing"
            raise DataError(f"label columns {','.join(self.names)!r}: {fault}. Name each column once: a,b,c.")
        for option, value, known in (("blank", self.blank, BLANK), ("uncertain", self.uncertain, UNCERTAIN)):
            if value not in known:
                raise DataError(f"{option} {value!r} is not known: use {', '.join(known)}.")

    @property
    def roles(self) -> dict[str, str]:
        """Column of the frame that `read` takes -> column of the table."""
        return {f"finding {i}": name for i, name in enumerate(self.names)}

    def read(self, frame: pl.DataFrame, flow: Flow) -> pl.DataFrame:
        """Add the column `findings`; leave out rows with a cell that says something else, and rows that know nothing.

        Args:
            frame: `id`, `row` and the columns of `roles`: text without blanks around it, null where a cell is blank.
            flow: takes what is left out.

        Raises:
            DataError: no finding is present in one row and absent in another.
        """
        frame = frame.with_columns(self._code(role) for role in self.roles)
        why = [pl.when(pl.col(role).is_null()).then(pl.lit(_not_a_code(name))) for role, name in self.roles.items()]
        frame = flow.drop(
            frame.with_columns(pl.coalesce(why).alias("_why")),
            pl.col("_why").is_not_null(),
            step="unclear finding",
            reason="a finding's cell holds something else than 1, 0, -1, true, false, yes, no or a blank",
            detail="_why",
        ).drop("_why")
        frame = frame.with_columns(pl.concat_list(*self.roles).alias("findings")).drop(*self.roles)
        frame = flow.drop(
            frame,
            ~pl.col("findings").list.eval(pl.element() != UNKNOWN).list.any(),
            step="no known finding",
            reason="each finding of the row is unknown",
        )
        counts = finding_counts(frame, self.names)
        if not frame.is_empty() and not any(present and absent for present, absent, _ in counts.values()):
            advice = " Where a blank cell means absent, say --blank absent." if self.blank == "unknown" else ""
            raise DataError(
                f"label columns {', '.join(self.names)}: none is present in one of the {frame.height} usable rows and "
                f"absent in another, so there is nothing to learn.{advice}"
            )
        return frame

    def _code(self, role: str) -> pl.Expr:
        """The cells of a column as codes, null where one is none."""
        text, number = pl.col(role).str.to_lowercase(), pl.col(role).cast(pl.Float64, strict=False)
        codes = {UNKNOWN: UNCERTAIN[self.uncertain], PRESENT: PRESENT, ABSENT: ABSENT}
        return (
            pl.when(text.is_null())
            .then(pl.lit(BLANK[self.blank]))
            .otherwise(
                pl.coalesce(
                    text.replace_strict(_WORDS, default=None, return_dtype=pl.Int8),
                    number.replace_strict(codes, default=None, return_dtype=pl.Int8),
                )
            )
            .cast(pl.Int8)
            .alias(role)
        )


def finding_counts(samples: pl.DataFrame, names: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Samples in which each finding is present, absent and unknown; of samples with a column `findings`."""
    counts = {}
    for i, name in enumerate(names):
        code = samples["findings"].list.get(i)
        counts[name] = tuple(code.filter(code == each).len() for each in (PRESENT, ABSENT, UNKNOWN))
    return counts


def with_strata(samples: pl.DataFrame) -> pl.DataFrame:
    """The samples with what a split balances as their `label`: how many findings are present, 0 to all."""
    return samples.with_columns(pl.col("findings").list.count_matches(PRESENT).cast(pl.Int32).alias("label"))


def _not_a_code(name: str) -> str:
    return f"column {name!r} holds something else than 1, 0, -1, true, false, yes, no or a blank"
