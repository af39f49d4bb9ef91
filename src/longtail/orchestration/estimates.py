"""What a plan will still cost, by what finished runs like its own have cost on this store's machines.

A run is like another in steps: first the same settings that decide its cost on the same split, then on any
split, and so on; the median of the first kind that has been computed counts. What has no like is said to be
unknown, never guessed.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from longtail.errors import UserError
from longtail.orchestration.run import Run
from longtail.runs import store
from longtail.runs.identity import canonical

Kind = tuple[str, ...]


class Cost(NamedTuple):
    """Of one run or several."""

    cpu_seconds: float = 0.0  # computed on processors
    gpu_seconds: float = 0.0  # computed on GPUs
    disk: float = 0.0  # bytes
    known: int = 0  # runs
    unknown: int = 0  # runs

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(
            self.cpu_seconds + other.cpu_seconds,
            self.gpu_seconds + other.gpu_seconds,
            self.disk + other.disk,
            self.known + other.known,
            self.unknown + other.unknown,
        )


class _Measured(NamedTuple):
    """What a finished run took: of a training also by the epoch and by the step."""

    seconds: float
    an_epoch: float
    a_step: float
    disk: float
    gpu: float  # 1 on GPUs, 0 on processors

    @classmethod
    def of(cls, record: Mapping[str, Any], disk: int) -> "_Measured":
        facts = record["facts"]
        seconds = float(record["seconds"]) / facts.get("runs_at_once", 1)  # of a GPU that they shared
        epochs, steps = facts.get("epochs") or 1, facts.get("steps") or 1
        on_gpu = "NVIDIA" in str(facts.get("device", ""))
        return cls(seconds, seconds / epochs, seconds / steps, float(disk), float(on_gpu))

    def seconds_of(self, settings: Mapping[str, Any]) -> float:
        """Of a training with other epochs or steps."""
        recipe = settings["recipe"]
        if "schedule" not in recipe:  # a trunk as it was published
            return self.seconds
        schedule = (recipe["then"] or [recipe])[-1]["schedule"]
        epochs, steps = schedule.get("epochs"), schedule.get("iterations")
        return self.an_epoch * float(epochs) if epochs is not None else self.a_step * float(steps)


class Estimates:
    """Medians of finished runs.

    Args:
        finished: records of finished runs, with the bytes of their outputs.
    """

    def __init__(self, finished: Iterable[tuple[Mapping[str, Any], int]]) -> None:
        found: dict[Kind, list[_Measured]] = defaultdict(list)
        for record, disk in finished:
            with suppress(KeyError, TypeError, AttributeError, ValueError):
                measured = _Measured.of(record, disk)
                for kind in _kinds(record["step"], record["settings"], record["inputs"].get("split", "")):
                    found[kind].append(measured)
        self._medians = {
            kind: _Measured(*(median(column) for column in zip(*values, strict=True)))
            for kind, values in found.items()
        }

    def of(self, run: Run) -> Cost:
        """What a run will cost."""
        split = next((item.identity for item in run.inputs if item.step == "split"), "")
        settings = run.settings.resolved()
        for kind in _kinds(run.step, settings, split):
            if kind in self._medians:
                like = self._medians[kind]
                seconds = like.seconds_of(settings) if run.step == "stage_one" else like.seconds
                on_gpu = like.gpu > 0.5
                return Cost(0.0 if on_gpu else seconds, seconds if on_gpu else 0.0, like.disk, 1, 0)
        return Cost(unknown=1)


def finished_records() -> Iterator[tuple[dict[str, Any], int]]:
    """Every record of the store, and the bytes of the run's files."""
    for file in (store.home(Path.cwd()) / "store").glob("*/*/run.json"):
        with suppress(UserError, OSError):
            yield store.record(file.parent), sum(entry.stat().st_size for entry in _files(file.parent))


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        else:
            yield entry


def _kinds(step: str, settings: Mapping[str, Any], split: str) -> list[Kind]:
    """Of what kinds a run is, the narrowest first."""
    if step == "stage_one":
        recipe = settings["recipe"]
        if "schedule" not in recipe:  # a trunk as it was published
            return [(step, canonical(recipe["network"]))]
        shared = canonical([settings["dataset"], settings["images"], recipe["network"], recipe["freeze"]])
        own = canonical([recipe["batch_size"], recipe["augmentation"], len(recipe["then"])])
        return [(step, shared, own, split), (step, shared, split), (step, shared)]
    if step == "features":
        shared = canonical([settings["dataset"], settings["images"], settings["network"]])
        return [(step, shared, str(settings["views"]), split), (step, shared, str(settings["views"]))]
    if step == "stage_two":
        method = settings["method"]
        return [(step, canonical(method), split), (step, method["name"], split), (step, method["name"])]
    return [(step, split)]
