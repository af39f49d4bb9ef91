"""How many training images each class keeps under an imbalance profile (methods.md, section 4)."""

import numpy as np
from numpy.typing import NDArray

from longtail.params import ExponentialImbalance, NaturalImbalance, ParetoImbalance

Counts = NDArray[np.int64]


def exponential_counts(classes: int, largest: int, ratio: float) -> Counts:
    """n_c = int(n_max (1 / ratio)^(c / (C - 1))), shape (C,), by LDAM-DRW's arithmetic (Cao et al. 2019)."""
    factor = 1 / ratio
    return np.array([int(largest * factor ** (c / max(1.0, classes - 1.0))) for c in range(classes)])


def pareto_counts(classes: int, largest: int, smallest: int, alpha: float) -> Counts:
    """n_r = int(n_min + (n_max - n_min)(q_r - q_C) / (q_1 - q_C)), q_r = (r/C)^(-1/alpha) - 1, shape (C,)."""
    ranks = np.arange(1, classes + 1)
    quantiles = (ranks / classes) ** (-1 / alpha) - 1
    if classes == 1:
        return np.array([largest])
    shares: NDArray[np.float64] = (quantiles - quantiles[-1]) / (quantiles[0] - quantiles[-1])
    return np.asarray(smallest + (largest - smallest) * shares).astype(np.int64)


def counts(imbalance: ExponentialImbalance | ParetoImbalance | NaturalImbalance, available: Counts) -> Counts:
    """Training images to keep of each class, shape (C,), of those available, shape (C,).

    The largest class gets what every class has, so that any class could stand at any rank.
    """
    largest = int(available.min())
    if isinstance(imbalance, ExponentialImbalance):
        return exponential_counts(len(available), largest, imbalance.ratio)
    if isinstance(imbalance, ParetoImbalance):
        return pareto_counts(
            len(available), imbalance.largest or largest, imbalance.smallest, imbalance.alpha
        )
    return available
