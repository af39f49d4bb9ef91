"""A run in MLflow: a local database unless MLFLOW_TRACKING_URI or a place names a server."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from longtail.tracking.logged import FOLDER, LoggedRun

IDENTITY = "longtail.identity"  # the tag by which a run is found again
AT_ONCE = 100  # entries that a server takes in one go
LONGEST = 6000  # characters of a parameter


def write(run: LoggedRun, place: str | None) -> str:
    """Write a run into the experiment of its dataset; one of the same identity there is deleted.

    Args:
        run: what is told.
        place: a folder, or the URI of a server or database.
    """
    uri = place or os.environ.get("MLFLOW_TRACKING_URI") or str(FOLDER / "mlflow")
    artifacts = None
    if "://" not in uri:
        folder = Path(uri).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(run.project)
    experiment = known.experiment_id if known else client.create_experiment(run.project, artifacts)
    for old in client.search_runs([experiment], filter_string=f"tags.`{IDENTITY}` = '{run.identity}'"):
        client.delete_run(old.info.run_id)
    tags = {**run.tags, IDENTITY: run.identity}
    made = client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
    now = int(time.time() * 1000)
    for some in _batches(list(run.settings.items())):
        client.log_batch(made, params=[Param(key, str(value)[:LONGEST]) for key, value in some])
    measured = [Metric(name, value, now, 0) for name, value in run.metrics.items()]
    measured += [Metric(name, y, now, x) for name, values in run.curves.items() for x, y in values.items()]
    for few in _batches(measured):
        client.log_batch(made, metrics=few)
    for file in run.tables.values():
        for path in (file, file.with_suffix(".html")):
            client.log_artifact(made, str(path), "tables")
    client.set_terminated(made)
    return f"{uri}, experiment {run.project}; `mlflow ui --backend-store-uri {uri}` shows it"


def _batches(entries: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(entries), AT_ONCE):
        yield list(entries[start : start + AT_ONCE])
