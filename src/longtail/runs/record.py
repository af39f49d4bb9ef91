"""What a run records of itself in run.json, and whether the code is still the planned one."""

import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail.device import peak_memory_mb
from longtail.errors import UserError
from longtail.runs.code_identity import adopted, code_digest
from longtail.runs.identity import file_digest

if TYPE_CHECKING:
    from longtail.runs.job import Job


RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "safetensors", "scikit-learn", "timm")


def same_code(planned: dict[str, Any]) -> None:
    """Refuse to compute under a name that was given to other code.

    Raises:
        UserError: if the code that would compute is not the code that was planned.
    """
    if planned["code"] and adopted(code_digest(planned["modules"]), Path.cwd()) != planned["code"]:
        name = planned.get("run") or planned["name"]
        raise UserError(f"{name}: the code has changed since this was planned; type the command again")


def recorded(planned: dict[str, Any], job: "Job", seconds: float) -> dict[str, Any]:
    """run.json: everything that made this run, and a hash of everything that it made."""
    files = sorted(file for file in job.folder.rglob("*") if file.is_file())
    return {
        "step": planned["step"],
        "run": planned["run"],
        "identity": planned["identity"],
        "settings": planned["settings"],
        "inputs": {step: reference["identity"] for step, reference in planned["inputs"].items()},
        "built_on": job.built_on,
        "code": {"digest": planned["code"], "modules": planned["modules"], "commit": git_commit()},
        "outputs": {str(file.relative_to(job.folder)): file_digest(file) for file in files},
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "seconds": round(seconds, 3),
        "peak_memory_mb": peak_memory_mb(),
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
