"""`longtail log`: write finished runs to a tracker of experiments, after the fact."""

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from longtail.errors import UserError
from longtail.runs.lookup import Finished, named
from longtail.settings.params import Params
from longtail.settings.published import Groups
from longtail.tracking.logged import logged, table

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")  # a module of this room each
# Nothing is sent home about the use of these packages, and nothing is said that is no news.
QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "WANDB_ERROR_REPORTING": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def log(
    runs: Sequence[str],
    to: str,
    place: str | None = None,
    tables: Sequence[str] = (),
    settings: str | None = None,
) -> list[str]:
    """Write finished runs of stage two to a tracker; where each stands.

    A run that was written before is replaced.

    Args:
        runs: names, each a beginning that only one run has; or their folders.
        to: one of TRACKERS.
        place: where to: a folder, or what the tracker has instead; None: below `tracked/`.
        tables: published tables that each run is to have beside it.
        settings: the settings file whose `groups` metrics are by; None: the field's borders.

    Raises:
        UserError: if the tracker's package is not installed, a run or table is missing or damaged, or two
            tables have one name.
    """
    if find_spec(to) is None:
        raise UserError(f"--to {to}: the package {to} is not installed; `pip install {to}` does it")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    found = [named(given) for given in runs]
    groups = _groups(found, settings)
    shown: dict[str, Path] = {}
    for given in tables:
        name, file = table(given)
        if shown.setdefault(name, file).resolve() != file.resolve():
            raise UserError(f"--table {given}: {shown[name]} has the name {name} too; leave one of them out")
    write = importlib.import_module(f"longtail.tracking.{to}").write
    places = []
    for run in found:
        places.append(write(logged(run, groups, shown), place))
        print(f"{run.name}: {places[-1]}", file=sys.stderr, flush=True)
    return places


def _groups(runs: Sequence[Finished], settings: str | None) -> Groups:
    if settings is None:
        return Groups()
    params = Params.load(settings)
    for run in runs:
        if (own := run.records["features"]["settings"]["dataset"]) != params.dataset:
            raise UserError(f"{settings}: is for {params.dataset}, but {run.name} is of {own}")
    return params.groups
