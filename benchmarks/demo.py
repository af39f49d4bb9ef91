"""`make demo` in a copy of the project: from nothing to its page, and the same command a second time."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.rows import Goal, Row, compared
from benchmarks.side import ROOT, Sample, Side
from benchmarks.workflow import project
from longtail.runs.store import write_json
from longtail.settings.reading import parse

PART = "demo"
SETTINGS = "workflow/settings/demo.yaml"
SMALL = "small.yaml"  # JSON, which is YAML too
TIMES = ("first time", "second time")


def small() -> dict[str, Any]:
    """The demo's settings with one seed, and an epoch in place of 40."""
    settings = parse((ROOT / SETTINGS).read_text("utf-8"))
    settings["training"]["schedule"]["epochs"] = 1
    settings["training"]["learning_rate"]["warmup"] = 0
    settings["training"]["evaluate_every"] = 1
    settings["stage_two"]["afg"] = {"generation_epochs": 1}
    return {**settings, "seeds": [0], "features": {"views": 1}}


def measured(quick: bool) -> list[Sample]:
    """The command in a fresh copy of the project, twice."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder)
        if quick:
            write_json(folder / SMALL, small())
        words = [sys.executable, "-m", "snakemake", "--cores", "all"]
        words += ["--config", f"params={SMALL if quick else SETTINGS}"]
        with Side("benchmarks.side:command", {}, {"words": words, "folder": name}) as side:
            return [side.measure() for _ in TIMES]


def rows(quick: bool) -> list[Row]:
    """The part's figures."""
    return figures([measured(quick) for _ in range(1 if quick else 3)])


def figures(rounds: Sequence[Sequence[Sample]]) -> list[Row]:
    """Rows of the first and the second time of each round, on the clock and in processor seconds."""
    found = []
    goals = (Goal("ours", 60, 40), Goal("ours", 3, 1.5))
    for when, goal, samples in zip(TIMES, goals, zip(*rounds, strict=True), strict=True):
        load = median(sample.load for sample in samples)
        memory = max(sample.peak_mb for sample in samples)
        clock = Row(
            PART,
            f"{when}, all cores, on the clock",
            "s",
            goal=goal,
            clock="wall",
            load=load,
            peak_mb=memory,
            note="the environment is there; peak of one process",
        )
        work = Row(PART, f"{when}, processor seconds of all processes", "s", load=load, peak_mb=memory)
        found += [
            compared(clock, [sample.wall for sample in samples]),
            compared(work, [sample.cpu for sample in samples]),
        ]
    return found
