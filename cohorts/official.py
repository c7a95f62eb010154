"""The split that a data set's publishers made, which samples hold as `source_split`, in place of one of ours.

Knows samples; no files and no names of data sets.
"""

from dataclasses import replace

import polars as pl

from featurestore.errors import DataError
from featurestore.keys import content_key

from .imported import IMPORTED_SCHEMA, PART_WORDS
from .scheme import SplitScheme
from .splits import PARTS, local_id


def official_split(samples: pl.DataFrame, scheme: SplitScheme) -> tuple[SplitScheme, pl.DataFrame, tuple[str, ...]]:
    """The official split as an imported one, the same for every seed; the order of training follows the seed.

    What the publishers validate on is held out, unless they have no test part: then it is the test part.

    Args:
        samples: columns `sample`, `subject`, `source_split`.
        scheme: of unit "official".

    Returns:
        The scheme with the hash of the rows, the rows (`IMPORTED_SCHEMA`), and notes for the report.

    Raises:
        DataError: samples without a part, a part of another name, a patient in two parts, or an empty side.
    """
    word = pl.col("source_split").str.strip_chars().str.to_lowercase()
    part = word.replace_strict(dict(PART_WORDS), default=None, return_dtype=pl.String)
    frame = samples.select("sample", "subject", "source_split", part.alias("part"))
    _check_parts(frame)
    notes = []
    if "test" not in set(frame["part"]):
        frame = frame.with_columns(pl.col("part").replace({"held out": "test"}))
        notes.append("the official split has no test part here: what its publishers validate on is the test part")
    counts = {part: frame.filter(part=part).height for part in PARTS}
    if not counts["train"] or not counts["test"]:
        raise DataError(
            f"the official split leaves {counts['train']:,} samples to train and {counts['test']:,} to test on: both "
            "are needed. Split by subject."
        )
    notes.append(f"official split: {', '.join(f'{n:,} {part}' for part, n in counts.items() if n)}")
    blank = (pl.lit(None).alias(column) for column in ("seed", "rank"))
    rows = frame.with_columns(*blank).select(IMPORTED_SCHEMA.names()).cast(IMPORTED_SCHEMA).sort("part", "sample")
    key = content_key([(part, local_id(sample)) for part, sample in rows.select("part", "sample").iter_rows()])
    return replace(scheme, imported=key), rows, tuple(notes)


def _check_parts(frame: pl.DataFrame) -> None:
    """Refuse what is no split of all samples by patient."""
    odd = frame.filter(pl.col("part").is_null())
    if not odd.is_empty():
        first = odd.row(0, named=True)
        what = "is in no part of it" if first["source_split"] is None else f"is in {first['source_split']!r}"
        raise DataError(
            f"no official split: {odd.height:,} of {frame.height:,} samples are in none of its parts (train, test, "
            f"validate), the first is {first['sample']}, which {what}. Is the publishers' list of parts in the "
            "download? Else split by subject."
        )
    parts = frame.group_by("subject").agg(pl.col("part").n_unique(), pl.col("sample").min())
    both = parts.filter(pl.col("part") > 1)
    if not both.is_empty():
        raise DataError(
            f"the official split has {both.height:,} subjects in two parts, such as that of {both['sample'].min()}: "
            "results would look better than they are. Split by subject."
        )
