"""Leases of GPUs, so that two runs never share one, and how many runs share the one that a job has."""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from longtail.errors import UserError
from longtail.runs import gpus

POLL_SECONDS = 0.5  # between two looks for a free GPU
CONTEXT_MB = 1000  # of a GPU, that CUDA and its libraries take in a process
LOCKS = "LONGTAIL_LOCKS"  # another folder of lock files, e.g. one that containers share
ALLOCATION = "LONGTAIL_ALLOCATION"  # the Slurm job in which Snakemake itself runs


def runs_at_once(missing: int, leased: str, each_mb: int, devices: int) -> int:
    """How many of the missing runs of stage one a job may train side by side on the GPU that it has leased.

    Their networks are too small to fill one: up to LONGTAIL_RUNS_PER_GPU (8), no more than leave as many to
    every other GPU, and no more than its memory holds. One in a Slurm job of its own, whose time is that of
    one run.

    Args:
        missing: the job's own run and others that are wanted.
        leased: names of devices.
        each_mb: memory of a GPU that a run is expected to take.
        devices: that could be leased; within a lease only its own can be seen.

    Raises:
        UserError: if LONGTAIL_RUNS_PER_GPU is no number of at least 1.
    """
    given = os.environ.get("LONGTAIL_RUNS_PER_GPU", "8")
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"LONGTAIL_RUNS_PER_GPU={given}: should be a number of runs; 1 trains each alone")
    if os.environ.get("SLURM_JOB_ID", "") != os.environ.get(ALLOCATION, ""):
        return 1
    number = min(int(given), -(-missing // max(1, devices)))
    if number > 1 and (free := gpus.free_mb(leased.split(","))) is not None:
        number = min(number, (free - CONTEXT_MB) // each_mb)
    return max(1, number)


@contextmanager
def lease(devices: Sequence[str] | None = None, count: int = 1) -> Iterator[str | None]:
    """Hold free GPUs for the length of the block, so that two runs never share one.

    Takes the first devices whose lock files are free, waits while there are too few, and sets
    CUDA_VISIBLE_DEVICES to them; must come before torch touches CUDA. The kernel frees the locks when the
    process dies, however it dies. Runs of one Slurm job share out the devices of that job. Where a run is to
    have none, or torch can use none of those that are there, CUDA sees none.

    Args:
        devices: names as CUDA_VISIBLE_DEVICES takes them; by default the ones that can be used.
        count: how many; all where there are fewer, and none for 0.

    Yields:
        The devices' names, with commas between them, or None where nothing was leased.

    Raises:
        UserError: if a GPU is there, and a newer driver is all that is missing to use it.
    """
    if devices is None:
        if count and (reason := gpus.refusal()):
            raise UserError(reason)
        names = [device.name for device in gpus.usable()]
    else:
        names = list(devices)
    if not names or not count:
        with _shown("") if names or gpus.installed() else nullcontext():
            yield None
        return
    locks = _wait_for(min(count, len(names)), names, _lock_folder())
    name = ",".join(locks)
    try:
        with _shown(name):
            yield name
    finally:
        for lock in locks.values():
            lock.release()


def check(leased: str) -> None:
    """Make sure that torch can use the devices that were leased; imports it.

    Raises:
        UserError: if it cannot, with the driver and what helps.
    """
    import torch

    version, cuda = gpus.torch_cuda()
    if not torch.cuda.is_available():
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            reason = "it finds none"
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200].rstrip(".")
        needs = f"torch {version} needs driver {gpus.DRIVERS.get(int((cuda or '13').split('.')[0]), 580)}"
        container = "in a container, start it with --gpus all or --nv"
        raise UserError(
            f"GPU {leased}: torch cannot use it ({reason}); {needs}; {container}; {gpus.ON_THE_CPU}"
        )
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        if not _runs_on(capability, torch.cuda.get_arch_list()):
            card = f"{torch.cuda.get_device_name(index)} (compute capability {capability[0]}.{capability[1]})"
            raise UserError(f"GPU {card}: torch {version} has no code for it; {gpus.ON_THE_CPU}")


def _runs_on(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Whether a card runs one of torch's builds: that of its generation, or what a driver can translate."""
    for target in built_for:
        if found := re.match(r"(sm|compute)_(\d+)(\d)", target):
            of = (int(found[2]), int(found[3]))
            if of <= capability and (found[1] == "compute" or of[0] == capability[0]):
                return True
    return not built_for


@contextmanager
def _shown(names: str) -> Iterator[None]:
    """Let CUDA see some devices; none for an empty string."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = names
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _wait_for(count: int, names: list[str], folder: Path) -> dict[str, FileLock]:
    """Lock the first free devices; their names and locks. None is held while too few are free."""
    said = False
    while True:
        held: dict[str, FileLock] = {}
        for name in names:
            lock = FileLock(folder / _lock_name(name), mode=0o600)
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


def _lock_name(device: str) -> str:
    """The lock file of a device.

    Slurm decides which of its jobs share one, and an index is a job step's own.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID", "")
    parts = [*(["slurm", job] if job else []), *([step] if job and device.isdigit() else []), device]
    return re.sub(r"[^\w.-]", "_", "-".join(parts))


def _lock_folder() -> Path:
    """The folder of lock files, private to the user, and the same from every login, cron job and shell.

    Raises:
        UserError: if it cannot be used.
    """
    folder = Path(os.environ.get(LOCKS) or f"/tmp/longtail-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; set {LOCKS} to a folder of yours") from None
    if owner != os.getuid():
        raise UserError(f"{folder}: belongs to another user; set {LOCKS} to a folder of yours")
    return folder
