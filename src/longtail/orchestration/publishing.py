"""How something published is made: in a folder of its own, with its record, and then put in its place.

longtail figures NAME    makes what .longtail/plan/figures/NAME-IDENTITY.json says

What draws takes seconds to start and often less to draw. So a job makes other tables and figures of the
same invocation of Snakemake as well, whose runs are finished; those wait in `.longtail/ahead` until their
own jobs put them in place.
"""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from longtail.errors import UserError
from longtail.orchestration.batching import ahead, budget, wanted_beside
from longtail.orchestration.published import digest_at_hand
from longtail.publish.published_record import digests_of, is_current, read_record
from longtail.runs import store
from longtail.runs.identity import file_digest
from longtail.runs.record import same_code

RECORD = "identity.json"  # of what is made ahead


def execute(kind: str, name: str, identity: str) -> None:
    """Make one table, figure, model, frame, page or report as planned, and record what it is.

    Raises:
        UserError: if a run that it reads is missing or damaged, or the code is not the planned code.
    """
    planned = store.read_plan(kind, f"{name}-{identity}")
    seconds = budget(kind)
    folder = _ahead(planned)
    with store.locked(kind, folder.name):
        made_here = not _is_made(planned, folder)
        if made_here:
            _make(planned, folder)
        _put_in_place(planned, folder)
    if made_here and seconds:
        _make_others(planned, seconds)


def _ahead(planned: dict[str, Any]) -> Path:
    return ahead(planned["kind"], planned["name"], planned["identity"])


def _is_made(planned: dict[str, Any], folder: Path) -> bool:
    """Whether a folder holds the planned files, whole, and of the runs that are here."""
    record = read_record(str(folder / RECORD))
    try:
        hashes = {output.name: file_digest(folder / output.name) for output in _outputs(planned)}
    except OSError:
        return False
    return record == {"identity": planned["identity"], "outputs": hashes, "read": digests_of(planned)}


def _outputs(planned: dict[str, Any]) -> list[Path]:
    return [Path(output) for output in planned["outputs"]]


def _record(planned: dict[str, Any]) -> Path:
    first = _outputs(planned)[0]
    return first.with_name(f"{first.stem}.identity.json")


def _make(planned: dict[str, Any], folder: Path) -> None:
    """Make what is planned, whole with its record or not at all, as a folder."""
    from longtail.publish.make import make

    same_code(planned)
    _same_files(planned)
    read = digests_of(planned)
    begun = folder.with_name(f".{folder.name}")  # this process has it locked
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    try:
        make(planned, begun)
        same_code(planned)
        _same_files(planned)
        if digests_of(planned) != read:
            name = planned["name"]
            raise UserError(f"{name}: a run that it reads has changed meanwhile; type the command again")
        hashes = {output.name: file_digest(begun / output.name) for output in _outputs(planned)}
        record = {"identity": planned["identity"], "outputs": hashes, "read": read}
        store.write_json(begun / RECORD, record)
        shutil.rmtree(folder, ignore_errors=True)
        begun.replace(folder)
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _same_files(planned: dict[str, Any]) -> None:
    """Refuse to make what was planned of other printed numbers, templates or captions.

    Raises:
        UserError: if one was edited since.
    """
    for name, planned_digest in planned.get("files", {}).items():
        if digest_at_hand(Path(name)) != planned_digest:
            raise UserError(
                f"{planned['name']}: {name} has changed since this was planned; type the command again"
            )


def _put_in_place(planned: dict[str, Any], folder: Path) -> None:
    """Publish what a folder holds, the record last, and delete the folder."""
    outputs = _outputs(planned)
    target = outputs[0].parent
    target.mkdir(parents=True, exist_ok=True)
    record = _record(planned)
    # A folder within the target: it may be another disk, and files appear there whole.
    begun = target / f".{folder.name}"
    for left in target.glob(begun.name[:-16] + "?" * 16):  # by a process that was killed: none holds it
        with store.locked(planned["kind"], left.name.removeprefix("."), wait=False) as held:
            if held or left == begun:
                shutil.rmtree(left, ignore_errors=True)
    begun.mkdir()
    try:
        for output in outputs:
            shutil.copyfile(folder / output.name, begun / output.name)
        record.unlink(missing_ok=True)
        for output in outputs:
            (begun / output.name).replace(output)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    store.write_json(record, read_record(str(folder / RECORD)))
    shutil.rmtree(folder, ignore_errors=True)


def _make_others(planned: dict[str, Any], seconds: float) -> None:
    """Make other wanted tables and figures ahead, until the seconds are spent.

    Never fails: what goes wrong here goes wrong in the own job of what was made, which says so.
    """
    until = time.monotonic() + seconds
    done, other = 0, "another"
    try:
        for found in wanted_beside(planned):
            if time.monotonic() > until:
                break
            kind, other = found["kind"], found["name"]
            folder = _ahead(found)
            with store.locked(kind, folder.name, wait=False) as held:
                here = held and is_current(str(_record(found)), found["identity"], found["outputs"])
                if held and not here and not _is_made(found, folder):
                    _make(found, folder)
                    done += 1
    except Exception as error:
        print(f"{other}: left to its own job ({error})", file=sys.stderr, flush=True)
    if done:
        said = f"{planned['name']}: {done} more made beside it, for their jobs to put in place"
        print(said, file=sys.stderr, flush=True)
