"""What an audit says of labels: words of the report that give them away, class balance, and who has which label."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import polars as pl

from .cohort import Cohort
from .finding import Finding
from .multilabel import UNKNOWN
from .splits import Split

_WORD = re.compile(r"[a-z]{3,}")
_FILLERS = frozenset(("and", "any", "class", "for", "has", "not", "the", "with", "without", "yes"))
_LEAST_REPORTS = 20
"""A word that fewer reports hold is shown to nobody: it may be of one patient."""
_LEAST_SUBJECTS = 5
_TELLING = 0.8
"""Balanced accuracy from which a single word is said to tell a class from the others."""
_FEW = 10
_STRONG = 0.3
_MADE_OF_IT = 0.8


def label_findings(cohort: Cohort, splits: Mapping[int, Split], texts: Mapping[str, str | None]) -> Iterator[Finding]:
    """All findings about labels. Of a multi-label cohort, about every finding on its own, where it is known.

    Args:
        cohort: the cohort.
        splits: seed -> split.
        texts: report item -> its words, null where the texts were taken out of the store.
    """
    if cohort.task == "multilabel":
        each = (found for one in _one_by_one(cohort) for found in label_findings(one, splits, texts))
        yield from dict.fromkeys(each)  # "not known" is said once
        return
    yield from _words(cohort, texts)
    yield from _balance(cohort, splits)
    for column in ("sex", "view"):
        yield from _by_group(cohort, column)
    yield from _by_age(cohort)


def _one_by_one(cohort: Cohort) -> Iterator[Cohort]:
    """A binary cohort of each finding: the samples in which it is known, of which there may be none."""
    for i, name in enumerate(cohort.classes):
        classes = (f"no {name}", name)
        label = pl.col("findings").list.get(i).cast(pl.Int32).alias("label")
        samples = cohort.samples.with_columns(label).filter(pl.col("label") != UNKNOWN)
        of_class = pl.col("label").replace_strict(dict(enumerate(classes)), return_dtype=pl.String)
        yield replace(
            cohort, task="binary", classes=classes, samples=samples.with_columns(of_class.alias("label_name"))
        )


def _words(cohort: Cohort, texts: Mapping[str, str | None]) -> Iterator[Finding]:
    """Words of class names in the reports, and single words that tell a class."""
    rows = cohort.samples.drop_nulls("text").select("text", "subject", "label").rows()
    known = [(text, subject, label) for item, subject, label in rows if (text := texts.get(item)) is not None]
    if not known:
        yield Finding("note", "label words", "no report to look into")
        return
    with_word: dict[str, Counter[int]] = defaultdict(Counter)
    subjects: dict[str, set[str]] = defaultdict(set)
    total = Counter(label for _, _, label in known)
    for text, subject, label in known:
        for word in set(_WORD.findall(text.lower())):
            with_word[word][label] += 1
            if len(subjects[word]) < _LEAST_SUBJECTS:
                subjects[word].add(subject)
    common = {
        word: counts
        for word, counts in with_word.items()
        if counts.total() >= _LEAST_REPORTS and len(subjects[word]) >= _LEAST_SUBJECTS
    }
    yield from _verbatim(cohort, common, total)
    yield from _telling(cohort, common, total)


def _verbatim(cohort: Cohort, common: Mapping[str, Counter[int]], total: Counter[int]) -> Iterator[Finding]:
    for label, name in enumerate(cohort.classes):
        for word in sorted(set(_WORD.findall(name.lower())) - _FILLERS):
            if word not in common or not total[label]:
                continue
            own = common[word][label] / total[label]
            others = total.total() - total[label]
            rest = (common[word].total() - common[word][label]) / others if others else 0.0
            yield Finding(
                "warning" if own - rest > 0.2 else "note",
                "label words",
                f"{word!r} of class {name!r} stands in {own:.0%} of the reports of that class and {rest:.0%} of others",
                common[word].total(),
            )


def _telling(cohort: Cohort, common: Mapping[str, Counter[int]], total: Counter[int]) -> Iterator[Finding]:
    """The best single word of each class, by balanced accuracy."""
    binary = len(cohort.classes) == 2
    for label in range(1 if binary else 0, len(cohort.classes)):
        others = total.total() - total[label]
        if not total[label] or not others:
            continue

        def accuracy(word: str, label: int = label, others: int = others) -> float:
            own = common[word][label] / total[label]
            rest = (common[word].total() - common[word][label]) / others
            return 0.5 + abs(own - rest) / 2

        best = max(sorted(common), key=accuracy, default=None)
        if best is not None and accuracy(best) >= _TELLING:
            own = common[best][label] / total[label]
            rest = (common[best].total() - common[best][label]) / others
            yield Finding(
                "warning",
                "label words",
                f"{'the word' if own > rest else 'the absence of the word'} {best!r} alone tells class "
                f"{cohort.classes[label]!r} (in {own:.0%} of its reports, "
                f"{rest:.0%} of others; balanced accuracy {accuracy(best):.0%}): a text head has little left to learn",
                common[best].total(),
            )


def _balance(cohort: Cohort, splits: Mapping[int, Split]) -> Iterator[Finding]:
    counts = [cohort.counts()[f"class {name}"] for name in cohort.classes]
    if not sum(counts):
        yield Finding("warning", "class balance", f"{cohort.classes[-1]!r} is unknown in every sample")
        return
    shares = ", ".join(f"{name} {n / sum(counts):.1%}" for name, n in zip(cohort.classes, counts, strict=True))
    yield Finding("note", "class balance", f"{shares} of {sum(counts):,} samples", sum(counts))
    label_of = dict(cohort.samples.select("sample", "label").iter_rows())
    smallest: dict[str, tuple[int, str, int]] = {}
    for seed, split in splits.items():
        for part in ("train", "test"):
            of_part = Counter(label_of[sample] for sample in split.parts()[part] if sample in label_of)
            for label, name in enumerate(cohort.classes):
                found = (of_part[label], name, seed)
                smallest[part] = min(smallest.get(part, found), found)
    for part, (n, name, seed) in smallest.items():
        if n < _FEW:
            yield Finding(
                "warning",
                "class balance",
                f"{n} {part} sample{'' if n == 1 else 's'} of class {name!r} at seed {seed}: intervals will be wide"
                if n
                else f"no {part} sample of class {name!r} at seed {seed}: it cannot be trained or tested on",
                n,
            )


def _by_group(cohort: Cohort, column: str) -> Iterator[Finding]:
    """How a label goes with sex or view, as Cramér's V."""
    known = cohort.samples.drop_nulls(column)
    if known.is_empty():
        yield Finding("note", column, _not_known(cohort, column))
        return
    table = Counter(known.select(column, "label").iter_rows())
    values, labels = sorted({v for v, _ in table}), range(len(cohort.classes))
    n = known.height
    of_value = {v: sum(table[v, k] for k in labels) for v in values}
    of_label = {k: sum(table[v, k] for v in values) for k in labels}
    expected = {(v, k): of_value[v] * of_label[k] / n for v in values for k in labels if of_value[v] * of_label[k]}
    chi = sum((table[cell] - e) ** 2 / e for cell, e in expected.items())
    degrees = min(len(values), sum(count > 0 for count in of_label.values())) - 1
    strength = (chi / n / degrees) ** 0.5 if degrees > 0 else 0.0
    frequent = sorted(values, key=lambda v: (-of_value[v], v))[:4]
    shares = "; ".join(
        f"{cohort.classes[k]}: " + ", ".join(f"{v} {table[v, k] / of_label[k]:.0%}" for v in frequent)
        for k in labels
        if of_label[k]
    )
    level = "warning" if strength >= _STRONG else "note"
    told = ": a head may learn it in place of the finding" if level == "warning" else ""
    yield Finding(level, column, f"Cramér's V with the label {strength:.2f}{told} ({shares})", n)


def _by_age(cohort: Cohort) -> Iterator[Finding]:
    """How a label goes with age: the share of age's variance that the classes explain (eta squared)."""
    known = cohort.samples.drop_nulls("age")
    if known.is_empty():
        yield Finding("note", "age", _not_known(cohort, "age"))
        return
    means = known.group_by("label").agg(pl.col("age").mean(), pl.len()).sort("label")
    mean = known["age"].mean()
    assert isinstance(mean, float)
    total = ((known["age"] - mean) ** 2).sum()
    between = sum(n * (of_label - mean) ** 2 for _, of_label, n in means.iter_rows())
    strength = between / total if total else 0.0
    shares = ", ".join(f"{cohort.classes[label]} {of_label:.0f} years" for label, of_label, _ in means.iter_rows())
    told, level = "", "note"
    if strength > _MADE_OF_IT:
        told = ": the label seems to be made from it"
    elif strength >= _STRONG**2:
        told, level = ": a head may learn it in place of the finding", "warning"
    text = f"the label explains {strength:.0%} of its variance{told} (means: {shares})"
    yield Finding(level, "age", text, known.height)


def _not_known(cohort: Cohort, column: str) -> str:
    if cohort.builder == "table" and cohort.options.get(f"{column}_col") is None:
        return f"not known: no column was named. Build the cohort with --{column}-col to have it looked at"
    return "not known"
