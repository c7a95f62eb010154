"""`radfs import` and `radfs export`: embeddings made elsewhere, embeddings for elsewhere, and results of both kinds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from featurestore.errors import DataError

from .exchange import export_results, import_results
from .options import DEFAULT_STORE, StoreOption

if TYPE_CHECKING:
    from featurestore.transfer.importing import ImportReport

_SHOWN = 10


def import_(
    source: Annotated[
        Path, typer.Argument(help="File or folder: .npy, .npz, .safetensors, .h5, .parquet, or a manifest.csv of .pt.")
    ],
    *,
    results: Annotated[
        bool, typer.Option("--results", help="The source is a CSV of results that others report; needs --label.")
    ] = False,
    label: Annotated[str | None, typer.Option(help='Of --results: whose they are, such as "Peer et al.".')] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Of --results: in place of others of the same label.")
    ] = False,
    encoder: Annotated[
        str | None, typer.Option(help="Name of the encoder that made them; the set is encoder@key.")
    ] = None,
    modality: Annotated[Literal["image", "text"] | None, typer.Option(help="What was embedded.")] = None,
    revision: Annotated[
        str | None, typer.Option(help="Version of weights and preprocessing. Another one is a set of its own.")
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(help="Ids in the order of rows: .txt (one a line), .csv or .npy.", show_default="<stem>.ids.txt"),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Put before ids that are bare keys: dataset/key.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the embeddings.")] = None,
    credentialed: Annotated[
        bool, typer.Option("--credentialed", help="They derive from data whose use was granted to named persons.")
    ] = False,
    tokens_key: Annotated[
        str | None, typer.Option(help="Array or column of embeddings.", show_default="embeddings, tokens, features")
    ] = None,
    ids_key: Annotated[
        str | None, typer.Option(help="Array or column of ids.", show_default="ids, item; origin in a manifest")
    ] = None,
    preset: Annotated[str, typer.Option(help="How values are stored: float16, bfloat16, float32 or int8.")] = "float16",
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out items that the store does not know.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Take embeddings made elsewhere into the store, or results of peers. Run again, it takes only what is missing.

    Items must be known: build their cohort first. Arrays are [items, dim] or [items, tokens, dim]; reports come as
    one array an item, or back to back as [all tokens, dim] with `offsets`.

    Example: `radfs import embeddings.npy --encoder my-vit --modality image --revision 2026-03 --dataset mine`

    Example: `radfs import peer.csv --results --label "Peer et al."`
    """
    if results:
        if encoder or modality:
            raise DataError("--results takes results: leave --encoder and --modality, which are of embeddings, out.")
        import_results(store, source, label=label, replace=replace)
        return
    if encoder is None or modality is None:
        raise DataError("of embeddings, --encoder and --modality say what they are (of results, give --results).")
    if label is not None or replace:
        raise DataError("--label and --replace are for --results.")
    from featurestore.store import open_store
    from featurestore.transfer.foreign import Choice
    from featurestore.transfer.importing import import_features

    from .output import progress_bar

    opened = open_store(store)
    with progress_bar(f"import {encoder}", f"{modality}s") as tell:
        report = import_features(
            opened,
            source,
            encoder=encoder,
            modality=modality,
            revision=revision,
            choice=Choice(ids, tokens_key, ids_key),
            dataset=dataset,
            licence=licence,
            credentialed=credentialed,
            preset=preset,
            skip_unknown=skip_unknown,
            on_progress=tell,
        )
    _print(report)


def export(
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="Embeddings of this encoder, or feature set encoder@key.")
    ] = None,
    *,
    out: Annotated[
        str | None,
        typer.Option(
            help="The ending says the format: .npy, .parquet, .safetensors, .hf or a `/`; results: .csv or .parquet."
        ),
    ] = None,
    results: Annotated[
        bool, typer.Option("--results", help="Results in place of embeddings: the view `results`.")
    ] = False,
    public: Annotated[
        bool,
        typer.Option("--public", help="Of --results: a folder or .zip without ids, texts and paths, for publishing."),
    ] = False,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Of --public: with every test sample's prediction, ids salted.")
    ] = False,
    min_cell: Annotated[
        int | None,
        typer.Option(
            "--min-cell", min=1, help="Of --public: test subjects that each class must have.", show_default="10"
        ),
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option("--mlflow", metavar="URI", help="Of --results: to an MLflow server, or a folder.")
    ] = None,
    wandb: Annotated[
        Path | None, typer.Option("--wandb", metavar="FOLDER", help="Of --results: offline runs for `wandb sync`.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="SQL", help="Of --results: only runs for which this holds.")
    ] = None,
    cohort: Annotated[
        list[str] | None, typer.Option("--cohort", help="Only the items of this cohort (may be repeated).")
    ] = None,
    view: Annotated[int, typer.Option(min=0, help="0 is the clean one.")] = 0,
    cls: Annotated[bool, typer.Option("--cls", help="The class tokens, in place of the patch tokens.")] = False,
    have_the_right: Annotated[
        bool, typer.Option("--i-have-the-right", help="Export data whose licence is not known to be open.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write embeddings to a file that other tools open, rows in the order of item ids, or results with --results.

    Licences travel with embeddings. A name that ends in .hf or `/` gives a folder that `datasets.load_dataset` opens.

    Example: `radfs export --backbone efficientnet-lite0 --cohort mine --out mine.parquet`

    Example: `radfs export --results --public --out public.zip`
    """
    if results:
        if backbone is not None or cohort or view or cls or have_the_right:
            raise DataError("--results exports results: leave --backbone and other choices of embeddings out.")
        export_results(
            store,
            out=out,
            public=public,
            predictions=predictions,
            min_cell=min_cell,
            mlflow=mlflow,
            wandb=wandb,
            where=where,
        )
        return
    if backbone is None or out is None:
        raise DataError("name what to export: --backbone ENCODER --out FILE, or --results.")
    if public or predictions or min_cell is not None or mlflow or wandb or where:
        raise DataError("--public, --predictions, --min-cell, --mlflow, --wandb and --where are for --results.")
    from cohorts import cohort_items
    from cohorts.licences import data_licences
    from featurestore.featureset import find_feature_sets
    from featurestore.store import open_store
    from featurestore.transfer.exporting import export_features

    from .output import progress_bar

    opened = open_store(store)
    modalities = {s.modality for s in find_feature_sets(opened, backbone)}
    items = None if not cohort else [i for m in modalities for name in cohort for i in cohort_items(opened, name, m)]
    with progress_bar(f"export {backbone}", "items") as tell:
        report = export_features(
            opened,
            backbone,
            out,
            licences=lambda ids, modality: data_licences(opened, ids, modality),
            items=items,
            view=view,
            cls=cls,
            have_the_right=have_the_right,
            on_progress=lambda done, total: tell(done, total, 0),
        )
    typer.echo(f"{report.feature_set}: {report.items} items ({report.seconds:.1f} s) -> {report.files[0].parent}")
    for path in report.files:
        typer.echo(f"  {path.name}")
    if report.without_tokens:
        typer.echo(f"{report.without_tokens} items of the cohort have no tokens in the set: left out.", err=True)
    typer.echo(f"licence of the weights: {report.licence}")
    for name, licence in report.data_licences.items():
        typer.echo(f"licence of the data, cohort {name}: {licence}")


def _print(report: "ImportReport") -> None:
    done = f"{report.feature_set}: {report.imported} new, {report.already} there already, of {report.in_source}"
    typer.echo(f"{done} ({report.seconds:.1f} s)")
    if report.unknown:
        typer.echo(f"{report.unknown} are no items of the store and were left out.")
    if report.elsewhere:
        typer.echo(f"{report.elsewhere} stood in shards that another process made meanwhile.")
    if report.failed:
        typer.echo(f"{len(report.failed)} failed; they are in the table `failures`:", err=True)
        for item, reason in list(report.failed.items())[:_SHOWN]:
            typer.echo(f"  {item}: {reason}", err=True)
        if len(report.failed) > _SHOWN:
            typer.echo(f"  and {len(report.failed) - _SHOWN} more", err=True)
    if report.known_failures:
        typer.echo(f"{report.known_failures} failed before and are no better in this source.", err=True)
