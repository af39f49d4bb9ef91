"""A run in Weights & Biases: offline, in a folder, unless WANDB_MODE is `online`."""

import os
import shutil
from pathlib import Path
from typing import Literal

import wandb

from longtail.tracking.logged import FOLDER, LoggedRun

LENGTH = 32  # characters of a run's id


def write(run: LoggedRun, place: str | None) -> str:
    """Write a run under an id that is its identity's, so that it replaces what was written of it before.

    Args:
        run: what is told.
        place: the folder in which `wandb/` is made.
    """
    folder = Path(place or FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    mode: Literal["online", "offline"] = "online" if os.environ.get("WANDB_MODE") == "online" else "offline"
    name = run.identity[:LENGTH]
    for old in (folder / "wandb").glob(f"offline-run-*-{name}"):
        shutil.rmtree(old)
    made = wandb.init(
        project=run.project,
        name=run.name,
        id=name,
        dir=str(folder),
        mode=mode,
        config={**run.settings, **{f"tags.{key}": value for key, value in run.tags.items()}},
        settings=wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True),
    )
    with made:
        for epoch, values in run.by_epoch().items():
            made.log(values, step=epoch)
        for table in run.tables:
            made.log({f"table/{table}": wandb.Table(dataframe=run.frame(table))})
        made.summary.update(run.metrics)
    where = Path(made.settings.sync_dir)
    return str(made.url) if mode == "online" else f"{where}; `wandb sync {where}` sends it"
