# The plan of all runs (PLAN) from the settings. A wrong setting ends here: one line, exit code 2.
import gc
import os
import sys
from pathlib import Path

# This work tree's code, not an installed one; and the commands of this environment.
sys.path.insert(0, str(Path(workflow.basedir) / "src"))
os.environ.update(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.getenv('PATH')}")

from longtail.data.catalogue import current
from longtail.device import COMPUTING
from longtail.errors import UserError, foreseen
from longtail.orchestration.batching import want
from longtail.orchestration.finished import Missing
from longtail.orchestration.gpu_requests import asked, check_gpus
from longtail.orchestration.pipeline import remind
from longtail.orchestration.planner import plan
from longtail.orchestration.snakemake_records import mend
from longtail.orchestration.snapshot import settings
from longtail.orchestration.stamp import stamp

# A graph of jobs is millions of objects that stay; looking through them less often saves a twentieth.
gc.set_threshold(100_000, 20, 100)

SETTINGS = config.get("params", "params.yaml")
try:
    with foreseen():
        PARAMS = settings(SETTINGS, workflow.is_main_process)
        if workflow.is_main_process:
            current(PARAMS.dataset, PARAMS.data, SETTINGS)
        PLAN = plan(PARAMS, SETTINGS)
        CURRENT = None
        if workflow.is_main_process:
            PLAN.write()
            CURRENT = stamp(PLAN)
            mend()
            remind(PARAMS, PLAN)
        MISSING = Missing(PLAN, CURRENT, sys.argv[1:])
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(2)

if workflow.is_main_process:
    # What jobs compute with; without it each would start a second time to have it.
    os.environ.update({**COMPUTING, **os.environ})


onstart:
    if workflow.is_main_process:
        try:
            with foreseen():
                want(PLAN, workflow.dag.needrun_jobs())
                if workflow.local_exec:
                    check_gpus(workflow.dag.needrun_jobs())
        except UserError as error:
            print(error, file=sys.stderr)
            sys.exit(2)


def gpus(run):
    return asked(run, here=workflow.is_main_process and workflow.local_exec)


pathvars:
    results=PLAN.results,
    splits=PLAN.splits,
    tables=PLAN.tables_in,


# What is finished matches no rule: it is a file like any other, for which no job has to be thought of.
wildcard_constraints:
    run=MISSING.runs,
    table=MISSING.published(PLAN.tables.values()),
    figure=MISSING.published(PLAN.figures.values()),
    model=MISSING.published(PLAN.models.values()),
