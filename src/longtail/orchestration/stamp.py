"""Time stamps of published files by which Snakemake judges rightly.

Beside each stands its identity (NAME.identity.json). While the Snakefile is read, `stamp` makes the time
stamps tell the truth: later than its inputs where the record is the plan's, the epoch where it is not.
"""

import os
import shutil
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from longtail.orchestration.batching import ahead
from longtail.orchestration.plan import Plan
from longtail.orchestration.published import Published
from longtail.publish.published_record import is_current, read_record
from longtail.runs import store
from longtail.runs.identity import file_digest

STALE = 1.0  # a second after the epoch: Snakemake takes a time of 0 for no time at all


def stamp(plan: Plan) -> list[Published]:
    """Give every published file a time by which Snakemake judges rightly; see the module's docstring.

    A file whose time tells the truth already keeps it, and one whose job is at work is left to it, so that a
    second Snakemake disturbs no first.

    Returns:
        What is current.
    """
    _forget_other_data(plan)
    found = []
    times: dict[str, float] = {}  # of run records, which many read
    for item in plan.published():
        for name in item.inputs:
            if name not in times:
                times[name] = _time(name)
        newest = max((times[name] for name in item.inputs), default=0.0)
        current, files = is_current(item.record, item.identity, item.outputs), _files(item)
        if files and not (current and all(_time(str(path)) > newest for path in files)):
            lock = ahead(item.kind, item.name, item.identity).name
            with store.locked(item.kind, lock, wait=False) as held:
                if held:  # else its job, of another Snakemake, is about to put it in place
                    current = _stamp(item, newest)
        if current:
            found.append(item)
    return found


def _stamp(item: Published, newest: float) -> bool:
    """Set the times of something that this process has locked; whether it is current.

    Args:
        item: which.
        newest: the time of its newest input.
    """
    if is_current(item.record, item.identity, item.outputs):
        for path in _files(item):
            if _time(str(path)) <= newest:
                _set_time(path, newest + 0.01)
        return True
    _keep_edited(item)
    if files := _files(item):
        _ask_again(item)
    for path in files:
        _set_time(path, STALE)
    return False


def _files(item: Published) -> list[Path]:
    """Those that are there, of all that Snakemake looks at the times of."""
    return [path for path in map(Path, [*item.outputs, item.record, item.benchmark]) if path.is_file()]


def _forget_other_data(plan: Plan) -> None:
    """Let a dataset of picture files be acquired anew where its files are not those of the plan any more.

    Its folder has the dataset's name alone, so that dvc.yaml can name it.
    """
    for run in plan.acquire.values():
        found = read_record(run.record)
        if found.get("identity") not in (None, run.identity):
            # Nothing else goes: the pictures themselves may lie there.
            for name in ("run.json", *found.get("outputs", {})):
                if Path(name).name == name:
                    (Path(run.folder) / name).unlink(missing_ok=True)


def _ask_again(item: Published) -> None:
    """Write what the command is told anew, with a field that nothing reads.

    Snakemake forgives every input whose checksum it saw when it last ran the job, though another table
    may have been put in place of that job's since (by git or DVC).
    """
    told = {**item.planned, "identity": item.identity, "asked": time.time_ns()}
    store.write_json(Path(item.inputs[0]), told, indent=None)


def _time(path: str) -> float:
    """Of a file; 0 where there is none."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _keep_edited(item: Published) -> None:
    """Copy what was edited by hand, by the record beside it, before Snakemake deletes it to make it anew."""
    made = read_record(item.record).get("outputs", {})
    for path in map(Path, item.outputs):
        if path.name not in made or not path.is_file() or (now := file_digest(path)) == made[path.name]:
            continue
        for number in count(1):
            copy = path.with_name(f"{path.name}.edited" + (f".{number}" if number > 1 else ""))
            if not copy.exists():
                shutil.copyfile(path, copy)
                print(f"{path}: was edited by hand; a copy is kept as {copy}", file=sys.stderr)
                break
            if file_digest(copy) == now:
                break


def _set_time(path: Path, when: float) -> None:
    with suppress(FileNotFoundError):  # a job of other settings may be about to put its own in place
        if path.is_symlink() or path.stat().st_nlink > 1:  # a link into DVC's cache, whose times are its own
            copy = path.with_name(f".{path.name}.{os.getpid()}")
            shutil.copyfile(path, copy)
            copy.replace(path)
        os.utime(path, (when, when))
