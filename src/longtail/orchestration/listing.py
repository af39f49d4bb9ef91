"""`longtail plan`: what a settings file needs, what exists, what is to do and what that will cost."""

from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path

from longtail.errors import UserError
from longtail.orchestration.estimates import Cost, Estimates, finished_records
from longtail.orchestration.plan import Plan
from longtail.orchestration.planner import plan
from longtail.orchestration.run import Run
from longtail.publish.published_record import is_current
from longtail.runs.steps import STEPS
from longtail.runs.store import home, record, scratch, stored
from longtail.settings.params import Params

FINISHED = ("done", "stored")
Kept = dict[tuple[str, str], list[Path]]  # folders of the store by step and the end of their names


def kept() -> Kept:
    """What the store has, so that a run is found under the label of another entry too."""
    found: Kept = defaultdict(list)
    for step in STEPS:
        for folder in (home(Path.cwd()) / "store" / step).glob("[!.]*"):
            found[step, folder.name[-8:]].append(folder)
    return found


def state(run: Run, store: Kept) -> str:
    """Whether a run is in its folder, in the store, begun, or still to do; looks, but does not verify."""
    if Path(run.record).is_file():
        return "done"
    if (stored(run.step, run.name) / "run.json").is_file():
        return "stored"
    for folder in store.get((run.step, run.identity[:8]), ()):
        with suppress(UserError, OSError):
            if record(folder)["identity"] == run.identity:
                return "stored"
    if any(scratch(run.step, run.name).glob("checkpoint*")):
        return "begun"
    return "to do"


def show(params: str, everything: bool = False) -> None:
    """Plan, write the plan for the commands, and print a summary, then what is missing.

    Args:
        params: the settings file.
        everything: whether every run is listed, finished ones too.
    """
    planned = plan(Params.load(params), params)
    planned.write()
    store = kept()
    states = {run: state(run, store) for run in planned.everything()}
    _show_summary(planned, states)
    for step in STEPS:
        listed = [run for run in planned.runs(step).values() if everything or states[run] not in FINISHED]
        if listed:
            print(f"\n{step}:")
        for run in listed:
            print(f"  {states[run]:7} {run.name}")
    _show_published(planned, everything)


def _show_summary(planned: Plan, states: dict[Run, str]) -> None:
    missing = [run for run in states if states[run] not in FINISHED]
    estimates = Estimates(finished_records()) if missing else Estimates([])
    print(f"{'step':10} {'runs':>7} {'finished':>9} {'to do':>7}   estimated cost of the missing runs")
    total = Cost()
    for step in STEPS:
        runs = planned.runs(step).values()
        to_do = [run for run in runs if states[run] not in FINISHED]
        cost = sum((estimates.of(run) for run in to_do), start=Cost())
        total += cost
        line = f"{step:10} {len(runs):7,} {len(runs) - len(to_do):9,} {len(to_do):7,}"
        print(f"{line}   {cost_in_words(cost)}".rstrip())
    line = f"{'all':10} {len(states):7,} {len(states) - len(missing):9,} {len(missing):7,}"
    print(f"{line}   {cost_in_words(total)}".rstrip())
    if begun := Counter(states.values())["begun"]:
        print(f"{begun:,} of these {'has' if begun == 1 else 'have'} a checkpoint to go on from")


def cost_in_words(cost: Cost) -> str:
    """E.g. "3.2 core-hours, 1.4 GB; no estimate for 2 runs (...)"; nothing for no run."""
    parts = []
    for seconds, what in ((cost.cpu_seconds, "core"), (cost.gpu_seconds, "GPU")):
        if seconds:
            parts.append(f"{_hours(seconds)} {what}-hours")
    if cost.known:
        parts.append(_bytes(cost.disk))
    said = [", ".join(parts)] if parts else []
    if cost.unknown:
        runs = "1 run" if cost.unknown == 1 else f"{cost.unknown:,} runs"
        said.append(f"no estimate for {runs} (none of this kind is finished)")
    return "; ".join(said)


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else f"{hours:.2g}"


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _show_published(planned: Plan, everything: bool) -> None:
    items = [(item, is_current(item.record, item.identity, item.outputs)) for item in planned.published()]
    listed = [(item, current) for item, current in items if everything or not current]
    counts = f"{sum(current for _, current in items)} of {len(items)} current"
    print(f"\npublished: {counts}")
    for item, current in listed:
        print(f"  {'current' if current else 'to do':7} {item.outputs[0]}  (identity {item.identity[:16]})")
