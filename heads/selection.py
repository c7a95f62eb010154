"""The results that grids ask for: which runs a grid consists of, which of them the store has, and their means.

    found = find_runs(open_catalog(store).query("SELECT * FROM results"), [grid])
    found.rows, found.missing        # rows of `results`; what is not there yet, in words
    summarise(found.rows)            # rows like those of the view `summary`, over the grids' seeds alone

No torch, no store: a grid is enough to know its runs, for their settings do not depend on the data.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import polars as pl

from featurestore.errors import counted

from .grid import Grid
from .kinds import HeadKind, get_head
from .methods import Method, get_method
from .schema import SETTING, STATISTICS
from .views import OPTIONS

_KEY = (
    *("cohort", "method", "head", "backbone", "text_encoder", "fraction", "epochs", "batch_size", "dropout"),
    *("imitation", "temperature", "teacher_epoch", "selected_by", "seed", "split_seed"),
)
"""What tells the runs of a grid apart, and is known without the data. The learning rate may have been tuned."""


@dataclass(frozen=True)
class FoundRuns:
    """What a store has of some grids.

    Attributes:
        rows: of `results`.
        expected: how many runs the grids list.
        missing: what is not there, one line a cohort, backbone and method.
        left_out: how many more runs match but stand on other common rows of a cohort.
    """

    rows: pl.DataFrame
    expected: int
    missing: tuple[str, ...]
    left_out: int


def count_runs(grids: Sequence[Grid]) -> int:
    """How many runs the grids take, teachers that they do not list included."""
    keys = {_key(run) for grid in grids for run in listed_runs(grid, methods=[m.name for m in grid.methods()])}
    return len(keys)


def listed_runs(grid: Grid, methods: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The runs of a grid as far as they are known without the data: the columns of `results` that it settles."""
    for name in methods or grid.method:
        method = get_method(name)
        kinds = [(head, kind) for head in grid.head if (kind := get_head(head)).goes_with(method)]
        settings = product(grid.cohort, kinds, _encoders(grid, method), grid.fraction, grid.seed)
        for cohort, (head, kind), sets, fraction, seed in settings:
            for imitation, temperature in _lessons(grid, method):
                yield {
                    "cohort": cohort,
                    "method": name,
                    "head": head,
                    **sets,
                    "fraction": fraction,
                    "seed": seed,
                    "split_seed": seed if grid.split_seed is None else grid.split_seed,
                    "epochs": 1 if kind.is_baseline else method.epochs_factor * grid.epochs_at(fraction),
                    "batch_size": grid.batch_size,
                    "dropout": 0.0 if kind.pools_means else grid.dropout,
                    "imitation": imitation,
                    "temperature": temperature,
                    "teacher_epoch": grid.teacher_epoch if method.teacher else None,
                    "selected_by": grid.select,
                    **_wishes(grid, kind, sets),
                }


def _encoders(grid: Grid, method: Method) -> Iterator[dict[str, str | None]]:
    """Every choice of encoders for training by this method, its teacher's included."""
    reads = {*method.reads, *(get_method(method.teacher).reads if method.teacher else ())}
    images = grid.backbone if "image" in reads else (None,)
    texts = grid.text_encoder if "text" in reads else (None,)
    for image, text in product(images, texts):
        yield {
            "backbone": image and image.partition("@")[0],
            "text_encoder": text and text.partition("@")[0],
            "image_features": image if image and "@" in image else None,
            "text_features": text if text and "@" in text else None,
        }


def _lessons(grid: Grid, method: Method) -> Iterator[tuple[float | None, float | None]]:
    imitations = grid.imitation if method.uses_imitation else (None,)
    yield from product(imitations, grid.temperature if method.uses_temperature else (None,))


def _wishes(grid: Grid, kind: HeadKind, sets: Mapping[str, str | None]) -> dict[str, Any]:
    """What a run of the grid must have beside its key: rates of learning, a precision, augmented views."""
    rates = () if kind.is_baseline else grid.lr or (kind.lr,)
    augmented = grid.views == "augmented" and sets["backbone"] is not None and not kind.is_baseline
    precision = None if grid.precision == "auto" or kind.pools_means else grid.precision
    return {"lr": rates, "augmented": augmented, "precision": precision}


def _key(run: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(run[name] for name in _KEY)


def find_runs(results: pl.DataFrame, grids: Sequence[Grid]) -> FoundRuns:
    """The rows of `results` that are runs of the grids, and which runs are missing.

    Where runs of a cohort stand on several sets of common rows (another grid had other needs), those on the set with
    the most of them are taken: means over different samples would compare nothing.
    """
    wanted = {_key(run): run for grid in grids for run in listed_runs(grid)}
    matching = [row for row in results.to_dicts() if (run := wanted.get(_key(row))) and _is(row, run)]
    sizes = Counter((row["cohort"], row["common_rows"]) for row in matching)
    largest = {cohort: rows for (cohort, rows), _ in reversed(sizes.most_common())}
    kept = [row for row in matching if row["common_rows"] == largest[row["cohort"]]]
    have = {_key(row) for row in kept}
    frame = results.filter(pl.col("run").is_in([row["run"] for row in kept]))
    missing = tuple(_missing([run for key, run in wanted.items() if key not in have]))
    return FoundRuns(frame, len(wanted), missing, len(matching) - len(kept))


def _is(row: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    sets = all(run[name] in (None, row[name]) for name in ("image_features", "text_features", "precision"))
    rate = row["lr"] in run["lr"] if run["lr"] else row["lr"] is None
    return sets and rate and (row["views"] > 0) == run["augmented"]


def _missing(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    groups = Counter(
        (run["cohort"], run["method"], run["head"], run["backbone"] or run["text_encoder"]) for run in runs
    )
    for (cohort, method, head, encoder), n in groups.items():
        told = method if head == "attention" else f"{method} {head}"
        yield f"{cohort}: {told} of {encoder}, {counted(n, 'run')}"


_NOT_OF_ALL = ("lr", "imitation", "temperature")
"""Options that some methods or heads do not have: a condition on one must not leave those out."""

_TOLD = 6


def several_settings(results: pl.DataFrame) -> dict[str, list[Any]]:
    """The options in which runs of one cohort, method, encoder, fraction and seed differ, with their values.

    Means over such runs would take settings for seeds.

    Args:
        results: rows of `results`.
    """
    same = ["cohort", "method", "backbone", "text_encoder", "fraction", "seed"]
    options = [*OPTIONS, "image_features", "text_features", "common_rows", "split_seed"]
    differing = results.group_by(same).agg(pl.col(options).n_unique()).select(pl.col(options).max() > 1)
    return {
        name: sorted(results[name].drop_nulls().unique().to_list())
        for name in options
        if not results.is_empty() and differing[name][0]
    }


def in_words(settings: Mapping[str, Sequence[Any]]) -> str:
    """Such options and what to do about them: "epochs 2, 3, 20; ...: choose one, such as --where ..."."""
    said = "; ".join(
        f"{name} {', '.join(map(str, values[:_TOLD]))}{', ...' if len(values) > _TOLD else ''}"
        for name, values in settings.items()
    )
    name, values = next(iter(settings.items()))
    value = f"'{values[-1]}'" if isinstance(values[-1], str) else values[-1]
    also = f" OR {name} IS NULL" if name in _NOT_OF_ALL else ""
    return f'{said}. Choose one, such as --where "{name} = {value}{also}"'


def summarise(results: pl.DataFrame) -> pl.DataFrame:
    """Means and standard deviations over the seeds of these runs: columns as in the view `summary`, without intervals.

    Args:
        results: rows of `results`, whose seeds all have splits of their own or all share one.
    """
    shared = pl.col("split_seed").n_unique() == 1
    fixed = pl.when(shared & (pl.len() > 1)).then(pl.col("split_seed").first())
    moments = [
        one
        for metric in STATISTICS
        for one in (pl.col(metric).mean().alias(f"{metric}_mean"), pl.col(metric).std().alias(f"{metric}_sd"))
    ]
    keys = [name for name in SETTING if name != "classes"]
    grouped = results.group_by(keys, maintain_order=True).agg(
        pl.col("classes").first(),
        fixed.alias("fixed_split"),
        pl.len().cast(pl.Int64).alias("n_seeds"),
        *(pl.col(name).mean() for name in ("n_train", "n_test")),
        *moments,
    )
    return grouped.sort("cohort", "method", "backbone", "text_encoder", "fraction", "epochs")
