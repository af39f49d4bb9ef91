"""What measuring the gradients of data-rich and data-poor classes adds to the time of a training."""

import time
from collections.abc import Callable
from statistics import median

from benchmarks import data
from benchmarks.rows import Goal, Row, compared
from benchmarks.side import OURS, Sample, Side, interleaved
from benchmarks.training import Ours
from longtail.stage_one.observers.gradients import Gradients, Settings

PART = "observers"


def training(every: int, steps: int, batch: int) -> Callable[[], dict[str, float | str]]:
    """Processor seconds of an epoch of so many steps; gradients are measured every `every` epochs, 0: never.

    An epoch at ratio 100 has 85 steps of 128 images; the share of four of them does not depend on the size of
    a batch.
    """
    side = Ours(augmentation="full")
    every_nth = len(side.labels) // (steps * batch)
    side.images, side.labels = side.images[::every_nth], side.labels[::every_nth]
    observers = [Gradients(Settings(every=every), data.cifar_counts())] if every else []

    def measure() -> dict[str, float | str]:
        started = time.process_time()
        side.train(steps, batch=batch, observers=observers)
        return {"seconds": time.process_time() - started, "precision": side.precision}

    return measure


def rows(quick: bool) -> list[Row]:
    """The part's figures."""
    options = {"steps": 2 if quick else 85, "batch": 8 if quick else 32}
    with (
        Side("benchmarks.observers:training", OURS, {"every": 0, **options}) as without,
        Side("benchmarks.observers:training", OURS, {"every": 1, **options}) as observed,
    ):
        found = interleaved({"without": without, "with": observed}, 1 if quick else 5)
    return figures(found["without"], found["with"])


def figures(without: list[Sample], observed: list[Sample]) -> list[Row]:
    """Rows of interleaved samples."""
    more = [
        100 * (b.found["seconds"] / a.found["seconds"] - 1) for a, b in zip(without, observed, strict=True)
    ]
    row = Row(
        PART,
        f"gradients of an epoch of 85 steps, {without[0].found['precision']}: time added to the training",
        "%",
        goal=Goal("ours", 10, 8),
        note="four batches an epoch, as `every: auto` has it at ratios 10 to 200",
        load=median(sample.load for sample in observed),
        peak_mb=max(sample.peak_mb for sample in observed),
    )
    return [compared(row, more)]
