"""`radfs show` and `radfs rerun`: where a run comes from, and whether it gives the same numbers again."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .opened import open_with_catalog
from .options import DEFAULT_STORE, JsonOption, StoreOption

if TYPE_CHECKING:
    from heads.rerun import Rerun

RunArgument = Annotated[str, typer.Argument(help="Id of a run, or its first digits.")]

_SECTIONS = {
    "trained_on": "trained on",
    "what": "what",
    "teacher": "teacher",
    "software": "software",
    "machine": "machine",
    "time": "time",
}
_TABLES = {"encoders": "encoders", "students": "students", "results": "results", "failures": "items that failed"}


def show(run: RunArgument, *, as_json: JsonOption = False, store: StoreOption = DEFAULT_STORE) -> None:
    """All that the store knows of one run: config, data, weights, teacher, software, device, results.

    Example: `radfs show 3f2a`
    """
    import json

    from heads.exchange.bundle import Salt
    from heads.trace import find_run, trace

    opened, catalog = open_with_catalog(store)
    found = trace(catalog, find_run(catalog, run))
    salt = Salt.known(opened)
    found["published_as"] = salt and salt.public("run", found["run"])
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        _print_trace(found)


def rerun(
    run: RunArgument,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only see whether the store still has what the run was made from.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Largest difference of a probability.", show_default="1e-4 in fp32, 0.02 in bf16"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: JsonOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Train one run again, and its teacher, and compare it with the store. Writes nothing; exit code 1 if not equal.

    Example: `radfs rerun 3f2a`
    """
    from heads.rebuild import rebuild_run
    from heads.trace import find_run, run_row

    opened, catalog = open_with_catalog(store)
    run_id = find_run(catalog, run)
    if check:
        from heads.hardware import resolve_device
        from heads.rerun import changes

        planned = rebuild_run(opened, catalog, run_id)
        typer.echo(f"{planned.label} ({run_id}): samples, split and tokens are those that it was made from")
        _print_warnings(changes(planned, run_row(catalog, run_id), resolve_device(device)))
        return
    from heads.rerun import rerun

    report = rerun(opened, catalog, run_id, device=device, tolerance=tolerance)
    if as_json:
        _print_json(report)
    else:
        if report.teacher is not None:
            _print_rerun(report.teacher, "teacher")
            typer.echo("")
        _print_rerun(report, "run")
        _print_warnings(report.warnings)
    if not report.is_equal:
        raise typer.Exit(1)


def _print_trace(found: dict[str, Any]) -> None:
    import polars as pl

    from featurestore.keys import canonical_json

    from .output import print_frame

    typer.echo(f"run {found['run']}")
    if found["published_as"]:
        typer.echo(f"in public bundles {found['published_as']}")
    for key, title in _SECTIONS.items():
        if found[key]:
            typer.echo(f"\n{title}")
            width = max(map(len, found[key]))
            for name, value in found[key].items():
                typer.echo(f"  {name:<{width}}  {_text(value)}")
    for key, title in _TABLES.items():
        typer.echo(f"\n{title}")
        if found[key]:
            rows = [{name: _text(v) if isinstance(v, list) else v for name, v in row.items()} for row in found[key]]
            print_frame(pl.DataFrame(rows, infer_schema_length=None))
        else:
            typer.echo("none")
    typer.echo("\nconfig, whose hash is the run's id")
    typer.echo(canonical_json(found["config"]))


def _print_rerun(report: "Rerun", what: str) -> None:
    from .output import print_lines

    typer.echo(f"{what} {report.run.spec.run_id}: {report.run.label}")
    lines = [
        [name, f"{stored:.6f}", f"{again:.6f}", f"{again - stored:+.2g}"]
        for name, (stored, again) in report.metrics.items()
    ]
    lines += [[f"{name} epoch", *map(str, pair), f"{pair[1] - pair[0]:+d}"] for name, pair in report.epochs.items()]
    print_lines(("metric", "stored", "again", "difference"), lines, numeric=(False, True, True, True))
    typer.echo(report.verdict())


def _print_warnings(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        typer.echo(f"since then: {warning}", err=True)


def _print_json(report: "Rerun") -> None:
    import json

    def plain(one: "Rerun | None") -> dict[str, Any] | None:
        if one is None:
            return None
        return {
            "run": one.run.spec.run_id,
            "equal": one.is_equal,
            "largest_difference": one.largest,
            "tolerance": one.tolerance,
            "metrics": {name: {"stored": s, "again": a} for name, (s, a) in one.metrics.items()},
            "epochs": {name: {"stored": s, "again": a} for name, (s, a) in one.epochs.items()},
            "changes": list(one.warnings),
            "teacher": plain(one.teacher),
        }

    typer.echo(json.dumps(plain(report), ensure_ascii=False, allow_nan=False))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)
