"""A run in Trackio: a local database, or the Space of Hugging Face that TRACKIO_SPACE_ID names."""

import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from longtail.tracking.logged import FOLDER, LoggedRun


def write(run: LoggedRun, place: str | None) -> str:
    """Write a run into the project of its dataset; one of the same name there is deleted.

    Args:
        run: what is told.
        place: the folder of the database; None: that of TRACKIO_DIR.
    """
    folder = Path(place or os.environ.get("TRACKIO_DIR") or FOLDER / "trackio").resolve()
    os.environ["TRACKIO_DIR"] = str(folder)  # read when the package is imported
    folder.mkdir(parents=True, exist_ok=True)
    import trackio

    with redirect_stdout(StringIO()):
        try:
            before = [old for old in trackio.Api().runs(run.project) if old.name == run.name]
        except ValueError:  # there is no such project yet
            before = []
        for old in before:
            old.delete()
        trackio.init(
            project=run.project,
            name=run.name,
            config={**run.settings, **run.tags, "identity": run.identity},
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        for epoch, values in run.by_epoch().items():
            trackio.log(values, step=epoch)
        tables = {f"table/{name}": trackio.Table(dataframe=run.frame(name)) for name in run.tables}
        trackio.log({**run.metrics, **tables}, step=max(run.by_epoch(), default=0))
        trackio.finish()
    return f"{folder}, project {run.project}; `TRACKIO_DIR={folder} trackio show` shows it"
