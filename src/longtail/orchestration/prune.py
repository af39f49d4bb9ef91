"""`longtail prune`: delete finished runs that no settings file needs, after showing them.

A finished run is known by its identity: under the label of another entry it is needed as well.
A settings file of the project whose dataset is not on this machine cannot be planned; what it may need, the
runs of its dataset, stays. So does a run that a process is at, whose settings were edited since it began.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.runs.steps import STEPS
from longtail.runs.store import home, locked, record
from longtail.settings.params import Params
from longtail.settings.reading import parse, read_text

SUFFIXES = (".yaml", ".yml")  # of settings files


def _is_settings(file: Path) -> bool:
    """Whether a file beside params.yaml is one of settings, as `longtail init` writes; dvc.yaml is none."""
    try:
        data = parse(read_text(file))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and ("dataset" in data or "like" in data)


def _other_trees() -> list[str]:
    """The repository's other work trees."""
    command = ["git", "worktree", "list", "--porcelain"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    trees = [line.removeprefix("worktree ") for line in told if line.startswith("worktree ")]
    here = Path.cwd().resolve()
    return [tree for tree in trees if not here.is_relative_to(Path(tree).resolve())]


def prune(settings: Sequence[str], yes: bool = False) -> None:
    """Show every run folder, in results and in the store, that the settings do not need; delete them.

    Raises:
        UserError: if the answer is not yes, or settings that are named cannot be planned.
    """
    plans = [plan(Params.load(source), source) for source in settings]
    others = [str(file) for file in sorted(Path("workflow/settings").rglob("*")) if file.suffix in SUFFIXES]
    others += [
        str(file) for file in sorted(Path().iterdir()) if file.suffix in SUFFIXES and _is_settings(file)
    ]
    spared = set()  # datasets
    for source in dict.fromkeys(others):
        if source in settings:
            continue
        params = Params.load(source)
        try:
            plans.append(plan(params, source))
        except UserError as error:
            spared.add(params.dataset)
            line = f"{source}: cannot be planned here, so all runs of {params.dataset} stay ({error})"
            print(line, file=sys.stderr)
    needed: set[tuple[str, str]] = set()  # steps, with names and identities
    for planned in plans:
        for run in planned.everything():
            needed |= {(run.step, run.name), (run.step, run.identity)}
    shelves = {(step, home(Path.cwd()) / kind / step) for step in STEPS for kind in ("store", "unfinished")}
    for planned in plans:
        shelves |= {
            (step, Path(planned.results) / step) for step in STEPS if step not in ("acquire", "split")
        }
        shelves.add(("split", Path(planned.splits)))
    doomed = sorted(
        (folder, step)
        for step, shelf in shelves
        if shelf.is_dir()
        for folder in shelf.iterdir()
        if folder.is_dir()
        and (step, folder.name) not in needed
        and (step, _identity(folder)) not in needed
        and not _is_of(folder.name, spared)
    )
    if not doomed:
        print(f"nothing to prune: every run is needed by {', '.join(planned.source for planned in plans)}")
        return
    for folder, _ in doomed:
        print(f"{_megabytes(folder):10.1f} MB  {folder}")
    print(f"needed by none of {', '.join(planned.source for planned in plans)}; others are named with --also")
    for tree in _other_trees():
        print(f"{tree}: shares this store, and its settings files were not read")
    if not yes:
        try:
            answer = input(f"delete these {len(doomed)} folders? [y/N] ")
        except EOFError:
            raise UserError("nothing deleted: there was no answer; --yes deletes without asking") from None
        if answer.strip().lower() not in ("y", "yes"):
            raise UserError("nothing deleted")
    deleted = 0
    for folder, step in doomed:
        with locked(step, folder.name, wait=False) as held:
            if not held:
                print(f"{folder}: stays, a process is at this run", file=sys.stderr)
            elif folder.is_dir():  # still: a run that is finished leaves no unfinished folder
                shutil.rmtree(folder)
                deleted += 1
    print(f"{deleted} folders deleted")


def _identity(folder: Path) -> str:
    """Of the finished run that a folder holds; "" where it holds none, or one that was set aside."""
    try:
        return "" if folder.name.startswith(".") else str(record(folder)["identity"])
    except UserError:
        return ""


def _is_of(run: str, datasets: set[str]) -> bool:
    return any(run == name or run.startswith(f"{name}-") for name in datasets)


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
