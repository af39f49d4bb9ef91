"""Stage two: a whole fit of AFG on one core, against a loop in TailCalibX's shape with as many epochs."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from benchmarks import data
from benchmarks.peers.tail_calib import StageTwo
from benchmarks.rows import Goal, Row, compared
from benchmarks.side import ONE_THREAD, OURS, Side, interleaved
from longtail.device import set_up
from longtail.settings.methods import method_module
from longtail.stage_two.classifier import FeatureData

PART = "stage_two"
EPOCHS, VIEWS, DIMENSIONS = 40, 10, 64
# training images a class, 2,701 in all, of 3,340 photographs of 34 classes, as `longtail init` splits them
PHOTOGRAPHS = [711, 206, 171, 106, 102, 94, 81, 79, 73, 70, 68, 67, 63, 59, 57, 52, 51, 50, 49, 49, 44, 42]
PHOTOGRAPHS += [41, 39, 39, 35, 33, 32, 29, 25, 23, 22, 20, 19]
BOUNDED = {"features_per_class": 100, "learning_rate": {"peak": 0.03}}


def feature_data(counts: torch.Tensor, views: int = VIEWS, dimensions: int = DIMENSIONS) -> FeatureData:
    """What a method is given: features around class means, and the classifier that those means make."""
    labels = data.labels_of(counts)
    found = torch.stack([data.features(labels, dimensions, view) for view in range(views)])
    clean = data.features(labels, dimensions, views)
    means = torch.stack([part.mean(0) for part in torch.split(clean, counts.tolist())])
    weight, bias = 4 * means, -2 * means.square().sum(1)
    validation_labels = torch.arange(20 * len(counts)) % len(counts)
    return FeatureData(
        views=found,
        view_logits=found @ weight.T + bias,
        labels=labels,
        class_counts=counts,
        clean=clean,
        validation=data.features(validation_labels, dimensions, views + 1),
        validation_labels=validation_labels,
        head_weight=weight,
        head_bias=bias,
    )


def ours(epochs: int = EPOCHS, divisor: int = 1) -> Callable[[], None]:
    """Fit AFG as params.yaml has it; a divisor makes all classes smaller."""
    set_up(torch.device("cpu"))
    known = feature_data((data.cifar_counts() // divisor).clamp_min(1))
    afg = method_module("stage_two", "afg")
    settings = afg.Settings(generation_epochs=epochs)

    def measure() -> None:
        afg.fit(known, settings, 0, lambda done, total, note: None)

    return measure


def photographs(options: dict[str, Any]) -> Callable[[], None]:
    """Fit AFG on two views of features of a pretrained network, d = 1,280."""
    set_up(torch.device("cpu"))
    known = feature_data(torch.tensor(PHOTOGRAPHS), views=2, dimensions=1280)
    afg = method_module("stage_two", "afg")
    settings = afg.Settings.model_validate(options)

    def measure() -> None:
        afg.fit(known, settings, 0, lambda done, total, note: None)

    return measure


def peers(sources: int, trained: int) -> Callable[[], dict[str, float]]:
    """Processor seconds of an epoch: generation from some of the images, training on some features."""
    counts = data.cifar_counts()
    labels = data.labels_of(counts)
    features = data.features(labels, DIMENSIONS)
    script = StageTwo(features, labels, len(counts))
    below = (counts[labels] < counts.max()).nonzero().flatten()
    chosen = below[torch.linspace(0, len(below) - 1, sources).long()]
    some = torch.linspace(0, len(labels) - 1, trained).long()

    def measure() -> dict[str, float]:
        first = time.process_time()
        script.generate(chosen)
        second = time.process_time()
        script.train(features[some], labels[some])
        third = time.process_time()
        epoch_features = int(counts.max()) * len(counts)
        generation = (second - first) / sources * len(below)
        return {"epoch": generation + (third - second) / trained * epoch_features}

    return measure


def rows(quick: bool) -> list[Row]:
    """The part's figures."""
    rounds, epochs = (1, 2) if quick else (2, EPOCHS)
    with (
        Side("benchmarks.stage_two:ours", OURS, {"epochs": epochs}) as one,
        Side("benchmarks.stage_two:peers", ONE_THREAD, {"sources": 100, "trained": 2560}) as other,
    ):
        samples = interleaved({"ours": one, "peers": other}, rounds)
    row = Row(
        PART,
        f"AFG whole, {EPOCHS} epochs, ratio 100, one core",
        "s",
        goal=Goal("ours", 30, 10),
        note="the peers' epoch (features not extracted anew) extrapolated from parts of it",
        load=median(sample.load for sample in samples["ours"]),
        peak_mb=max(sample.peak_mb for sample in samples["ours"]),
    )
    ours = [sample.cpu * EPOCHS / epochs for sample in samples["ours"]]
    whole = compared(row, ours, [EPOCHS * sample.found["epoch"] for sample in samples["peers"]])
    return [whole, *(_of_photographs(quick, bounded) for bounded in (False, True))]


def _of_photographs(quick: bool, bounded: bool) -> Row:
    """Settings of own pictures (docs/explanation/glag.md), and the paper's rule."""
    epochs = 2 if quick else EPOCHS
    options = {"generation_epochs": epochs, **(BOUNDED if bounded else {})}
    with Side("benchmarks.stage_two:photographs", OURS, {"options": options}) as side:
        sample = side.measure()
    rule = "100 features a class" if bounded else "as many features a class as the largest has images"
    row = Row(
        PART,
        f"AFG whole, {EPOCHS} epochs, 2,701 photographs, d = 1,280, {rule}, one core",
        "s",
        goal=Goal("ours", 10, 5) if bounded else None,
        load=sample.load,
        peak_mb=sample.peak_mb,
    )
    return compared(row, [sample.cpu * EPOCHS / epochs])
