"""`longtail prune`: delete finished runs that no settings file needs, after showing them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from longtail.errors import UserError
from longtail.params import Params
from longtail.plan import STEPS, plan
from longtail.store import home


def prune(settings: Sequence[str], yes: bool = False) -> None:
    """Show every run folder, in results and in the store, that the settings do not need; delete them.

    Raises:
        UserError: if the answer is not yes.
    """
    others = [str(file) for file in sorted(Path("workflow/settings").rglob("*.yaml"))]
    settings = list(dict.fromkeys([*settings, *others]))
    plans = [plan(Params.load(source), source) for source in settings]
    needed = {(run.step, run.name) for planned in plans for run in planned.everything()}
    shelves = {(step, home(Path.cwd()) / kind / step) for step in STEPS for kind in ("store", "unfinished")}
    for planned in plans:
        shelves |= {
            (step, Path(planned.results) / step) for step in STEPS if step not in ("acquire", "split")
        }
        shelves.add(("split", Path(planned.splits)))
    doomed = sorted(
        folder
        for step, shelf in shelves
        if shelf.is_dir()
        for folder in shelf.iterdir()
        if folder.is_dir() and (step, folder.name) not in needed
    )
    if not doomed:
        print(f"nothing to prune: every run is needed by {', '.join(settings)}")
        return
    for folder in doomed:
        print(f"{_megabytes(folder):10.1f} MB  {folder}")
    if not yes and input(f"delete these {len(doomed)} folders? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing deleted")
    for folder in doomed:
        shutil.rmtree(folder)
    print(f"{len(doomed)} folders deleted")


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
