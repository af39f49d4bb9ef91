"""`longtail adopt`: record, in a tracked line with a reason, that new code gives the results of old code.

Old code is that of finished runs, or, with a commit, whatever the settings planned there: so a change of code
carries over runs that stand on other machines too.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.orchestration.run import Run, identity_of
from longtail.runs.code_identity import ADOPTED, COLUMNS
from longtail.runs.identity import canonical
from longtail.runs.steps import STEPS, settings_of_step
from longtail.runs.store import record, stored
from longtail.settings.base import Settings, Texts
from longtail.settings.finished_runs import FinishedRuns
from longtail.settings.method_blocks import blocks_in
from longtail.settings.params import Params

BESIDE = ("data/checked", "data/lists", "data/weights")  # what planning reads and git may not have


def adopt(params: str, reason: str, steps: Sequence[str] = ()) -> None:
    """Let planned runs stand for finished ones that differ from them in nothing but the code.

    Goes down the steps in order, planning again after each: what is built on an adopted run changes its
    identity with it. Goes down once more while that finds something: a run of stage one may be built on a
    classifier.

    Raises:
        UserError: if there is no such run, or no reason.
    """
    if not reason.strip():
        raise UserError("--reason: say why the results are the same, e.g. 'renamed variables'")
    if unknown := set(steps) - set(STEPS):
        raise UserError(f"{', '.join(sorted(unknown))}: not a step; there are {', '.join(STEPS)}")
    lines: dict[str, dict[str, str]] = {}
    known = -1
    while known < len(lines):
        known = len(lines)
        for step in steps or STEPS:
            while new := _adoptable(step, params, lines):
                for code, old in new.items():
                    lines[code] = {"step": step, "code": code, "as": old, "reason": reason.strip()}
                _append([lines[code] for code in new])
    if not lines:
        raise UserError("nothing to adopt: no missing run has a finished counterpart made by other code")
    for line in lines.values():
        print(f"{line['step']}: code {line['code'][:8]} stands for {line['as'][:8]}")


def adopt_since(commit: str, files: Sequence[str], reason: str, steps: Sequence[str] = ()) -> None:
    """Let the code of everything that settings files plan stand for the code that a commit had for it.

    Runs are matched by step and resolved settings, so that modules and settings files may have moved since.

    Args:
        commit: anything that git takes for one; its own lines of workflow/adopted.csv count.
        files: settings files, as they are here; where the commit has a file of that name, its own is planned.
        reason: why results are the same.
        steps: only these; empty: all.

    Raises:
        UserError: if there is no such commit, or nothing of what is planned here has other code there.
    """
    if not reason.strip():
        raise UserError("--reason: say why the results are the same, e.g. 'renamed variables'")
    with _tree_of(commit) as tree:
        old: dict[tuple[str, str], str] = {}
        for file in files:
            old |= _codes_planned(tree, file)
    lines: dict[str, dict[str, str]] = {}
    for file in files:
        for run in plan(Params.load(file), file).everything():
            if steps and run.step not in steps:
                continue
            known = old.get(_key(run.step, run.settings))
            if known is not None and known != run.code:
                line = {"step": run.step, "code": run.code, "as": known, "reason": reason.strip()}
                if lines.setdefault(run.code, line)["as"] != known:
                    raise UserError(f"{run.name}: its code stood for two different ones at {commit}")
    if not lines:
        raise UserError(f"nothing to adopt: what is planned has the code that it had at {commit}")
    _append(list(lines.values()))
    print(f"{len(lines)} digests of code stand for those of {commit}")


@contextmanager
def _tree_of(commit: str) -> Iterator[Path]:
    """The files of a commit in a work tree of their own, with this one's untracked data beside them."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / "tree"
        git = ["git", "worktree", "add", "--detach", str(tree), commit]
        made = subprocess.run(git, capture_output=True, text=True, check=False)
        if made.returncode:
            raise UserError(f"--since {commit}: {made.stderr.strip().splitlines()[-1]}")
        try:
            for place in BESIDE:
                for known in Path(place).glob("*"):
                    if not (there := tree / known).exists():
                        there.parent.mkdir(parents=True, exist_ok=True)
                        there.symlink_to(known.resolve())
            yield tree
        finally:
            subprocess.run(
                ["git", "worktree", "remove", "--force", str(tree)], capture_output=True, check=False
            )


def _codes_planned(tree: Path, file: str) -> dict[tuple[str, str], str]:
    """The code of every run that a settings file plans in a tree, by step and hashed settings.

    Nothing where that code cannot plan it, as when the file says what is newer.
    """
    if not (tree / file).exists():
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).write_bytes(Path(file).read_bytes())
    command = [sys.executable, "-m", "longtail", "plan", "--params", file]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    planned = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if planned.returncode:
        said = " ".join(planned.stderr.split())[-500:]
        print(f"{file}: the code there plans nothing of it ({said})", file=sys.stderr)
        return {}
    found = {}
    for told in (tree / ".longtail/plan").glob("*/*.json"):
        run = json.loads(told.read_text("utf-8"))
        if told.parent.name in STEPS[1:]:
            with suppress(ValidationError):  # what is refused today is planned no more
                settings = settings_of_step(told.parent.name, run["settings"])
                found[_key(told.parent.name, settings)] = str(run["code"])
    return found


def _key(step: str, settings: Settings) -> tuple[str, str]:
    """What tells runs apart but for their code; names of other recipes decide which networks a step needs."""
    named = [block.resolved() for _, block in blocks_in(settings, FinishedRuns)]
    return step, Texts(hashed=True).of(settings) + (canonical(named) if named else "")


def _adoptable(step: str, params: str, known: Iterable[str]) -> dict[str, str]:
    """Digests of code of planned runs by which they differ from finished ones, with those of the latter.

    A phase of stage one is built on another: it is found once that one is adopted and all is planned anew.
    """
    return {
        run.code: old
        for run in plan(Params.load(params), params).runs(step).values()
        if run.code not in known and (old := _finished_with_other_code(run)) is not None
    }


def _finished_with_other_code(run: Run) -> str | None:
    """The code digest of a finished run that equals this one but for its code."""
    if run.step == "acquire" or (stored(run.step, run.name) / "run.json").is_file():
        return None
    label = run.name.removesuffix(run.identity[:8])
    for shelf in (stored(run.step, run.name).parent, Path(run.folder).parent):
        newest_first = sorted(shelf.glob(f"{label}*/run.json"), key=lambda file: -file.stat().st_mtime)
        for file in newest_first:
            try:
                found = record(file.parent)
                code = str(found["code"]["digest"])
            except (UserError, KeyError, TypeError):  # damaged: nothing stands for it
                continue
            if identity_of(run.step, run.settings, run.needs, code, Texts(hashed=True)) == found["identity"]:
                return code
    return None


def _append(lines: Sequence[dict[str, str]]) -> None:
    if not lines:
        return
    before = ADOPTED.read_text("utf-8") if ADOPTED.exists() else ""
    with ADOPTED.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not before:
            writer.writeheader()
        elif not before.endswith("\n"):  # as an editor may leave it
            file.write("\n")
        writer.writerows(lines)
