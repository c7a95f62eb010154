"""The page that lies in a public bundle: what is in it, what is not, and how to read it."""

from collections.abc import Mapping

import polars as pl

_FILES = {
    "runs": "one row a trained head: settings, software, device, metrics on its test samples",
    "epochs": "one row an epoch of a run: losses and metrics after it",
    "cohorts": "one row a cohort: its size, classes and how it is split",
    "splits": "one row a sample of a split: which part it was in. `sample` and `subject` hold within one split alone",
    "predictions": "one row a test sample of a run: true label, and the probability of each class",
}


def bundle_readme(tables: Mapping[str, pl.DataFrame], *, left_out: int, smallest: int) -> str:
    """The text of a bundle's README.md.

    Args:
        tables: what is in the bundle, by name.
        left_out: runs that were left out for small cells.
        smallest: subjects of each class that a test part must have.
    """
    lines = ["# Results", "", "Made by `radfs export --results --public`. Values that are lists are JSON.", ""]
    lines += ["| file | rows | what it is |", "|---|---|---|"]
    lines += [f"| `{name}.csv` | {frame.height:,} | {_FILES[name]} |" for name, frame in tables.items()]
    lines += [
        "",
        "## What is not in it",
        "",
        "No ids of samples, studies or patients, no report texts, no paths, no names of machines or users, no dates.",
        "Hashes that were made from ids were replaced by keyed ones (HMAC-SHA256 under a secret salt that the makers",
        "keep). Equal values mean equal things within this bundle; nobody without the salt can tell which.",
        "",
        "- `splits.csv` lets you check that no patient is in two parts of a split, and how large the parts are. Its",
        "  ids are salted anew for every split, so that nobody can be followed from one to another. The order within",
        "  a part is that of the salted ids.",
        f"- Runs whose test part has fewer than {smallest} patients of some class are left out: {left_out:,} runs.",
    ]
    if "predictions" not in tables:
        lines.append("- Predictions of single samples. With the makers' store, any metric can be computed from them.")
    columns = ", ".join(f"`{name}`" for name in tables["runs"].columns)
    lines += ["", "## Columns of runs.csv", "", f"{columns}.", ""]
    lines += [
        "`auroc` and its like are of `chosen_epoch` on the test samples; `auroc_best` is of `best_epoch`, which was",
        "chosen on those very samples, and is too high. The meaning of every column: docs/schema.md of radfs.",
        "",
    ]
    return "\n".join(lines)
