"""Finished runs: written once, verified at every reading, kept where no tool deletes them.

A finished run stands twice, by hard link: in its results folder, and in `.longtail/store/STEP/RUN` of
the repository's main work tree. Snakemake, DVC and git may remove the first; the second gives it back.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from longtail.errors import UserError
from longtail.runs.identity import digest, file_digest
from longtail.runs.steps import PUBLISHED, STEPS

DIGEST = re.compile("[0-9a-f]{64}")
PLANNED = Path(".longtail/plan")  # what commands are told, of this work tree
TOLD = {  # keys that a file of the plan has, by its kind
    "runs": {"step", "run", "identity", "settings", "inputs", "code", "modules", "folder"},
    "layers": {*STEPS, *PUBLISHED},
    **{kind: {"kind", "name", "identity", "settings", "code", "modules", "outputs"} for kind in PUBLISHED},
}


@cache
def home(here: Path) -> Path:
    """`.longtail` of the main work tree: other work trees and DVC's temporary copies share its store."""
    git = ["git", "-C", str(here), "rev-parse", "--path-format=absolute", "--git-common-dir"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
        top = Path(found).parent
    except (OSError, subprocess.CalledProcessError):
        top = here.resolve()
    for parent in top.parents:  # `dvc exp run --temp` works in a repository of its own, under .dvc/tmp
        if (parent / ".dvc" / "tmp") in top.parents:
            top = parent
    return top / ".longtail"


def stored(step: str, run: str) -> Path:
    """Where a finished run is kept."""
    return home(Path.cwd()) / "store" / step / run


def scratch(step: str, run: str) -> Path:
    """Where an unfinished run keeps its checkpoints and its outputs."""
    return home(Path.cwd()) / "unfinished" / step / run


@contextmanager
def locked(step: str, run: str, wait: bool = True) -> Iterator[bool]:
    """Hold a run: a second process that wants it waits. The kernel frees the lock of a dead process.

    Yields:
        Whether it is held: always, unless `wait` is off and another process has it.
    """
    path = home(Path.cwd()) / "locks" / f"{step}-{run}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            yield False
            return
        print(f"{run}: another process is at it; waiting", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield True
    finally:
        lock.release()


def read_plan(kind: str, name: str) -> dict[str, Any]:
    """What the plan says of a run or of something published.

    Raises:
        UserError: if it was never planned here.
    """
    file = PLANNED / kind / f"{name}.json"
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{name}: not planned here; `longtail plan` lists the runs and plans them") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not TOLD.get(kind, TOLD["runs"]) <= found.keys():
        raise UserError(
            f"{file}: is damaged; what has planned it (`longtail plan`, `snakemake`) writes it anew"
        )
    return found


def record(folder: Path) -> dict[str, Any]:
    """run.json of a finished run.

    Raises:
        UserError: if it is missing or not a record.
    """
    file = folder / "run.json"
    try:
        found = json.loads(file.read_text("utf-8"))
        if not isinstance(found["outputs"], dict) or not isinstance(found["identity"], str):
            raise TypeError
    except FileNotFoundError:
        raise UserError(f"{file}: is missing; {_way_out(folder)}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{file}: is not a record of a run; {_way_out(folder)}") from None
    return dict(found)


def _way_out(folder: Path, step: str = "") -> str:
    """What to delete: all of a run, but of a dataset, beside which a user's pictures may lie, its record."""
    if step == "acquire" or folder.absolute().parent.parts[-2:] == ("data", "raw"):
        alone = f"delete {file}, no more than that, and " if (file := folder / "run.json").exists() else ""
        return f"{alone}type the command again"
    return f"delete {folder} and type the command again (`dvc checkout` brings it back too, once deleted)"


def verify(folder: Path, identity: str) -> dict[str, Any]:
    """Check a finished run against its identity and every output against its hash; its record.

    The record itself is checked against the digest that the store keeps apart from it, where the store has
    the run. That guards against accident and carelessness, not against someone who rewrites both.

    Raises:
        UserError: one line that names the first file that is wrong, and the way out.
    """
    file = folder / "run.json"
    found = record(folder)
    step = str(found.get("step"))
    if found["identity"] != identity:
        raise UserError(f"{file}: is of another run; {_way_out(folder, step)}")
    kept = record_digest(step, folder.name)
    if kept is not None and file_digest(file) != kept and _keeps(step, folder.name, identity):
        way_out = _way_out(folder, step)
        raise UserError(f"{file}: is not the record that the store keeps (edited by hand?); {way_out}")
    if step != "acquire":  # a dataset's pictures may lie beside its run
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        strange = sorted(name for name in names - {"run.json", *found["outputs"]} if name[0] != ".")
        if strange:
            raise UserError(f"{folder / strange[0]}: is no part of this run; delete it, or move it away")
    for name, expected in found["outputs"].items():
        file = folder / name
        try:
            actual = file_digest(file)
        except FileNotFoundError:
            raise UserError(f"{file}: is missing; {_way_out(folder, step)}") from None
        if actual != expected:
            raise UserError(f"{file}: is not what run.json says (edited by hand?); {_way_out(folder, step)}")
    return found


def _keeps(step: str, run: str, identity: str) -> bool:
    """Whether the store's run of this name is this one: work trees may differ in a dataset's files."""
    try:
        return bool(record(stored(step, run))["identity"] == identity)
    except UserError:
        return True


def record_digest(step: str, run: str) -> str | None:
    """SHA-256 of run.json as it was when the store took the run; None where the store has not got it.

    A run that was stored before such digests were kept is trusted at first sight.
    """
    kept = stored(step, run) / "run.json"
    if not kept.is_file():
        return None
    with suppress(OSError, UnicodeDecodeError):
        found = _digest_file(step, run).read_text("utf-8").strip()
        if DIGEST.fullmatch(found):  # after a power loss a file may be empty
            return found
    found = file_digest(kept)
    with suppress(OSError):  # a store that cannot be written to
        _keep_digest(kept, step, run)
    return found


def _digest_file(step: str, run: str) -> Path:
    return home(Path.cwd()) / "records" / step / run


def _keep_digest(record: Path, step: str, run: str) -> None:
    file = _digest_file(step, run)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, file_digest(record) + "\n")


def outputs_digest(record: dict[str, Any]) -> str:
    """What a run has made, as one digest: two computations of one run may differ on unlike machines."""
    return digest(record["outputs"])


def keep(finished: Path, step: str, run: str) -> Path:
    """Move a folder with a complete run into the store, in one rename; where it stands then."""
    target = stored(step, run)
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in finished.rglob("*"):
        if file.is_file():
            file.chmod(0o444)  # its links share the bytes: an editor should ask before it changes them
    replaced = target.with_name(f".replaced-{target.name}")
    shutil.rmtree(replaced, ignore_errors=True)  # of a killed process
    if target.is_dir() and not target.is_symlink():
        target.rename(replaced)  # one that reads it finds all of it, or nothing
    elif target.is_symlink() or target.exists():  # not ours: no run is a file
        aside = target.with_name(f".damaged-{target.name}")
        target.replace(aside)
        print(f"{target}: is no folder of a run; set aside as {aside}", file=sys.stderr, flush=True)
    _keep_digest(finished / "run.json", step, run)
    finished.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    return target


def ready(step: str, run: str) -> None:
    """Make sure that a run can be kept before hours are spent on it.

    Raises:
        OSError: if the store cannot be written.
    """
    target = stored(step, run)
    target.parent.mkdir(parents=True, exist_ok=True)
    probe = target.with_name(f".{target.name[:100]}.{os.getpid()}")
    probe.mkdir(exist_ok=True)
    probe.rmdir()


def link(source: Path, target: Path) -> None:
    """Make `target` hold the files of a finished run and no others, by hard link, run.json last."""
    names = sorted(str(file.relative_to(source)) for file in source.rglob("*") if file.is_file())
    if target.is_dir() and record(source).get("step") != "acquire":  # whose pictures may lie there
        for left in target.rglob("*"):  # of another computation of the run
            if left.is_file() and str(left.relative_to(target)) not in names and left.name[0] != ".":
                left.unlink()
    for name in sorted(names, key=lambda name: name == "run.json"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        link_file(source / name, target / name)


def link_file(source: Path, target: Path) -> None:
    """Put a hard link in place of whatever is there; a copy where the file system has no links."""
    with suppress(OSError):
        if os.path.samefile(source, target):
            return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # of a killed process that had the same number
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def write_json(path: Path, data: Any, indent: int | None = 1) -> None:
    """Write JSON under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json_text(data, indent))


def json_text(data: Any, indent: int | None = 1) -> str:
    """What `write_json` writes."""
    return json.dumps(data, indent=indent, sort_keys=True) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a file into a folder that is there, under a temporary name, and rename it."""
    temporary = f"{path.parent}/.{path.name}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
