"""A GPU: one run and eight at once, and what they are made of; without one, rows that say so."""

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import data, photographs
from benchmarks.peers import ldam_drw
from benchmarks.rows import Goal, Row, compared
from benchmarks.side import OURS, Side, interleaved
from benchmarks.stage_two import EPOCHS as AFG_EPOCHS
from benchmarks.training import EPOCHS, Ours
from longtail.stage_one.observers.gradients import COST, Settings

PART = "gpu"
AT_ONCE, BATCH = 8, 128
ONE = "one run, ratio 100, 200 epochs, training only"
MANY = f"{AT_ONCE} runs on the device, each, training only"


def _row(name: str, unit: str, goal: Goal | None = None, note: str = "") -> Row:
    return Row(PART, name, unit, goal=goal, note=note, clock="wall")


RUNS = (
    _row(ONE, "s", Goal("ours", 20, 13)),
    _row(f"{ONE}, against the peers' shape", "s", Goal("ratio", 10, 15)),
    _row(MANY, "s", Goal("ours", 5, 3)),
)
EPOCH = (
    _row("an epoch at ratio 100 in bf16, against float32", "ms", note="the peers' column is float32"),
    _row("gradients of an epoch of 85 steps: time added", "%", Goal("ours", 10, 8), "four batches"),
    _row(f"a batch whose gradients are measured, in steps; taken as {COST['cuda']:g}", "steps"),
)
LAUNCHED = _row("kernels and copies of a step, by the profiler", "launches")
HOST = _row("launches of the host a step, by the profiler", "launches")
FEATURES = _row("features of the 10,847 images of ratio 100, an augmented view", "images/s")
FIT = _row("AFG whole, 40 epochs, ratio 100", "s")
GENERATION = _row("AFG's generation epoch, d = 2048, ImageNet-LT's class sizes", "s")
PHOTOGRAPHS = _row(
    "ResNet-50 on photographs at 224, decoded and augmented on the way, against noise in memory", "images/s"
)


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
    with Side("benchmarks.hardware:facts", {}) as side:
        gpu = side.measure().found["gpu"]
    if gpu is None:
        every = (*RUNS, *EPOCH, LAUNCHED, HOST, FEATURES, FIT, GENERATION, PHOTOGRAPHS)
        return [replace(row, unit="", note="not measured (no GPU)") for row in every]
    return [*runs(quick, whole), *parts(quick)]


def runs(quick: bool, whole: bool) -> list[Row]:
    """Whole runs, alone and together."""
    one, ratio, many = RUNS
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


def parts(quick: bool) -> list[Row]:
    """What a run and its features are made of."""
    rounds, epochs = (1, 1) if quick else (3, 5)
    target, given = "benchmarks.gpu_targets", {"epochs": epochs}
    with (
        Side(f"{target}:epoch", OURS, {**given, "precision": "bf16"}) as bf16,
        Side(f"{target}:epoch", OURS, {**given, "precision": "float32"}) as float32,
    ):
        found = interleaved({"bf16": bf16, "float32": float32}, rounds)
    with (
        Side(f"{target}:epoch", OURS, given) as plain,
        Side(f"{target}:epoch", OURS, {**given, "every": 1}) as observed,
    ):
        found |= interleaved({"plain": plain, "observed": observed}, rounds)
    seconds = {name: [sample.found["epoch"] for sample in samples] for name, samples in found.items()}
    with Side(f"{target}:launches", OURS) as side:
        counted = side.measure().found
    share = {"share": 0.02, "dimensions": 512} if quick else {}
    fit_epochs = 2 if quick else AFG_EPOCHS
    alone = {
        "features": Side(f"{target}:features", OURS),
        "fit": Side(f"{target}:afg", OURS, {"epochs": fit_epochs}),
        "generation": Side(f"{target}:generation", OURS, share),
    }
    single = {}
    for name, side in alone.items():
        with side:
            single[name] = [sample.found for sample in interleaved({name: side}, rounds)[name]]
    return [
        *_of_epochs(seconds),
        *_of_launches(counted),
        compared(FEATURES, [each["speed"] for each in single["features"]]),
        compared(FIT, [each["fit"] * AFG_EPOCHS / fit_epochs for each in single["fit"]]),
        compared(GENERATION, [each["epoch"] for each in single["generation"]]),
        _of_photographs(quick, rounds),
    ]


def _of_epochs(seconds: dict[str, list[float]]) -> list[Row]:
    """Rows of seconds an epoch, in turns: bf16 and float32, plain and observed."""
    bf16, added, cost = EPOCH
    pairs = list(zip(seconds["plain"], seconds["observed"], strict=True))
    batches, steps = Settings().batches, -(-int(data.cifar_counts().sum()) // BATCH)
    return [
        compared(bf16, *([1e3 * x for x in seconds[name]] for name in ("bf16", "float32"))),
        compared(added, [100 * (b / a - 1) for a, b in pairs]),
        compared(cost, [(b - a) / batches / (a / steps) for a, b in pairs]),
    ]


def _of_launches(counted: dict[str, float]) -> list[Row]:
    note = f"waits of the host: {counted['waits']:.3g} a step"
    if counted["convolutions"]:
        note += f"; NOT replayed: {counted['convolutions']:.3g} convolutions a step"
    return [
        compared(LAUNCHED, [counted["kernels"]]),
        compared(replace(HOST, note=note), [counted["launches"]]),
    ]


def _of_photographs(quick: bool, rounds: int) -> Row:
    given = {"steps": 4 if quick else 40}
    with tempfile.TemporaryDirectory() as folder:
        photographs.write(Path(folder), 128 if quick else photographs.NUMBER)
        with (
            Side("benchmarks.gpu_targets:photographs", OURS, {**given, "folder": folder}) as files,
            Side("benchmarks.gpu_targets:photographs", OURS, given) as memory,
        ):
            found = interleaved({"files": files, "memory": memory}, rounds)
    speeds = ([sample.found["speed"] for sample in found[name]] for name in ("files", "memory"))
    row = replace(PHOTOGRAPHS, note=f"the peers' column is memory; {photographs.NOTE}")
    return compared(row, *speeds, higher_is_better=True)
