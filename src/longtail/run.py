"""How a planned run is computed: looked up in the store, else computed there, then linked into results/.

longtail stage-one RUN    reads .longtail/plan/stage_one/RUN.json, and neither params.yaml nor a flag
"""

import importlib
import json
import platform
import resource
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from longtail import params, store
from longtail.errors import UserError
from longtail.identity import adopted, code_digest, file_digest
from longtail.job import Job
from longtail.plan import PLANNED
from longtail.settings import Settings

SETTINGS: dict[str, type[Settings]] = {
    "acquire": params.AcquireSettings,
    "split": params.SplitSettings,
    "stage_one": params.StageOneSettings,
    "features": params.FeaturesSettings,
    "stage_two": params.StageTwoSettings,
}
USES_DEVICE = ("stage_one", "features", "stage_two")
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "safetensors", "scikit-learn")


def read_plan(kind: str, name: str) -> dict[str, Any]:
    """What the plan says of a run or of something published.

    Raises:
        UserError: if it was never planned here.
    """
    file = PLANNED / kind / f"{name}.json"
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except FileNotFoundError:
        raise UserError(f"{name}: not planned here; `longtail plan` lists the runs and plans them") from None


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
    folder, identity = Path(into or planned["folder"]), planned["identity"]
    same_code(planned)
    with store.locked(step, name):
        finished = store.find(step, name, identity)
        if finished is None:
            finished = _compute(planned)
        if finished.name != name:  # the same run under another entry's name
            finished = store.keep(_copy(finished, step, name), step, name)
        store.link(finished, folder)
        shutil.rmtree(store.scratch(step, name), ignore_errors=True)


def _copy(finished: Path, step: str, name: str) -> Path:
    copy = store.scratch(step, name) / "finished"
    shutil.rmtree(copy, ignore_errors=True)
    store.link(finished, copy)
    return copy


def _compute(planned: dict[str, Any]) -> Path:
    step, name = planned["step"], planned["run"]
    inputs = {at: locate(at, reference) for at, reference in planned["inputs"].items()}
    scratch = store.scratch(step, name)
    outputs = scratch / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir(parents=True)
    job = Job(
        step=step,
        run=name,
        settings=SETTINGS[step].model_validate(planned["settings"]),
        inputs=inputs,
        folder=outputs,
        scratch=scratch,
    )
    from longtail.device import lease

    with lease() if step in USES_DEVICE else nullcontext():
        module = importlib.import_module(f"longtail.{step}")
        same_code(planned)
        started = time.monotonic()
        module.compute(job)
        seconds = time.monotonic() - started
    same_code(planned)
    store.write_json(outputs / "run.json", _record(planned, job, seconds))
    return store.keep(outputs, step, name)


def _record(planned: dict[str, Any], job: Job, seconds: float) -> dict[str, Any]:
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


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


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
