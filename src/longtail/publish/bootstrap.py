"""How sure a difference between two methods is: a paired bootstrap over test images, and over runs.

Both methods are measured on the same images, by runs that share subset and seed, so a resample takes both
answers to an image together. With one run a method, images are drawn with replacement (Efron 1979), and the
interval says how far another test set of this size may move the difference. With several runs, subsets are
drawn with replacement too, and of each drawn subset its seeds; a resample's images are the same in all its
runs. The interval is the percentile one, and with few runs on the narrow side: three seeds say little.
"""

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
RESAMPLES = 4_000


def interval(differences: npt.NDArray[np.integer]) -> tuple[float, float]:
    """Bounds of the 95 % interval of the mean difference; the same numbers for the same input.

    Args:
        differences: 1 where the first method alone is right, -1 where the second alone is, else 0;
            (K, S, N): subsets, seeds of each, test images.

    Raises:
        ValueError: if there is no image.
    """
    subsets, seeds, images = differences.shape
    if not images:
        raise ValueError("a bootstrap needs a test image")
    random = np.random.default_rng(0)
    # images with equal answers in all runs are drawn together
    answers, counts = np.unique(differences.reshape(-1, images), axis=1, return_counts=True)
    drawn_images = random.multinomial(images, counts / images, RESAMPLES) / images
    drawn_runs = _nested(subsets, seeds, random)
    means = np.einsum("br,rp,bp->b", drawn_runs, answers, drawn_images, optimize=True)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _nested(subsets: int, seeds: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Weights (B, K * S) of the runs in each resample: subsets with replacement, in each of them seeds."""
    times = random.multinomial(subsets, np.full(subsets, 1 / subsets), RESAMPLES)
    # a subset that is drawn m times has m sets of S seeds
    runs = random.multinomial(seeds * times, np.full(seeds, 1 / seeds))
    weights: npt.NDArray[np.float64] = runs.reshape(RESAMPLES, -1) / (subsets * seeds)
    return weights
