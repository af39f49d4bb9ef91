"""Curves that DVC plots, written by DVCLive while a training runs."""

from pathlib import Path
from typing import Any

COMPUTES = False  # it only writes down what was computed

# column of the history -> DVCLive's name, which puts the curves of a subset into one folder
NAMES = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "test_accuracy": "test/accuracy",
    "validation_accuracy": "validation/accuracy",
}


class Curves:
    """Writes rows of the history below a folder: metrics.json (the latest) and a .tsv a curve.

    Nothing else happens: no experiment, no dvc.yaml, no repository is looked for or made, nothing is sent
    anywhere; the files hold no times.
    """

    def __init__(self, folder: Path) -> None:
        from dvclive.live import Live  # a second to import, so only where a training begins

        class Writer(Live):
            def _init_dvc(self) -> None:
                """Live would look for a DVC repository, make one where there is only git, and name a run."""

            def _init_studio(self) -> None:
                """Live would announce the run to DVC Studio where the user has an access token."""

        self._live = Writer(dir=str(folder), save_dvc_exp=False, dvcyaml=None, report=None)

    def add(self, row: dict[str, Any], step: int) -> None:
        """One more point of every curve for which the row has a number; step counts from 1."""
        self._live.step = step
        for column, value in row.items():
            if isinstance(value, float):
                self._live.log_metric(NAMES.get(column, column), value)
        self._live.make_summary()  # type: ignore[no-untyped-call]
