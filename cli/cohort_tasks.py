"""`radfs cohort build mimic-...` and `inspect-...`: the tasks of the paper from the raw downloads."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    DEFAULT_STORE,
    FoldsOption,
    GroupOption,
    ReplaceOption,
    SplitOption,
    StoreOption,
    TestOption,
    split_scheme,
)

NameOption = Annotated[str | None, typer.Option(help="The cohort's name.", show_default="the task's name")]
JpgOption = Annotated[Path, typer.Option(help="Folder of MIMIC-CXR-JPG 2.1.0.")]
ReportsOption = Annotated[Path, typer.Option(help="Folder of MIMIC-CXR 2.1.0 with its reports, zip or tree.")]
IvOption = Annotated[Path, typer.Option(help="Folder of MIMIC-IV 3.1.")]
ViewOption = Annotated[str, typer.Option(help="frontal (AP or PA), AP or PA.")]
TextOption = Annotated[
    str, typer.Option(help="impression+findings (the paper's), impression, findings, or full: the whole report.")
]
NoSectionOption = Annotated[
    str,
    typer.Option(help="Reports without that text: drop the image, take the last-paragraph, or keep it without text."),
]
TargetOption = Annotated[int | None, typer.Option(min=2, help="Draw so many samples at random.", show_default="all")]
PresetOption = Annotated[
    str | None, typer.Option(help="paper: its number of samples, its units of splitting, its training pool.")
]
ShareOption = Annotated[
    float | None, typer.Option(help="Share of the samples kept for the test.", show_default="the paper's")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of every draw of rows.")]
DatasetOption = Annotated[str, typer.Option(help="First part of the ids; tasks of one data set share items.")]
DrawOption = Annotated[
    str, typer.Option(help="once: one draw of the larger class for all seeds. per-seed: a draw of its own for each.")
]


def mimic_5x1200(
    *,
    mimic_cxr_jpg: JpgOption,
    mimic_cxr: ReportsOption,
    mimic_iv: Annotated[Path | None, typer.Option(help="Folder of MIMIC-IV 3.1, for sex and age alone.")] = None,
    labeler: Annotated[str, typer.Option(help="chexpert, negbio, or agree: both, where they agree.")] = "chexpert",
    exclusive: Annotated[
        str, typer.Option(help="No other positive label of the five, or of all13 (the rule of GLoRIA's 5x200).")
    ] = "five",
    uncertain: Annotated[
        str, typer.Option(help="Another label of -1: exclude the study, or take it as negative.")
    ] = "exclude",
    unit: Annotated[str, typer.Option(help="One label in the study, or in all studies of the subject.")] = "study",
    official: Annotated[
        str, typer.Option(help="ignore MIMIC-CXR's own split, or take its train, validate or test alone.")
    ] = "ignore",
    per_class: Annotated[int, typer.Option(min=1, help="Images of each label.")] = 1200,
    view: ViewOption = "frontal",
    text: TextOption = "impression+findings",
    no_section: NoSectionOption = "drop",
    preset: PresetOption = None,
    split: SplitOption = None,
    test: TestOption = None,
    test_share: ShareOption = None,
    folds: FoldsOption = None,
    cohort_seed: SeedOption = 0,
    dataset: DatasetOption = "mimic-cxr",
    name: NameOption = None,
    replace: ReplaceOption = False,
    group: GroupOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """MIMIC 5x1200 (diagnostic): which one of five findings; from MIMIC-CXR-JPG and its reports.

    Example: `radfs cohort build mimic-5x1200 --mimic-cxr-jpg DIR --mimic-cxr DIR --preset paper`
    """
    _build("mimic-5x1200", locals())


def mimic_age(
    *,
    mimic_cxr_jpg: JpgOption,
    mimic_cxr: ReportsOption,
    mimic_iv: IvOption,
    bins: Annotated[
        str, typer.Option(help="quantile (5 equal-frequency), width (5 equally wide), or edges: 18,40,55,65,75,120.")
    ] = "quantile",
    over_89: Annotated[str, typer.Option(help="Patients older than 89, whose age is not told: keep or drop.")] = "keep",
    one_per_subject: Annotated[bool, typer.Option("--one-per-subject", help="One image of every patient.")] = False,
    target_n: TargetOption = None,
    view: ViewOption = "frontal",
    text: TextOption = "impression+findings",
    no_section: NoSectionOption = "drop",
    preset: PresetOption = None,
    split: SplitOption = None,
    test: TestOption = None,
    test_share: ShareOption = None,
    folds: FoldsOption = None,
    cohort_seed: SeedOption = 0,
    dataset: DatasetOption = "mimic-cxr",
    name: NameOption = None,
    replace: ReplaceOption = False,
    group: GroupOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Age (auxiliary): the patient's age in five bins; from MIMIC-CXR-JPG, its reports and MIMIC-IV.

    Example: `radfs cohort build mimic-age --mimic-cxr-jpg DIR --mimic-cxr DIR --mimic-iv DIR`
    """
    _build("mimic-age", locals() | {"bins": _edges(bins)})


def mimic_discharge_3d(
    *,
    mimic_cxr_jpg: JpgOption,
    mimic_cxr: ReportsOption,
    mimic_iv: IvOption,
    death: Annotated[
        str, typer.Option(help="Stays that end in death: exclude, negative, or discharge (as any other end).")
    ] = "exclude",
    window: Annotated[
        str, typer.Option(help="stay: from admission on. ed: from registration in the emergency department on.")
    ] = "stay",
    horizon: Annotated[str, typer.Option(help="hours: within 72 hours. days: 3 calendar days at most.")] = "hours",
    exclude_location: Annotated[
        list[str] | None, typer.Option(help="Leave out this place of discharge, such as HOSPICE; may be repeated.")
    ] = None,
    per_admission: Annotated[str, typer.Option(help="all images of a stay, the first or the last.")] = "all",
    balance: Annotated[bool, typer.Option("--balance", help="As many images of either class.")] = False,
    draw: DrawOption = "once",
    target_n: TargetOption = None,
    view: ViewOption = "frontal",
    text: TextOption = "impression+findings",
    no_section: NoSectionOption = "drop",
    preset: PresetOption = None,
    split: SplitOption = None,
    test: TestOption = None,
    test_share: ShareOption = None,
    folds: FoldsOption = None,
    cohort_seed: SeedOption = 0,
    dataset: DatasetOption = "mimic-cxr",
    name: NameOption = None,
    replace: ReplaceOption = False,
    group: GroupOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """3-Day Discharge (prognostic): home within three days of the image; from MIMIC-CXR-JPG, reports and MIMIC-IV.

    Example: `radfs cohort build mimic-discharge-3d --mimic-cxr-jpg DIR --mimic-cxr DIR --mimic-iv DIR`
    """
    _build("mimic-discharge-3d", locals() | {"exclude_location": exclude_location or []})


def inspect_task(builder: str, what: str, *, known: str | None = None) -> Callable[..., None]:
    """The command of one task on INSPECT: they differ in their column, and in whether a disease can be known before."""
    option = typer.Option(
        "--known-before",
        metavar="FILE",
        help=f"Leave out patients known to have {known} before the scan: a table of conditions in the form of OMOP.",
        hidden=known is None,
    )

    def command(
        *,
        inspect: Annotated[Path, typer.Option(help="Folder of INSPECT's tables (labels_*.tsv and so on).")],
        radiographs: Annotated[
            Path, typer.Option(help="Folder of radiographs made from the CT volumes: `radfs cohort drr`.")
        ],
        column: Annotated[
            str | None, typer.Option(help="Another column of the labels.", show_default="the task's")
        ] = None,
        balance: Annotated[
            str, typer.Option(help="As many without the event as with it: by image, by patient, or none.")
        ] = "image",
        draw: DrawOption = "once",
        missing: Annotated[
            str, typer.Option(help="Leave out studies without an image before or after balancing.")
        ] = "before",
        no_text: Annotated[str, typer.Option(help="Studies without an impression: drop or keep.")] = "drop",
        conditions: Annotated[Path | None, option] = None,
        preset: PresetOption = None,
        split: SplitOption = None,
        test: TestOption = None,
        test_share: ShareOption = None,
        folds: FoldsOption = None,
        cohort_seed: SeedOption = 0,
        dataset: DatasetOption = "inspect",
        name: NameOption = None,
        replace: ReplaceOption = False,
        group: GroupOption = False,
        store: StoreOption = DEFAULT_STORE,
    ) -> None:
        _build(builder, {key: value for key, value in locals().items() if key != "builder"})

    command.__doc__ = (
        f"{what}; from INSPECT.\n\nExample: `radfs cohort build {builder} --inspect DIR --radiographs DIR`"
    )
    return command


COMMANDS: dict[str, Callable[..., None]] = {
    "mimic-5x1200": mimic_5x1200,
    "mimic-age": mimic_age,
    "mimic-discharge-3d": mimic_discharge_3d,
    "inspect-readmission-12m": inspect_task("inspect-readmission-12m", "Readmission within 12 months (prognostic)"),
    "inspect-ph-12m": inspect_task(
        "inspect-ph-12m", "Pulmonary hypertension within 12 months (prognostic)", known="pulmonary hypertension"
    ),
    "inspect-pe": inspect_task("inspect-pe", "Pulmonary embolism (diagnostic)"),
}


def _build(builder: str, options: dict[str, Any]) -> None:
    """Run a builder with the values of its command's options."""
    from importlib import import_module

    from cohorts import COHORT_BUILDERS
    from cohorts.tasks.common import default_scheme
    from featurestore.store import open_store

    store, group, name = (options.pop(key) for key in ("store", "group", "name"))
    given = (options.pop(key) for key in ("split", "test", "test_share", "folds"))
    splits = split_scheme(*given, default=default_scheme(builder, options["preset"]))
    module, function = COHORT_BUILDERS[builder].split(":")
    run = getattr(import_module(module), function)
    report = run(open_store(store, create=True, group=group), name or builder, splits=splits, **options)
    for line in report.lines():
        typer.echo(line)


def _edges(bins: str) -> str | list[float]:
    """A rule's name, or edges parted by commas."""
    from featurestore.errors import DataError

    if "," not in bins:
        return bins
    try:
        return [float(edge) for edge in bins.split(",")]
    except ValueError:
        raise DataError(f"--bins {bins!r} are no numbers parted by commas, such as 18,40,55,65,75,120.") from None
