"""How many training images each class keeps under an imbalance profile (docs/reference/datasets.md)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longtail.errors import UserError
from longtail.settings.split import CountsImbalance, ExponentialImbalance, Imbalance, ParetoImbalance

Counts = NDArray[np.int64]


# Python's own arithmetic on purpose: numpy's vectorised powers differ in the last bit between processors,
# and int() would turn that into another subset.


def exponential_counts(classes: int, largest: int, ratio: float) -> Counts:
    """n_c = int(n_max (1 / ratio)^(c / (C - 1))), shape (C,), by LDAM-DRW's arithmetic (Cao et al. 2019)."""
    factor = 1 / ratio
    return np.array([int(largest * factor ** (c / max(1.0, classes - 1.0))) for c in range(classes)])


def pareto_counts(classes: int, largest: int, smallest: int, alpha: float) -> Counts:
    """n_r = int(n_min + (n_max - n_min)(q_r - q_C) / (q_1 - q_C)), q_r = (r/C)^(-1/alpha) - 1, shape (C,)."""
    if classes == 1:
        return np.array([largest])
    quantiles = [(rank / classes) ** (-1 / alpha) - 1 for rank in range(1, classes + 1)]
    first, last = quantiles[0], quantiles[-1]
    shares = [(quantile - last) / (first - last) for quantile in quantiles]  # exactly 1 and 0 at the ends
    return np.array([int(smallest + (largest - smallest) * share) for share in shares])


def published(name: str) -> Counts:
    """A built-in list of training images a class, in label order, shape (C,)."""
    lines = (Path(__file__).parent / "counts" / f"{name}.csv").read_text("utf-8").split()
    return np.array([int(line) for line in lines[1:]])


def counts(imbalance: Imbalance, available: Counts) -> Counts:
    """Training images to keep of each class, shape (C,), of those available, shape (C,).

    The largest class gets what every class has, so that any class could stand at any rank; for CIFAR
    that is the published 500 or 5,000.

    Raises:
        UserError: if a class would keep no image, or more than it has.
    """
    largest = int(available.min())
    if isinstance(imbalance, ExponentialImbalance):
        wanted = exponential_counts(len(available), largest, imbalance.ratio)
        if (emptied := np.flatnonzero(wanted == 0)).size:
            raise UserError(
                f"imbalance.ratios: {imbalance.ratio:g} leaves no training image for classes {emptied[0]} to "
                f"{emptied[-1]}; the largest class has {largest} images, so choose a ratio below {largest}"
            )
        return wanted
    if isinstance(imbalance, ParetoImbalance):
        largest = largest if imbalance.largest is None else imbalance.largest
        if largest < imbalance.smallest:
            raise UserError(
                f"imbalance.smallest: {imbalance.smallest} is above the {largest} images of the largest class"
            )
        wanted = pareto_counts(len(available), largest, imbalance.smallest, imbalance.alpha)
        if (wanted > available).any():
            raise UserError(
                f"imbalance.largest: {largest} asks for more images than some classes have; "
                f"null takes {available.min()}, which every class has"
            )
        return wanted
    if isinstance(imbalance, CountsImbalance):
        wanted = published(imbalance.counts)
        if len(wanted) != len(available):
            raise UserError(
                f"imbalance.counts: {imbalance.counts} is of {len(wanted)} classes, "
                f"the dataset has {len(available)}"
            )
        if (short := np.flatnonzero(wanted > available)).size:
            first = short[0]
            raise UserError(
                f"imbalance.counts: {imbalance.counts} asks for {wanted[first]} images of class {first}, "
                f"which has {available[first]}"
            )
        return wanted
    return available
