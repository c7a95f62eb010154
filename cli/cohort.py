"""`radfs cohort`: build, list and show cohorts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cohort_public import PUBLIC, command
from .cohort_tasks import COMMANDS
from .drr import drr
from .once import App
from .options import (
    DEFAULT_STORE,
    CsvOption,
    FoldsOption,
    GroupOption,
    JsonOption,
    ReplaceOption,
    SplitOption,
    StoreOption,
    TestOption,
    TestShareOption,
    split_scheme,
)
from .splits import audit, export_splits, import_splits

if TYPE_CHECKING:
    from cohorts import BuildReport

app = App(no_args_is_help=True, help="Build, list and show cohorts.")
build = App(no_args_is_help=True, help="Build a cohort from a source.")
app.add_typer(build, name="build")
for _name in PUBLIC:
    build.command(_name)(command(_name))
app.command("drr")(drr)
app.command("audit")(audit)
app.command("export-splits")(export_splits)
app.command("import-splits")(import_splits)

NameArgument = Annotated[str, typer.Argument(help="The cohort's name: lower-case letters, digits, '.', '_', '-'.")]


@build.command("table")
def build_table(
    name: NameArgument,
    *,
    records: Annotated[Path, typer.Option(help="CSV, TSV or Parquet; one row a sample.")],
    label_col: Annotated[
        str | None, typer.Option(help="Column of the label: classes, or a number with --bins. Or --label-cols.")
    ] = None,
    label_cols: Annotated[
        str | None,
        typer.Option(help="Columns of findings, a,b,c: multi-label. Cells: 1, 0, -1 (uncertain), true, no, blank, ..."),
    ] = None,
    image_col: Annotated[str | None, typer.Option(help="Column of the image file, relative to --image-root.")] = None,
    text_col: Annotated[str | None, typer.Option(help="Column of the report; blank where there is none.")] = None,
    subject_col: Annotated[str | None, typer.Option(help="Column of the patient: splits keep patients whole.")] = None,
    id_col: Annotated[str | None, typer.Option(help="Column of a unique id.", show_default="the image column")] = None,
    sex_col: Annotated[str | None, typer.Option(help="Column of the sex, for `radfs cohort audit`.")] = None,
    age_col: Annotated[str | None, typer.Option(help="Column of the age in years, for the same.")] = None,
    view_col: Annotated[str | None, typer.Option(help="Column of the projection (AP, PA), for the same.")] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="Folder of the images.", show_default="the records' folder")
    ] = None,
    bins: Annotated[int | None, typer.Option(min=2, help="Cut a numeric label into this many equal classes.")] = None,
    max_classes: Annotated[
        int, typer.Option(min=2, help="More distinct values of the label than this are refused as no classes.")
    ] = 20,
    blank: Annotated[str, typer.Option(help="A blank finding means: unknown or absent.")] = "unknown",
    uncertain: Annotated[str, typer.Option(help="-1 in a finding means: unknown, positive, negative.")] = "unknown",
    dataset: Annotated[
        str | None,
        typer.Option(
            help="First part of the items' ids. Cohorts of one dataset share images and reports: embedded once.",
            show_default="the cohort's name",
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the data; `radfs info` shows it.")] = "not stated",
    split: SplitOption = None,
    test: TestOption = None,
    test_share: TestShareOption = None,
    folds: FoldsOption = None,
    replace: ReplaceOption = False,
    group: GroupOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """A cohort from your own table of images, reports and labels.

    Example: `radfs cohort build table mine --records records.csv --image-col file --text-col report --label-col
    finding --subject-col patient_id`
    """
    from cohorts import build_table as build_cohort
    from featurestore.store import open_store

    report = build_cohort(
        open_store(store, create=True, group=group),
        name,
        records=records,
        label_col=label_col,
        label_cols=label_cols,
        image_col=image_col,
        text_col=text_col,
        subject_col=subject_col,
        id_col=id_col,
        sex_col=sex_col,
        age_col=age_col,
        view_col=view_col,
        image_root=image_root,
        bins=bins,
        max_classes=max_classes,
        blank=blank,
        uncertain=uncertain,
        dataset=dataset,
        licence=licence,
        splits=split_scheme(split, test, test_share, folds),
        replace=replace,
    )
    _print(report)


@build.command("phantom")
def build_phantom(
    name: NameArgument,
    *,
    subjects: Annotated[int, typer.Option(min=10, help="How many subjects.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="The phantom's seed: the same one gives the same cohort.")] = 0,
    kind: Annotated[str, typer.Option(help="prognosis (the label follows the patient) or diagnosis (the report).")] = (
        "prognosis"
    ),
    split: SplitOption = None,
    test: TestOption = None,
    test_share: TestShareOption = None,
    folds: FoldsOption = None,
    replace: ReplaceOption = False,
    group: GroupOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """A made-up cohort with a known answer: drawn radiographs and reports of a hidden patient state.

    Example: `radfs cohort build phantom practice --subjects 300 --seed 1`
    """
    from cohorts import build_phantom as build_cohort
    from featurestore.store import open_store

    report = build_cohort(
        open_store(store, create=True, group=group),
        name,
        subjects=subjects,
        seed=seed,
        kind=kind,
        splits=split_scheme(split, test, test_share, folds),
        replace=replace,
    )
    _print(report)


for _name, _command in COMMANDS.items():
    build.command(_name)(_command)


@app.command("phantom-tree")
def phantom_tree(
    kind: Annotated[str, typer.Argument(help="mimic or inspect.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the tree.")],
    size: Annotated[int, typer.Option(min=10, help="Patients of mimic, studies of inspect.")] = 120,
    seed: Annotated[int, typer.Option(min=0, help="Of everything.")] = 0,
    image_px: Annotated[int, typer.Option(min=32, help="Height and width of the images.")] = 256,
    bad_rows: Annotated[bool, typer.Option("--bad-rows", help="mimic: also rows that cannot be read.")] = False,
) -> None:
    """Write a miniature tree of MIMIC or INSPECT in the real layout, of made-up patients, to try the builders on.

    Example: `radfs cohort phantom-tree mimic --out practice`
    """
    from cohorts.phantom_inspect import PARTS as INSPECT
    from cohorts.phantom_inspect import write_inspect_tree
    from cohorts.phantom_mimic import PARTS as MIMIC
    from cohorts.phantom_mimic import write_mimic_tree
    from featurestore.errors import DataError

    if kind == "mimic":
        tree = write_mimic_tree(out, subjects=size, seed=seed, image_px=image_px, bad_rows=bad_rows)
        folders = f"--mimic-cxr-jpg {tree.jpg} --mimic-cxr {tree.reports} --mimic-iv {tree.iv}"
        typer.echo(f"{size} made-up patients -> {', '.join(str(out / part) for part in MIMIC)}")
        typer.echo(f"next: radfs cohort build mimic-age {folders}")
    elif kind == "inspect":
        tree = write_inspect_tree(out, studies=size, seed=seed, image_px=image_px)
        folders = f"--inspect {tree.tables} --radiographs {tree.radiographs}"
        typer.echo(f"{size} made-up studies -> {', '.join(str(out / part) for part in INSPECT)}")
        typer.echo(f"next: radfs cohort build inspect-readmission-12m {folders}")
    else:
        raise DataError(f"tree {kind!r} is not known: use mimic or inspect.")


@app.command("list")
def list_(*, store: StoreOption = DEFAULT_STORE) -> None:
    """List the cohorts of the store.

    Example: `radfs cohort list`
    """
    import polars as pl

    from cohorts import list_cohorts, load_cohort
    from featurestore.store import open_store

    from .output import print_frame

    opened = open_store(store)
    rows = []
    for name in list_cohorts(opened):
        cohort = load_cohort(opened, name)
        rows.append(
            {
                "cohort": name,
                "task": cohort.task,
                "classes": len(cohort.classes),
                "samples": len(cohort.samples),
                "subjects": cohort.samples["subject"].n_unique(),
                "with_image": len(cohort.samples) - cohort.samples["image"].null_count(),
                "with_text": len(cohort.samples) - cohort.samples["text"].null_count(),
                "licence": cohort.licence,
            }
        )
    if rows:
        print_frame(pl.DataFrame(rows))
    else:
        typer.echo("no cohorts yet: `radfs cohort build --help`")


@app.command("show")
def show(
    name: NameArgument,
    *,
    flow: Annotated[
        bool, typer.Option("--flow", help="The steps of inclusion alone, as a table: rows before and after each.")
    ] = False,
    json: JsonOption = False,
    csv: CsvOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Show one cohort: how its rows came about, its classes, what each encoder has of it.

    Example: `radfs cohort show nih --flow`
    """
    from cohorts import describe_cohort, load_flow
    from featurestore.errors import DataError
    from featurestore.store import open_store

    from .output import print_frame

    opened = open_store(store)
    if flow:
        steps = load_flow(opened, name)
        left_out = (steps["n_before"] - steps["n_after"]).alias("left_out")
        print_frame(steps.insert_column(4, left_out), as_json=json, csv=csv)
        return
    if json or csv:
        raise DataError("--json and --csv go with --flow; the whole description is for reading alone.")
    for line in describe_cohort(opened, name):
        typer.echo(line)


def _print(report: "BuildReport") -> None:
    for line in report.lines():
        typer.echo(line)
