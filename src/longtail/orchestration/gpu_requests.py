"""What jobs ask Snakemake for: GPUs where there are some, so that without any the cores alone count."""

import sys
from collections.abc import Iterable
from typing import Any

from longtail.errors import UserError
from longtail.orchestration.run import Run
from longtail.runs import gpus


def asked(run: Run, here: bool) -> int:
    """GPUs that the job of a run asks for: no more than this machine has, if it is computed here.

    Args:
        run: of any step.
        here: whether this process starts the job itself. A batch system gives what a run can use.
    """
    return min(run.gpus, len(gpus.usable())) if here and run.gpus else run.gpus


def check_gpus(jobs: Iterable[Any]) -> None:
    """Say which GPUs no job of this invocation will be given, and why.

    Raises:
        UserError: if jobs would compute on the CPU because of nothing but an old driver.
    """
    rules = {job.rule.name for job in jobs}
    if not rules & {"stage_one", "features"}:
        return
    if reason := gpus.refusal():
        raise UserError(reason)
    for line in gpus.left_alone():
        print(line, file=sys.stderr, flush=True)
