"""What a job computes beside its own run: others, of its step or a later one, without another start.

Importing torch takes seconds, a small run of stage two often less. Before the first job of an invocation of
Snakemake starts, `want` writes which runs it is to make and names the file in the environment of its jobs. A
job may compute any of these whose inputs are finished, and puts it into the store; the run's own job then
only links it. So with tables and figures (`longtail.orchestration.publishing`). A command that is typed by
hand, or whose invocation wants nothing else, has no companions.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail.errors import UserError
from longtail.runs import store
from longtail.runs.identity import digest
from longtail.runs.leases import ALLOCATION
from longtail.runs.steps import step_of

if TYPE_CHECKING:
    from longtail.orchestration.plan import Plan

WANTED = "LONGTAIL_WANTED"  # the file that says which runs this invocation of Snakemake is to make
SHARE = "LONGTAIL_SHARE_SECONDS"
# For companions, unless the environment says otherwise. Trainings of a few seconds share a start of Python;
# longer ones do not notice it, and on a GPU they have ways of their own to share.
SECONDS = {"stage_one": 20.0, "features": 60.0, "stage_two": 60.0, "tables": 60.0, "figures": 60.0}
SHARED_STEPS = ("stage_one", "features", "stage_two")
SHARED_KINDS = {"tables": "table", "figures": "figure"}  # and the wildcard of their rule
AHEAD = Path(".longtail/ahead")  # what is made of these before its own job asks for it


def want(plan: "Plan", jobs: Iterable[Any]) -> None:
    """Let the jobs that this process starts know which runs are to be made, in the order of the plan.

    Args:
        plan: of all runs.
        jobs: Snakemake's jobs that have to run.
    """
    made = {(job.rule.name, name) for job in jobs for name in job.wildcards_dict.values()}
    wanted = {step: [name for name in plan.runs(step) if (step, name) in made] for step in SHARED_STEPS}
    for kind in SHARED_KINDS:
        items = [item for item in plan.published() if (kind, item.name) in made and item.kind == kind]
        wanted[kind] = [f"{item.name}-{item.identity[:16]}" for item in items]
    file = store.PLANNED / "wanted" / f"{digest(wanted)[:16]}.json"
    if not file.exists():
        store.write_json(file, wanted, indent=None)
    for left in AHEAD.glob("*/*"):  # by an invocation that was killed, unless one at work holds it
        with store.locked(left.parent.name, left.name.removeprefix("."), wait=False) as held:
            if held:
                shutil.rmtree(left, ignore_errors=True)
    os.environ[WANTED] = str(file.resolve())
    os.environ[ALLOCATION] = os.environ.get("SLURM_JOB_ID", "")  # jobs in it share its GPUs


def ahead(kind: str, name: str, identity: str) -> Path:
    """Where something published waits for its own job; the last part of the path is the name of its lock."""
    return AHEAD / kind / f"{name}-{identity[:16]}".replace("/", "-")  # a table's name may have folders


def budget(step: str) -> float:
    """Seconds that a job may spend on companions.

    Raises:
        UserError: if LONGTAIL_SHARE_SECONDS is no number of at least 0.
    """
    given = os.environ.get(SHARE)
    try:
        seconds = SECONDS.get(step, 0.0) if given is None else float(given)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise UserError(f"{SHARE}={given}: should be a number of seconds; 0 computes no other run")
    return seconds if step in SECONDS else 0.0


def companions(step: str, run: str) -> Iterator[dict[str, Any]]:
    """What the plan says of other runs of a step that are wanted, missing and ready to be computed.

    They come in the order of the plan from `run` on, and round again, so that jobs at work side by side begin
    at different places. Each is looked at when it is asked for, but not locked: hold it with
    `store.locked(step, RUN, wait=False)`, and see by `store.find` whether another process was quicker.
    """
    for name in _after(run, _wanted(step)):
        if (store.stored(step, name) / "run.json").is_file():
            continue
        try:
            planned = store.read_plan(step, name)
        except UserError:
            continue
        if all(_finished(step_of(at), reference) for at, reference in planned["inputs"].items()):
            yield planned


def wanted_beside(planned: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the plan says of other tables and figures that are wanted and whose runs are finished.

    First those of the same kind, in the order of the plan from the given one on, and round again.

    Args:
        planned: what the plan says of the one that was made.
    """
    kinds = sorted(SHARED_KINDS, key=lambda kind: kind != planned["kind"])
    for kind in kinds:
        for name in _after(f"{planned['name']}-{planned['identity'][:16]}", _wanted(kind)):
            try:
                found = store.read_plan(kind, name)
            except UserError:
                continue
            runs = ((step, run) for step, of_step in found["runs"].items() for run in of_step.items())
            ready = all(_finished(step, {"run": name, **run}) for step, (name, run) in runs)
            if ready and not found["built_on"]:
                yield found


def _wanted(kind: str) -> list[str]:
    """What this invocation of Snakemake is to make of a step or kind; nothing where none says so."""
    try:
        return list(json.loads(Path(os.environ[WANTED]).read_text("utf-8")).get(kind, []))
    except (KeyError, OSError, ValueError, AttributeError, TypeError):  # nothing is lost but time
        return []


def _after(one: str, all_of_them: list[str]) -> list[str]:
    """The others, those after it first, so that jobs at work side by side begin at different places."""
    at = all_of_them.index(one) if one in all_of_them else -1
    return [name for name in [*all_of_them[at + 1 :], *all_of_them[: at + 1]] if name != one]


def _finished(step: str, reference: Mapping[str, str]) -> bool:
    folders = (Path(reference["folder"]), store.stored(step, reference["run"]))
    return any((folder / "run.json").is_file() for folder in folders)
