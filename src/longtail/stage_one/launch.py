"""One training in several processes: torchrun starts them, and again from the checkpoint where one has died.

On one machine; or under Slurm on all nodes of the job, which then share a file system. Of the latter only the
meeting of two torchruns was tried, on one machine.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from longtail.device import threads
from longtail.errors import UserError
from longtail.runs.job import Job
from longtail.settings.recipe import StageOneSettings

COMPUTES = False  # how many processes share a training changes nothing of it
RESTARTS = 3  # of all processes, after one has died


PORT = 29_400  # and up to a thousand more, by the number of the Slurm job


def processes(settings: StageOneSettings) -> int:
    """How many processes are to train a run on each node: as many as it may use and has devices for.

    They share the shards of a batch equally, so their number on all nodes divides that of the shards. Without
    a GPU there are as many as `devices` says.
    """
    import torch

    machines = nodes(settings)
    wanted = settings.recipe.devices // machines
    if torch.cuda.is_available():
        wanted = min(wanted, torch.cuda.device_count())
    shards = settings.recipe.shards // machines
    return max((number for number in range(1, wanted + 1) if shards % number == 0), default=1)


def nodes(settings: StageOneSettings) -> int:
    """On how many nodes of a Slurm job a run is trained: on all where they can share the shards, else one."""
    given = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    recipe = settings.recipe
    return given if recipe.devices >= given and recipe.shards % given == 0 else 1


def command(number: int, machines: int, file: Path, environment: Mapping[str, str]) -> list[str]:
    """What starts the processes of a run, `number` on each of so many nodes of a Slurm job."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(number)]
    torchrun += ["--max-restarts", str(RESTARTS)]
    rank = ["-m", "longtail.stage_one.process", str(file)]
    if machines == 1:
        return [*torchrun, "--standalone", *rank]
    job = environment["SLURM_JOB_ID"]
    names = ["scontrol", "show", "hostnames", environment["SLURM_JOB_NODELIST"]]
    first = subprocess.run(names, capture_output=True, text=True, check=True).stdout.split()[0]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-id", job]
    meeting += ["--rdzv-endpoint", f"{first}:{PORT + int(job) % 1000}"]
    # The job's own step holds its cores and devices already.
    srun = ["srun", "--overlap", "--ntasks-per-node=1"]
    return [*srun, *torchrun, "--nnodes", str(machines), *meeting, *rank]


def launch(job: Job, number: int) -> None:
    """Train a run in several processes, and wait for them.

    Raises:
        UserError: what a process has said of a mistake, or that they died too often.
    """
    file, said, facts = (job.scratch / name for name in ("process.json", "error.txt", "facts.json"))
    for left in (said, facts):
        left.unlink(missing_ok=True)
    told = {
        "step": job.step,
        "run": job.run,
        "settings": job.settings.resolved(),
        "inputs": {step: str(folder.resolve()) for step, folder in job.inputs.items()},
        "folder": str(job.folder.resolve()),
        "scratch": str(job.scratch.resolve()),
        "pictures": str(job.pictures.resolve()) if job.pictures else None,
    }
    file.write_text(json.dumps(told), "utf-8")
    # The threads that Snakemake gave the rule are shared out: results depend on those of a process.
    share = str(max(1, threads() // number))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": share,
        "MKL_NUM_THREADS": share,
        # Where processes that start again meet in the store of those before, they call at addresses of these
        # (pytorch issue 135712): each time a store of its own.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    start = command(number, nodes(job.settings), file.resolve(), os.environ)
    done = subprocess.Popen(start, env=environment, preexec_fn=die_with_parent).wait()
    if said.is_file():
        raise UserError(said.read_text("utf-8"))
    if done or not facts.is_file():
        raise UserError(
            f"{job.run}: its {number} processes did not come to an end (exit status {done}); what they said "
            "stands above, and the same command goes on from the last checkpoint"
        )
    job.facts.update(json.loads(facts.read_text("utf-8")))


def die_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """Ask the kernel for a signal once the parent is dead: of a killed run no process trains on."""
    PR_SET_PDEATHSIG = 1  # noqa: N806 - the kernel's name
    if sys.platform == "linux":  # elsewhere torchrun ends its processes when it is told to end
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, with_signal)
