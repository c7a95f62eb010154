"""Results into MLflow: an experiment a cohort, a run each, with a metric for every epoch. Needs radfs[mlflow]."""

from pathlib import Path
from typing import Any

from featurestore.catalog import Catalog
from featurestore.errors import DataError

from .tracked import PREFIX, TrackedRun, tracked_runs


def to_mlflow(catalog: Catalog, uri: str, *, where: str | None = None) -> tuple[int, int]:
    """Write runs that an MLflow server, or folder, does not have yet.

    Args:
        catalog: of the store, up to date.
        uri: http(s)://..., sqlite:///FILE, or a folder, in which `mlflow.db` is made.
        where: an SQL condition on `results`.

    Returns:
        How many were written, and how many were there.

    Raises:
        DataError: MLflow is not installed, or refuses.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise DataError('--mlflow needs MLflow: run pip install "radfs[mlflow]".') from None
    written = there = 0
    if "://" not in uri:
        folder = Path(uri).expanduser().absolute()
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
    try:
        client = MlflowClient(tracking_uri=uri)
        known: dict[str, tuple[str, set[str]]] = {}
        for run in tracked_runs(catalog, where):
            if run.cohort not in known:
                known[run.cohort] = _experiment(client, run.cohort)
            experiment, ids = known[run.cohort]
            if run.run in ids:
                there += 1
            else:
                _write(client, experiment, run)
                written += 1
    except MlflowException as error:
        raise DataError(f"MLflow at {uri} refused: {error}") from error
    return written, there


def _experiment(client: Any, cohort: str) -> tuple[str, set[str]]:
    """The experiment of a cohort, made if need be, and the runs of radfs that it holds."""
    name = f"radfs/{cohort}"
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name), set()
    ids: set[str] = set()
    token = None
    while True:
        page = client.search_runs([found.experiment_id], page_token=token)
        # A run that a killed export left unfinished is written again.
        ids |= {run.data.tags.get(f"{PREFIX}run", "") for run in page if run.info.status == "FINISHED"}
        token = page.token
        if not token:
            return found.experiment_id, ids


def _write(client: Any, experiment: str, run: TrackedRun) -> None:
    from mlflow.entities import Metric, Param

    started, finished = (int(moment.timestamp() * 1000) for moment in (run.started_at, run.finished_at))
    made = client.create_run(experiment, start_time=started, tags=run.tags, run_name=run.name)
    metrics = [
        Metric(name, value, finished, epoch) for epoch, values in run.epochs.items() for name, value in values.items()
    ]
    chosen = [Metric(f"chosen_{name}", value, finished, 0) for name, value in run.metrics.items()]
    params = [Param(name, str(value)) for name, value in run.settings.items()]
    everything = metrics + chosen
    client.log_batch(made.info.run_id, params=params)
    for start in range(0, len(everything), 1000):  # as many as MLflow takes at once
        client.log_batch(made.info.run_id, metrics=everything[start : start + 1000])
    client.set_terminated(made.info.run_id, "FINISHED", finished)
