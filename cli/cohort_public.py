"""`radfs cohort build openi`, `nih-cxr14`, ...: public data sets, from the user's own download."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    DEFAULT_STORE,
    FoldsOption,
    GroupOption,
    ReplaceOption,
    SplitOption,
    StoreOption,
    TestOption,
    TestShareOption,
    split_scheme,
)

PUBLIC = {
    "openi": "OpenI (Indiana University): reports from the package torchxrayvision, images if downloaded.",
    "covid-chestxray": "covid-chestxray-dataset: X-rays from publications, with clinical notes.",
    "hannover-covid19": "COVID-19 image repository of Hannover Medical School: intensive care, death.",
    "nih-cxr14": "NIH ChestX-ray14: 14 findings mined from reports.",
    "chexpert": "CheXpert: 14 labels; uncertain and blank ones are left out.",
    "padchest": "PadChest: Spanish reports and labels.",
}


def command(builder: str) -> Callable[..., None]:
    """The command that builds a cohort of one data set."""

    def build(
        name: Annotated[str, typer.Argument(help="The cohort's name.")],
        *,
        root: Annotated[Path, typer.Option(help="Folder of the download; images are found below it.")],
        label: Annotated[str | None, typer.Option(help="One of its labels.", show_default="a usual one")] = None,
        table: Annotated[Path | None, typer.Option(help="The table, where it lies elsewhere.")] = None,
        split: SplitOption = None,
        test: TestOption = None,
        test_share: TestShareOption = None,
        folds: FoldsOption = None,
        replace: ReplaceOption = False,
        group: GroupOption = False,
        store: StoreOption = DEFAULT_STORE,
    ) -> None:
        from importlib import import_module

        from cohorts import COHORT_BUILDERS
        from featurestore.store import open_store

        module, function = COHORT_BUILDERS[builder].split(":")
        report = getattr(import_module(module), function)(
            open_store(store, create=True, group=group),
            name,
            root=root,
            label=label,
            table=table,
            splits=split_scheme(split, test, test_share, folds),
            replace=replace,
        )
        for line in report.lines():
            typer.echo(line)

    build.__doc__ = f"{PUBLIC[builder]}\n\nExample: `radfs cohort build {builder} mine --root downloads/{builder}`"
    return build
