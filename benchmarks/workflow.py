"""The plan of ten thousand runs, and Snakemake's dry run of it, in a copy of the project. No peer has one."""

import math
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

import yaml

from benchmarks.rows import Goal, Row, compared
from benchmarks.side import ROOT, Side
from longtail.orchestration.planner import plan
from longtail.settings.params import Params
from longtail.settings.reading import parse

PART = "workflow"
RUNS = 10_000
PLAN = """\
import sys
from longtail.orchestration.planner import plan
from longtail.settings.params import Params
planned = plan(Params.load("many.yaml"), "many.yaml")
print(len(list(planned.everything())), file=open("number", "w"))
"""


def project(folder: Path, runs: int) -> None:
    """A copy of what plans and runs, with params.yaml under so many seeds that there are `runs`."""
    for name in ("src", "workflow", "profiles"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("Snakefile", "params.yaml"):
        shutil.copy2(ROOT / name, folder / name)
    settings = parse((ROOT / "params.yaml").read_text("utf-8"))

    def planned(seeds: int) -> int:
        chosen = Params.read(settings | {"seeds": list(range(seeds))})
        return len(list(plan(chosen, root=ROOT).everything()))

    one, two = planned(1), planned(2)
    seeds = 1 + max(0, math.ceil((runs - one) / (two - one)))
    text = yaml.safe_dump(settings | {"seeds": list(range(seeds))}, sort_keys=False)
    (folder / "many.yaml").write_text(text, "utf-8")


def rows(quick: bool) -> list[Row]:
    """The part's figures."""
    rounds, runs = (1, 200) if quick else (3, RUNS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder, runs)
        environment = {"PYTHONPATH": str(folder / "src")}
        planning = {"words": [sys.executable, "-c", PLAN], "folder": name}
        with Side("benchmarks.side:command", environment, planning) as side:
            planned = [side.measure() for _ in range(rounds)]
        number = int((folder / "number").read_text())
        dry = [sys.executable, "-m", "snakemake", "-n", "--config", "params=many.yaml"]
        with Side("benchmarks.side:command", {}, {"words": dry, "folder": name}) as side:
            first, *again = [side.measure() for _ in range(2 if quick else 3)]

    def row(what: str, samples: list[float], goal: Goal | None, load: float, memory: float, note: str) -> Row:
        made = Row(PART, f"{number:,} runs: {what}", "s", goal=goal, load=load, peak_mb=memory, note=note)
        return compared(made, samples)

    load, memory = median(s.load for s in planned), max(s.peak_mb for s in planned)
    later = [s.cpu for s in again]
    return [
        row("plan", [s.cpu for s in planned], Goal("ours", 2, 0.5), load, memory, "Python's start included"),
        row(
            "snakemake -n, first",
            [first.cpu],
            Goal("ours", 30, 15),
            first.load,
            first.peak_mb,
            "writes the plan",
        ),
        row("snakemake -n, again", later, Goal("ours", 30, 15), again[0].load, again[0].peak_mb, ""),
    ]
