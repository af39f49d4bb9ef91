"""How a planned run is computed: looked up in the store, else computed there, then linked into results/.

longtail stage-one RUN    reads .longtail/plan/stage_one/RUN.json, and neither params.yaml nor a flag

A run that is in the store is linked without importing what computes it.
"""

import importlib
import platform
import resource
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail import store
from longtail.companions import budget, companions
from longtail.errors import UserError
from longtail.identity import adopted, code_digest, file_digest
from longtail.store import read_plan

if TYPE_CHECKING:
    from longtail.job import Job

SETTINGS = {
    "acquire": "AcquireSettings",
    "split": "SplitSettings",
    "stage_one": "StageOneSettings",
    "features": "FeaturesSettings",
    "stage_two": "StageTwoSettings",
}
USES_DEVICE = ("stage_one", "features", "stage_two")
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "safetensors", "scikit-learn", "timm")


def same_code(planned: dict[str, Any]) -> None:
    """Refuse to compute under a name that was given to other code.

    Raises:
        UserError: if the code that would compute is not the code that was planned.
    """
    if planned["code"] and adopted(code_digest(planned["modules"]), Path.cwd()) != planned["code"]:
        name = planned.get("run") or planned["name"]
        raise UserError(f"{name}: the code has changed since this was planned; type the command again")


def locate(step: str, reference: dict[str, str]) -> Path:
    """The verified folder of a finished run: its results folder, else its place in the store.

    Raises:
        UserError: if it is damaged or nowhere.
    """
    folder = Path(reference["folder"])
    if (folder / "run.json").is_file():
        store.verify(folder, reference["identity"])
        return folder
    if found := store.find(step, reference["run"], reference["identity"]):
        return found
    raise UserError(f"{folder}: not there; `snakemake {folder}/run.json` makes it")


def execute(step: str, name: str, into: str | None = None) -> None:
    """Compute one planned run, or give it back from the store.

    Args:
        step: of the run.
        name: of the run.
        into: the folder where it is to appear; settings files that share a run have folders of their own.

    Raises:
        UserError: for everything that is the user's to mend.
    """
    planned = read_plan(step, name)
    folder, seconds = Path(into or planned["folder"]), budget(step)
    with ExitStack() as device:
        with store.locked(step, name):
            finished = store.find(step, name, planned["identity"])
            computed = finished is None
            if finished is None:
                same_code(planned)
                at_once = 1
                if step in USES_DEVICE:
                    from longtail.device import lease, runs_at_once

                    devices = planned["settings"].get("recipe", {}).get("devices", 1)
                    # Pictures make steps that fill a GPU, and memory that is not there twice.
                    if step == "stage_one" and devices == 1 and not planned["settings"].get("images"):
                        at_once = runs_at_once(1 + sum(1 for _ in companions(step, name)))
                    device.enter_context(lease(count=devices))
                finished = compute(planned) if at_once == 1 else compute_together(planned, at_once)
            if finished.name != name:  # the same run under another entry's name
                finished = store.keep(_copy(finished, step, name), step, name)
            store.link(finished, folder)
            shutil.rmtree(store.scratch(step, name), ignore_errors=True)
        if computed and seconds:
            _share(step, name, seconds, last=store.record(finished)["seconds"])


def _share(step: str, run: str, seconds: float, last: float) -> None:
    """Compute other wanted runs into the store, as long as one more, taken to be like the last, fits in.

    Never fails: what goes wrong here goes wrong in the run's own job, which says so.
    """
    until = time.monotonic() + seconds
    done, other = 0, "another run"
    try:
        for planned in companions(step, run):
            begun, other = time.monotonic(), planned["run"]
            if begun + last > until:
                break
            with store.locked(step, other, wait=False) as held:
                if held and store.find(step, other, planned["identity"]) is None:
                    compute(planned)
                    shutil.rmtree(store.scratch(step, other), ignore_errors=True)
                    last, done = time.monotonic() - begun, done + 1
    except Exception as error:
        print(f"{other}: left to its own job ({error})", file=sys.stderr, flush=True)
    if done:
        print(f"{run}: {done} more computed beside it, for their jobs to link", file=sys.stderr, flush=True)


def _copy(finished: Path, step: str, name: str) -> Path:
    copy = store.scratch(step, name) / "finished"
    shutil.rmtree(copy, ignore_errors=True)
    store.link(finished, copy)
    return copy


def compute(planned: dict[str, Any]) -> Path:
    """Compute a run that this process has locked; where it stands in the store.

    Raises:
        UserError: for everything that is the user's to mend.
    """
    job = begin(planned)
    module = importlib.import_module(f"longtail.{planned['step']}")
    same_code(planned)
    started = time.monotonic()
    module.compute(job)
    return finish(planned, job, time.monotonic() - started)


def compute_together(planned: dict[str, Any], at_once: int) -> Path:
    """Compute a run that this process has locked, and up to at_once - 1 other wanted ones at the same time.

    Those go into the store; one that fails is left to its own job, which says why.

    Raises:
        UserError: for everything about the run itself that is the user's to mend.
    """
    step = planned["step"]
    with ExitStack() as locks:
        begun = [(planned, begin(planned))]
        for other in companions(step, planned["run"]):
            if len(begun) == at_once:
                break
            held = locks.enter_context(store.locked(step, other["run"], wait=False))
            if held and store.find(step, other["run"], other["identity"]) is None:
                with suppress(UserError):
                    same_code(other)
                    begun.append((other, begin(other)))
        module = importlib.import_module(f"longtail.{step}")
        same_code(planned)
        started = time.monotonic()
        errors = module.compute_together([job for _, job in begun])
        seconds = time.monotonic() - started
        for (other, job), error in list(zip(begun, errors, strict=True))[1:]:
            if error is None:
                with suppress(UserError):
                    finish(other, job, seconds)
                    shutil.rmtree(store.scratch(step, other["run"]), ignore_errors=True)
            else:
                print(f"{other['run']}: left to its own job ({error})", file=sys.stderr, flush=True)
        if error := errors[0]:
            raise error
        return finish(planned, begun[0][1], seconds)


def begin(planned: dict[str, Any]) -> "Job":
    """What the step is handed: verified inputs and an empty folder.

    Raises:
        UserError: if an input is damaged or missing.
    """
    from longtail import params
    from longtail.job import Job

    step, name = planned["step"], planned["run"]
    inputs = {at: locate(at, reference) for at, reference in planned["inputs"].items()}
    scratch = store.scratch(step, name)
    outputs = scratch / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir(parents=True)
    settings = getattr(params, SETTINGS[step]).model_validate(planned["settings"])
    return Job(step=step, run=name, settings=settings, inputs=inputs, folder=outputs, scratch=scratch)


def finish(planned: dict[str, Any], job: "Job", seconds: float) -> Path:
    """Record what the step wrote, and keep it; where it stands in the store.

    Raises:
        UserError: if the code is not the planned code any more.
    """
    same_code(planned)
    store.write_json(job.folder / "run.json", _record(planned, job, seconds))
    return store.keep(job.folder, planned["step"], planned["run"])


def _record(planned: dict[str, Any], job: "Job", seconds: float) -> dict[str, Any]:
    """run.json: everything that made this run, and a hash of everything that it made."""
    files = sorted(file for file in job.folder.rglob("*") if file.is_file())
    return {
        "step": planned["step"],
        "run": planned["run"],
        "identity": planned["identity"],
        "settings": planned["settings"],
        "inputs": {step: reference["identity"] for step, reference in planned["inputs"].items()},
        "code": {"digest": planned["code"], "modules": planned["modules"], "commit": git_commit()},
        "outputs": {str(file.relative_to(job.folder)): file_digest(file) for file in files},
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "seconds": round(seconds, 3),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "facts": job.facts,
    }


@cache
def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def git_commit() -> str | None:
    """The commit of the project, with `-dirty` behind it where files differ; None outside git."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def check(layer: str, plan: str) -> None:
    """Verify every run of a layer against identity and hashes, those of other settings beside them too.

    DVC takes the layer's folder as one: what nobody plans any more is committed with the rest.

    Raises:
        UserError: one line a file that is wrong.
    """
    listing = read_plan("layers", plan)
    wrong = []
    planned = {Path(reference["folder"]): reference["identity"] for reference in listing[layer]}
    shelves = {folder.parent for folder in planned} if layer != "acquire" else set()
    beside = [file.parent for shelf in sorted(shelves) for file in sorted(shelf.glob("*/run.json"))]
    for folder in [*planned, *(folder for folder in beside if folder not in planned)]:
        try:
            store.verify(folder, planned.get(folder) or store.record(folder)["identity"])
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("\n".join(wrong))
    print(f"{layer}: {len(listing[layer])} verified", file=sys.stderr)
