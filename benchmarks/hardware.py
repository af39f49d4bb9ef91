"""What the figures were measured on; no names of machines or people."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

from benchmarks.side import ROOT
from longtail.device import _cpu_flags, describe, resolve_precision


def facts() -> Callable[[], dict[str, Any]]:
    """A target: processor, memory, devices and versions."""
    cpu = torch.device("cpu")
    known = _cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    found = {
        "cpu": describe(cpu),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "cpu_flags": sorted(known),
        "precision": resolve_precision("auto", cpu),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "numpy", "snakemake")},
    }
    return lambda: found


def commit() -> str | None:
    """The commit of the measured code; None outside git."""
    if not shutil.which("git"):
        return None
    git = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
