"""One process of a training that several share; torchrun runs `python -m longtail.stage_one.process FILE`."""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from longtail.errors import LONE_IMAGE, UserError, foreseen
from longtail.runs.job import Job
from longtail.settings.recipe import StageOneSettings
from longtail.stage_one.launch import die_with_parent

COMPUTES = False
PATIENCE = 30.0  # seconds until the processes have to know each other; with GPUs four times as many


def main(file: str) -> None:
    """Train as one process of several."""
    import torch
    import torch.distributed as dist

    from longtail.stage_one.training import train_together

    die_with_parent(signal.SIGKILL)
    told: dict[str, Any] = json.loads(Path(file).read_text("utf-8"))
    scratch = Path(told["scratch"])
    said = scratch / "error.txt"
    if said.is_file():  # a mistake stays one, however often they start
        sys.exit(1)
    # Seen once after a restart: gloo waits for ever for a connection. torchrun starts anew what ends instead.
    patience = threading.Timer(PATIENCE * (4 if torch.cuda.is_available() else 1), os._exit, (1,))
    patience.daemon = True
    patience.start()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    patience.cancel()
    job = Job(
        step=told["step"],
        run=told["run"],
        settings=StageOneSettings.model_validate(told["settings"]),
        inputs={step: Path(folder) for step, folder in told["inputs"].items()},
        folder=Path(told["folder"]),
        scratch=scratch,
        pictures=Path(told["pictures"]) if told["pictures"] else None,
    )
    try:
        with foreseen():
            train_together(job)
    except (UserError, torch.OutOfMemoryError, ValueError) as error:
        if isinstance(error, ValueError) and LONE_IMAGE not in str(error):
            raise
        said.write_text(str(error), "utf-8")
        sys.exit(1)
    if dist.get_rank() == 0:
        (scratch / "facts.json").write_text(json.dumps(job.facts), "utf-8")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
