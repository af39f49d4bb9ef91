"""`longtail plan`: the runs of a settings file, what exists and what is to do."""

from pathlib import Path

from longtail.orchestration.plan import Plan
from longtail.orchestration.planner import plan
from longtail.orchestration.run import Run
from longtail.publish.published_record import is_current
from longtail.runs.steps import STEPS
from longtail.runs.store import scratch, stored
from longtail.settings.params import Params


def state(run: Run) -> str:
    """Whether a run is in its folder, in the store, begun, or still to do; looks, but does not verify."""
    if Path(run.record).is_file():
        return "done"
    if (stored(run.step, run.name) / "run.json").is_file():
        return "stored"
    if any(scratch(run.step, run.name).glob("checkpoint*")):
        return "begun"
    return "to do"


def show(params: str) -> None:
    """Plan, write the plan for the commands, and print it."""
    planned = plan(Params.load(params), params)
    planned.write()
    for step in STEPS:
        runs = planned.runs(step)
        states = {name: state(run) for name, run in runs.items()}
        counts = [f"{list(states.values()).count(word)} {word}" for word in dict.fromkeys(states.values())]
        print(f"\n{step}: {len(runs)} ({', '.join(counts) or 'none'})")
        for name, word in states.items():
            print(f"  {word:7} {name}")
    _show_published(planned)


def _show_published(planned: Plan) -> None:
    print("\npublished:")
    for item in planned.published():
        current = is_current(item.record, item.identity, item.outputs)
        print(f"  {'current' if current else 'to do':7} {item.outputs[0]}  (identity {item.identity[:16]})")
