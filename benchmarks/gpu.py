"""One run and eight runs on a GPU; without one, rows that say so."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks import data
from benchmarks.peers import ldam_drw
from benchmarks.rows import Goal, Row, compared
from benchmarks.side import OURS, Side, interleaved
from benchmarks.training import EPOCHS, Ours

PART = "gpu"
AT_ONCE = 8
ONE = "one run, ratio 100, 200 epochs, training only"
MANY = f"{AT_ONCE} runs on the device, each, training only"


def ours(
    epochs: int, runs: int = 1, steps: int | None = None, batch: int = 128
) -> Callable[[], dict[str, float]]:
    """Seconds of runs of ratio 100 with params.yaml's augmentation, until all of them are over.

    Several runs share a process, a thread and a stream each, as in
    `longtail.stage_one.training.compute_together`. From fewer than 200 epochs it is extrapolated as start +
    200 epochs, from a run of one epoch and one of `epochs` more: a run's start (its first steps, the
    recording of its graph) is paid once.
    """
    sides = [Ours(augmentation="full") for _ in range(runs)]

    def trained(number: int) -> float:
        started = time.perf_counter()
        threads = [
            threading.Thread(target=side.train, kwargs={"steps": steps, "epochs": number, "batch": batch})
            for side in sides
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def measure() -> dict[str, float]:
        if epochs == EPOCHS:
            return {"runs": trained(EPOCHS)}
        short, long = trained(1), trained(1 + epochs)
        return {"runs": short + (EPOCHS - 1) * (long - short) / epochs}

    return measure


def peers(images: int | None = None) -> Callable[[], dict[str, float]]:
    """An epoch in LDAM-DRW's shape, and its evaluation; seconds of each."""
    number = images or int(data.cifar_counts().sum())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    script = ldam_drw.Script(number, data.TEST_IMAGES if images is None else 100, workers=4, device=device)

    def measure() -> dict[str, float]:
        first = time.perf_counter()
        script.train()
        second = time.perf_counter()
        script.evaluate()
        return {"epoch": second - first, "evaluation": time.perf_counter() - second}

    return measure


def rows(quick: bool, whole: bool = False) -> list[Row]:
    """The part's figures: extrapolated from a few epochs, or with `whole` from all of a run."""
    one = Row(PART, ONE, "s", goal=Goal("ours", 20, 13), clock="wall")
    ratio = Row(PART, f"{ONE}, against the peers' shape", "s", goal=Goal("ratio", 10, 15), clock="wall")
    many = Row(PART, MANY, "s", goal=Goal("ours", 5, 3), clock="wall")
    with Side("benchmarks.hardware:facts", {}) as side:
        gpu = side.measure().found["gpu"]
    if gpu is None:
        return [replace(row, unit="", note="not measured (no GPU)") for row in (one, ratio, many)]
    epochs = EPOCHS if whole else 1 if quick else 10
    rounds = 1 if quick or whole else 3
    with (
        Side("benchmarks.gpu:ours", OURS, {"epochs": epochs}) as side,
        Side("benchmarks.gpu:peers", {}) as other,
    ):
        found = interleaved({"ours": side, "peers": other}, rounds)
    own = [sample.found["runs"] for sample in found["ours"]]
    theirs = [EPOCHS * sample.found["epoch"] for sample in found["peers"]]
    with_evaluation = [EPOCHS * (s.found["epoch"] + s.found["evaluation"]) for s in found["peers"]]
    with Side("benchmarks.gpu:ours", OURS, {"epochs": epochs, "runs": AT_ONCE}) as side:
        together = interleaved({"ours": side}, rounds)["ours"]
    per_run = [sample.found["runs"] / AT_ONCE for sample in together]
    note = f"the peers' with their evaluation: {min(with_evaluation):.0f} s"
    return [
        compared(one, own),
        compared(replace(ratio, note=note), own, theirs),
        compared(many, per_run),
    ]
