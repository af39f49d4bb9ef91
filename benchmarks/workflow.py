"""The plan of ten thousand runs, and Snakemake's dry run of it, in a copy of the project. No peer has one."""

import math
import shutil
import sys
import tempfile
from contextlib import chdir
from hashlib import sha256
from pathlib import Path
from statistics import median

import yaml

from benchmarks.rows import Goal, Row, compared
from benchmarks.side import ROOT, Sample, Side
from longtail.orchestration.planner import plan
from longtail.publish.published_record import digests_of
from longtail.runs.store import write_json, write_text
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
DRY = [sys.executable, "-m", "snakemake", "-n", "--config", "params=many.yaml"]
EDIT = ("  afg:\n", "alpha: 0.0", "alpha: 0.01")  # of one classifier, on which its variants are built


def project(folder: Path) -> None:
    """A copy of what plans and runs."""
    for name in ("src", "workflow", "profiles"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("Snakefile", "params.yaml"):
        shutil.copy2(ROOT / name, folder / name)


def many(folder: Path, runs: int) -> None:
    """A settings file: params.yaml under so many seeds that there are `runs`."""
    settings = parse((ROOT / "params.yaml").read_text("utf-8"))

    def planned(seeds: int) -> int:
        chosen = Params.read(settings | {"seeds": list(range(seeds))})
        return len(list(plan(chosen, root=ROOT).everything()))

    one, two = planned(1), planned(2)
    seeds = 1 + max(0, math.ceil((runs - one) / (two - one)))
    text = yaml.safe_dump(settings | {"seeds": list(range(seeds))}, sort_keys=False)
    (folder / "many.yaml").write_text(text, "utf-8")


def cold(side: Side, folder: Path) -> Sample:
    """Measure without what the plan and Snakemake wrote before, as in a fresh clone."""
    for name in (".longtail", ".snakemake"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return side.measure()


def finish(folder: Path) -> None:
    """Put in place what stands there once all is finished: as many files of each run as one has, empty."""
    with chdir(folder):
        made = plan(Params.load("many.yaml"), "many.yaml")
        nothing = dict.fromkeys(("a", "b", "c", "d"), sha256().hexdigest())
        for run in made.everything():
            for name in nothing:
                write_text(prepared(f"{run.folder}/{name}"), "")
            write_json(Path(run.record), {"identity": run.identity, "outputs": nothing})
        for item in made.published():
            for name in item.outputs:
                write_text(prepared(name), "")
        for item in made.published():
            outputs = {Path(name).name: sha256().hexdigest() for name in item.outputs}
            read = digests_of(item.planned)
            write_json(Path(item.record), {"identity": item.identity, "outputs": outputs, "read": read})


def prepared(name: str) -> Path:
    """A path whose folder is there."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def edit(folder: Path) -> None:
    """Change one number of the settings."""
    file = folder / "many.yaml"
    before, block, after = file.read_text("utf-8").partition(EDIT[0])
    if EDIT[1] not in after:
        raise ValueError(f"params.yaml: {block.strip()} has no {EDIT[1]}, which the benchmark changes")
    file.write_text(before + block + after.replace(EDIT[1], EDIT[2], 1), "utf-8")


def rows(quick: bool) -> list[Row]:
    """The part's figures."""
    rounds, runs = (1, 200) if quick else (3, RUNS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder)
        many(folder, runs)
        environment = {"PYTHONPATH": str(folder / "src")}
        planning = {"words": [sys.executable, "-c", PLAN], "folder": name}
        with Side("benchmarks.side:command", environment, planning) as side:
            planned = [side.measure() for _ in range(rounds)]
        number = int((folder / "number").read_text())
        with Side("benchmarks.side:command", {}, {"words": DRY, "folder": name}) as side:
            first = [cold(side, folder) for _ in range(rounds)]
            again = [side.measure() for _ in range(rounds)]
            finish(folder)
            edit(folder)
            edited = [side.measure() for _ in range(rounds)]

    def row(what: str, samples: list[Sample], goal: Goal, note: str = "") -> Row:
        made = Row(
            PART,
            f"{number:,} runs: {what}",
            "s",
            goal=goal,
            note=note,
            load=median(sample.load for sample in samples),
            peak_mb=max(sample.peak_mb for sample in samples),
        )
        return compared(made, [sample.cpu for sample in samples])

    return [
        row("plan", planned, Goal("ours", 1.5, 0.5), "Python's start included"),
        row("snakemake -n, first", first, Goal("ours", 30, 15), "nothing is there before; writes the plan"),
        row("snakemake -n, again", again, Goal("ours", 30, 15)),
        row(
            "snakemake -n, all finished but for one edited number of AFG",
            edited,
            Goal("ours", 8, 4),
            "what depends on the number is to be made",
        ),
    ]
