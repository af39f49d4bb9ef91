"""Calibrated features: drawn by one product for each class, against a loop over covariances.

At d = 64 CIFAR-100-LT's class sizes, at d = 2048 ImageNet-LT's; one core. The published package `tailcalib`
is compared whole, statistics and neighbours included, at its own rules, and what it and ours draw is checked
against the Gaussian that these rules define.
"""

import math
import resource
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import data
from benchmarks.peers import tail_calib
from benchmarks.rows import Goal, Row, compared
from benchmarks.side import ONE_THREAD, OURS, Sample, Side, SideError, interleaved
from longtail.device import set_up
from longtail.random import Normals, generator
from longtail.settings.methods import method_module
from longtail.stage_two.gaussian import ClassGaussians

PART = "generation"
REPEATS = 10  # of what takes milliseconds
ROWS = 1 << 14  # of a chunk of an epoch: as many as 128 MB hold at d = 2048
LIMIT = 8 << 30  # bytes that an epoch may take before it counts as not to be had
JITTER = 1e-4  # what tailcalib adds to the diagonal


def neighbours(features: Tensor, means: Tensor, k: int) -> Tensor:
    """The k classes whose means are nearest to each sample, its own among them, int64 (N, k)."""
    return torch.cdist(features, means).topk(k, largest=False).indices


def draws(dimensions: int, number: int, k: int = 3, alpha: float = 0.1) -> Callable[[], dict[str, float]]:
    """One draw for each of `number` samples: mean of its neighbours and itself, mean covariance, alpha I."""
    set_up(torch.device("cpu"))
    counts = data.cifar_counts()
    labels = data.labels_of(counts)
    features = data.features(labels, dimensions)
    gaussians = ClassGaussians(features, labels, len(counts))
    chosen = features[torch.linspace(0, len(labels) - 1, number).long()]
    near = neighbours(chosen, gaussians.means, k)
    means = (gaussians.means[near].sum(1) + chosen) / (k + 1)
    shares = torch.full(near.shape, 1 / k)
    random = generator("benchmark", "draws")

    def measure() -> dict[str, float]:
        for _ in range(REPEATS):
            drawn = gaussians.draw(means, near, shares, random)
            drawn.add_(Normals(random, drawn.device)(*drawn.shape), alpha=math.sqrt(alpha))
        return {"repeats": REPEATS}

    return measure


def loop(
    kind: str, dimensions: int, number: int, k: int = 3, alpha: float = 0.1, classes: int = 100
) -> Callable[[], None]:
    """The same, one multivariate normal at a time; covariances are ready, only the draws are measured."""
    counts = torch.full((classes,), dimensions + 1)
    labels = data.labels_of(counts)
    features = data.features(labels, dimensions)
    parts = torch.split(features, counts.tolist())
    means = torch.stack([part.mean(0) for part in parts])
    covariances = torch.stack([part.T.cov() for part in parts])
    chosen = features[torch.linspace(0, len(labels) - 1, number).long()]
    near = neighbours(chosen, means, k)
    wanted = (means[near].sum(1) + chosen) / (k + 1)
    mixed = [covariances[own].mean(0) + alpha * torch.eye(dimensions) for own in near]
    if kind == "torch":
        return lambda: void(tail_calib.torch_loop(wanted, mixed))
    arrays = [covariance.double().numpy() for covariance in mixed]
    return lambda: void(tail_calib.numpy_loop(wanted.double().numpy(), arrays))


def void(_: object) -> None:
    """Nothing to report."""


def large(share: float = 1.0, dimensions: int = 2048, k: int = 2) -> Callable[[], dict[str, float]]:
    """One draw a training image with ImageNet-LT's class sizes; in pieces, none is kept."""
    set_up(torch.device("cpu"))
    counts = data.imagenet_counts(share)
    labels = data.labels_of(counts)
    gaussians = ClassGaussians(data.features(labels, dimensions), labels, len(counts))
    random = generator("benchmark", "large")

    def measure() -> dict[str, float]:
        total = 0.0
        near = torch.randint(len(counts), (len(labels), k), generator=random)
        for own in torch.split(near, ROWS // 2):
            drawn = gaussians.draw(gaussians.means[own].mean(1), own, torch.full(own.shape, 1 / k), random)
            total += float(drawn[0, 0])
        return {"draws": len(labels)}

    return measure


def epoch(share: float = 1.0, dimensions: int = 2048) -> Callable[[], dict[str, float]]:
    """A whole generation epoch of AFG with ImageNet-LT's class sizes; refused memory beyond LIMIT."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    set_up(torch.device("cpu"))
    afg = method_module("stage_two", "afg")
    counts = data.imagenet_counts(share)
    labels = data.labels_of(counts)
    features = data.features(labels, dimensions)
    settings = afg.Settings()
    tail = afg.tail_classes(counts, settings.tail_max)
    gaussians = ClassGaussians(features, labels, len(counts))
    generate = afg.FeatureGenerator(features[None], labels, counts, tail, gaussians, settings)
    confidence = torch.full((len(counts),), settings.confidence.initial)
    random = generator("benchmark", "epoch")

    generated = int((counts.max() - counts).sum())

    def measure() -> dict[str, float]:
        order = torch.randperm(len(generate.labels), generator=random)  # real features are among them
        for _ in generate(torch.split(order, ROWS), 0, confidence, random):
            pass
        return {"draws": generated}

    return measure


def like_tailcalib(
    features: Tensor, labels: Tensor, k: int, alpha: float, random: torch.Generator, extra: int = 0
) -> tuple[Tensor, Tensor]:
    """What tailcalib generates, by its rules, and the labels.

    Neighbours are the k nearest class means, the sample's own class among them; the mean is over k + 1
    vectors, the covariance over k; alpha is in every entry of it, 1e-4 on its diagonal; samples of a class
    are used in turn.
    """
    counts = torch.bincount(labels)
    gaussians = ClassGaussians(features, labels, len(counts))
    gaps = counts.max() - counts + extra
    wanted = torch.repeat_interleave(torch.arange(len(counts)), gaps)
    turn = torch.arange(len(wanted)) - (gaps.cumsum(0) - gaps)[wanted]
    by_class, first = torch.argsort(labels, stable=True), counts.cumsum(0) - counts
    source = by_class[first[wanted] + turn % counts[wanted]]
    near = neighbours(features, gaussians.means, k)
    means = ((gaussians.means[near].sum(1) + features) / (k + 1))[source]
    drawn = gaussians.draw(means, near[source], torch.full((len(source), k), 1 / k), random)
    drawn += math.sqrt(JITTER) * torch.randn(drawn.shape, generator=random)
    if alpha:
        drawn += math.sqrt(alpha) * torch.randn(len(drawn), 1, generator=random)
    return drawn, wanted


def tailcalib_data(dimensions: int, divisor: int) -> tuple[Tensor, Tensor]:
    """CIFAR-100-LT's class sizes, divided; the time for a feature does not depend on the divisor."""
    labels = data.labels_of((data.cifar_counts() // divisor).clamp_min(2))
    return data.features(labels, dimensions), labels


def ours_like_tailcalib(dimensions: int, divisor: int, k: int = 2, alpha: float = 0.1) -> Callable[[], Any]:
    """A whole generation by the package's rules, in our form."""
    set_up(torch.device("cpu"))
    features, labels = tailcalib_data(dimensions, divisor)
    random = generator("benchmark", "tailcalib")
    return lambda: {"features": len(like_tailcalib(features, labels, k, alpha, random)[0])}


def tailcalib_package(dimensions: int, divisor: int, k: int = 2, alpha: float = 0.1) -> Callable[[], Any]:
    """A whole generation by the package itself, its numpy engine (the other one ends in a NameError)."""
    features, labels = tailcalib_data(dimensions, divisor)
    x = features.double()

    def measure() -> dict[str, float]:
        return {"features": sum(len(points) for points in by_package(x, labels, k, alpha).values())}

    return measure


def agreement(
    dimensions: int = 16, number: int = 20_000, k: int = 2, alpha: float = 0.1
) -> Callable[[], Any]:
    """Draws of the package and ours from one sample, each against the Gaussian that the rules define.

    Draws are whitened by the exact mean and covariance in float64. Then the root mean square of z-scores
    of the mean, of the variances and of the covariances is 1 but for chance. Without the package ours alone.
    """
    labels = data.labels_of(torch.tensor([24, 9, 2, 2]))
    features = data.features(labels, dimensions)
    sample = int((labels == 2).nonzero()[0])
    x = features.double()
    class_means = torch.stack([x[labels == label].mean(0) for label in range(4)])
    near = neighbours(x[sample : sample + 1], class_means, k)[0]
    mean = (class_means[near].sum(0) + x[sample]) / (k + 1)
    covariance = sum(x[labels == label].T.cov() for label in near.tolist()) / k
    covariance = covariance + alpha + JITTER * torch.eye(dimensions).double()
    factor = torch.linalg.cholesky(covariance)

    def scores(drawn: Tensor) -> dict[str, float]:
        n = len(drawn)
        white = torch.linalg.solve_triangular(factor, (drawn.double() - mean).T, upper=False).T
        products = white.T @ white / n
        above = torch.triu(torch.ones_like(products), 1).bool()
        return {
            "mean": float((white.mean(0) * math.sqrt(n)).square().mean().sqrt()),
            "variance": float(((products.diagonal() - 1) * math.sqrt(n / 2)).square().mean().sqrt()),
            "covariance": float((products[above] * math.sqrt(n)).square().mean().sqrt()),
        }

    extra = 2 * number - int((labels == 0).sum()) + 2  # a class of two samples: `number` from each

    def measure() -> dict[str, dict[str, float]]:
        random = generator("benchmark", "agreement")
        drawn, wanted = like_tailcalib(features, labels, k, alpha, random, extra)
        found = {"ours": scores(drawn[wanted == 2][::2])}  # its samples are used in turn
        if find_spec("tailcalib") is not None:
            points = by_package(x, labels, k, alpha, extra)[2]
            found["tailcalib"] = scores(torch.from_numpy(points[:number]))  # all of a sample's, then the next
        return found

    return measure


def by_package(x: Tensor, labels: Tensor, k: int, alpha: float, extra: int = 0) -> dict[int, NDArray[Any]]:
    """What the package generates, by class."""
    from tailcalib import tailcalib

    np.random.seed(0)
    options = {"tukey_value": 1.0, "alpha": alpha, "topk": k, "extra_points": extra}
    with warnings.catch_warnings(action="ignore"):
        made = tailcalib(base_engine="numpy").generate(X=x.numpy(), y=labels.numpy(), **options)
    generated: dict[int, NDArray[Any]] = made[2]
    return generated


def agree(scores: dict[str, float], dimensions: int = 16) -> bool:
    """Whether root mean squares of z-scores are 1 within five standard deviations."""
    numbers = {"mean": dimensions, "variance": dimensions, "covariance": dimensions * (dimensions - 1) / 2}
    return all(abs(scores[name] - 1) < 5 / math.sqrt(2 * number) for name, number in numbers.items())


def rows(quick: bool) -> list[Row]:
    """The part's figures."""
    return [*small(quick), *package(quick), *imagenet(quick)]


def small(quick: bool) -> list[Row]:
    """One draw for each image, d = 64."""
    rounds, number, few, some = (1, 10_847, 20, 50) if quick else (6, 10_847, 60, 200)
    numpy_options = {"kind": "numpy", "dimensions": 64, "number": few}
    with (
        Side("benchmarks.generation:draws", OURS, {"dimensions": 64, "number": number}) as one,
        Side("benchmarks.generation:loop", ONE_THREAD, numpy_options) as by_numpy,
        Side(
            "benchmarks.generation:loop", ONE_THREAD, numpy_options | {"kind": "torch", "number": some}
        ) as by_torch,
    ):
        found = interleaved({"ours": one, "numpy": by_numpy, "torch": by_torch}, rounds)
    ours = [1e3 * sample.cpu / REPEATS for sample in found["ours"]]
    rows = []
    for kind, drawn, goal in (
        ("numpy", few, Goal("ratio", 1000, 2000)),
        ("torch", some, Goal("ratio", 200, 400)),
    ):
        row = _row(f"10,847 draws, d = 64, one core, against a {kind} loop", "ms", found["ours"], goal)
        rows.append(compared(row, ours, [1e3 * s.cpu / drawn * number for s in found[kind]]))
    row = _row("10,847 draws, d = 64, one core", "ms", found["ours"], Goal("ours", 20, 10))
    return [*rows, compared(row, ours)]


def package(quick: bool) -> list[Row]:
    """The published package, whole."""
    name = "generation by tailcalib's rules, whole, d = 64, 1,000 features, against the package"
    equal = "draws of tailcalib and ours against the exact Gaussian, z-scores' rms"
    if find_spec("tailcalib") is None:
        note = "not measured (tailcalib is not installed; `make bench` installs it)"
        return [Row(PART, name, "", note=note), Row(PART, equal, "", note=note)]
    rounds, divisor = (1, 32) if quick else (4, 16)
    with (
        Side("benchmarks.generation:ours_like_tailcalib", OURS, {"dimensions": 64, "divisor": 1}) as one,
        Side(
            "benchmarks.generation:tailcalib_package", ONE_THREAD, {"dimensions": 64, "divisor": divisor}
        ) as two,
    ):
        found = interleaved({"ours": one, "tailcalib": two}, rounds)
    times = {side: [1e6 * s.cpu / s.found["features"] for s in found[side]] for side in found}
    row = _row(name, "ms", found["ours"], None, "statistics and neighbours included on both sides")
    with Side("benchmarks.generation:agreement", OURS) as side:
        scores = side.measure().found
    worst = {who: max(own.values(), key=lambda z: abs(z - 1)) for who, own in scores.items()}
    both = all(agree(own) for own in scores.values())
    said = "; ".join(
        f"{who}: " + ", ".join(f"{part} {z:.2f}" for part, z in own.items()) for who, own in scores.items()
    )
    verdict = "both are that Gaussian" if both else "NOT the same distribution"
    return [
        compared(row, times["ours"], times["tailcalib"]),
        Row(PART, equal, "(1)", worst["ours"], worst["tailcalib"], note=f"{verdict} ({said})", clock="none"),
    ]


def imagenet(quick: bool) -> list[Row]:
    """ImageNet-LT's class sizes, d = 2048."""
    share = 0.02 if quick else 1.0
    rounds = 1 if quick else 2
    loops = {"dimensions": 512 if quick else 2048, "number": 1 if quick else 4, "k": 2, "classes": 4}
    with Side("benchmarks.generation:large", OURS, {"share": share}) as one:
        sides = {"ours": one}
        with Side("benchmarks.generation:loop", ONE_THREAD, {"kind": "torch", **loops}) as by_torch:
            found = interleaved(sides | {"torch": by_torch}, rounds)
    number = found["ours"][0].found["draws"]
    with Side("benchmarks.generation:loop", ONE_THREAD, {"kind": "numpy", **loops, "number": 1}) as by_numpy:
        one_by_numpy = by_numpy.measure().cpu
    ours = [sample.cpu for sample in found["ours"]]
    theirs = [sample.cpu / int(loops["number"]) * number for sample in found["torch"]]
    row = _row(
        f"{number:,} draws, d = 2048, ImageNet-LT's class sizes, against a torch loop",
        "s",
        found["ours"],
        Goal("ours", 15, 5),
        f"numpy, one draw: {one_by_numpy:.1f} s, so {one_by_numpy * number / 3600:.0f} h",
    )
    rows = [compared(row, ours, theirs), _memory(row, Goal("ours", 2.0, 1.2))]
    name = "AFG's generation epoch, d = 2048, ImageNet-LT's class sizes"
    time, memory = Goal("ours", 150, 50), Goal("ours", 2.0, 1.2)
    try:
        with Side("benchmarks.generation:epoch", OURS, {"share": share}) as side:
            samples = [side.measure()]
    except SideError as error:
        if "memory" not in str(error):
            raise
        note = f"not measured (needs more than {LIMIT >> 30} GB)"
        return [*rows, Row(PART, name, "", goal=time, note=note)]
    row = _row(f"{name}, {samples[0].found['draws']:,} features", "s", samples, time)
    return [*rows, compared(row, [samples[0].cpu]), _memory(row, memory)]


def _memory(row: Row, goal: Goal) -> Row:
    assert row.peak_mb
    return Row(PART, f"{row.name}: memory", "GB", row.peak_mb / 1000, goal=goal, load=row.load, clock="none")


def _row(name: str, unit: str, samples: list[Sample], goal: Goal | None, note: str = "") -> Row:
    return Row(
        PART,
        name,
        unit,
        goal=goal,
        note=note,
        load=median(sample.load for sample in samples),
        peak_mb=max(sample.peak_mb for sample in samples),
    )
