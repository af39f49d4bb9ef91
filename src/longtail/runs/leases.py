"""Leases of GPUs, so that two runs never share one, and how many runs share the one that a job has."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from longtail.errors import UserError

POLL_SECONDS = 0.5  # between two looks for a free GPU


def runs_at_once(missing: int) -> int:
    """How many of the missing runs of stage one a job may train side by side on the GPU that it will lease.

    Their networks are too small to fill one: up to LONGTAIL_RUNS_PER_GPU (8), and no more than leave as many
    to every other GPU. One on a CPU, and under Slurm, which gave each job a time of its own.

    Raises:
        UserError: if LONGTAIL_RUNS_PER_GPU is no number of at least 1.
    """
    given = os.environ.get("LONGTAIL_RUNS_PER_GPU", "8")
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"LONGTAIL_RUNS_PER_GPU={given}: should be a number of runs; 1 trains each alone")
    if "SLURM_JOB_ID" in os.environ or not (devices := _visible_devices()):
        return 1
    return min(int(given), -(-missing // len(devices)))


@contextmanager
def lease(devices: Sequence[str] | None = None, count: int = 1) -> Iterator[str | None]:
    """Hold free GPUs for the length of the block, so that two runs never share one.

    Takes the first devices whose lock files are free, waits while there are too few, and sets
    CUDA_VISIBLE_DEVICES to them; must come before torch touches CUDA. The kernel frees the locks when the
    process dies, however it dies. Without a GPU, and under Slurm, which has given the job its own, it
    does nothing.

    Args:
        devices: names as CUDA_VISIBLE_DEVICES takes them; by default the ones that the user may see.
        count: how many; all where there are fewer.

    Yields:
        The devices' names, with commas between them, or None where nothing was leased.
    """
    if "SLURM_JOB_ID" in os.environ:
        yield None
        return
    names = _visible_devices() if devices is None else list(devices)
    if not names:
        yield None
        return
    locks = _wait_for(min(count, len(names)), names, _lock_folder())
    name = ",".join(locks)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = name
    try:
        yield name
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        for lock in locks.values():
            lock.release()


def _wait_for(count: int, names: list[str], folder: Path) -> dict[str, FileLock]:
    """Lock the first free devices; their names and locks. None is held while too few are free."""
    said = False
    while True:
        held: dict[str, FileLock] = {}
        for name in names:
            lock = FileLock(folder / re.sub(r"[^\w.-]", "_", name), mode=0o600)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                held[name] = lock
            if len(held) == count:
                return held
        for lock in held.values():
            lock.release()
        if not said:
            print(f"waiting for a free GPU ({len(names)} in use)", file=sys.stderr, flush=True)
            said = True
        time.sleep(POLL_SECONDS)


def _lock_folder() -> Path:
    """The folder of lock files, private to the user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime, "longtail") if runtime else Path(f"/tmp/longtail-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; set XDG_RUNTIME_DIR to a folder of yours")
    return folder


def _visible_devices() -> list[str]:
    """The GPUs that the user may use, by their UUID where nvidia-smi tells it; none without a GPU.

    An index in CUDA_VISIBLE_DEVICES is taken in nvidia-smi's order. One name for one GPU matters: index
    and UUID of the same one must meet at the same lock.
    """
    installed = _installed_devices()
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return [part for parts in installed for part in parts]
    if not installed and not Path("/dev/nvidia0").exists():
        return []
    names: list[str] = []
    for entry in (item.strip() for item in wanted.split(",")):
        if entry.isdigit() and installed:
            if int(entry) >= len(installed):
                break  # as CUDA reads it: what follows an impossible entry is invisible
            names.extend(installed[int(entry)])
        elif entry and not entry.startswith("-"):
            names.append(entry)
        else:
            break
    return names


def _installed_devices() -> list[list[str]]:
    """UUIDs by GPU: its own, or those of its MIG slices where it is cut into slices."""
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return parse_listing(listing.stdout) if listing.returncode == 0 else []


def parse_listing(text: str) -> list[list[str]]:
    """What `nvidia-smi -L` prints as UUIDs by GPU, those of the MIG slices where there are any."""
    gpus: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if (found := re.search(r"\(UUID: ([^)]+)\)", line)) is None:
            continue
        if line.startswith("GPU"):
            gpus.append((found[1], []))
        elif gpus:
            gpus[-1][1].append(found[1])
    return [slices or [uuid] for uuid, slices in gpus]
