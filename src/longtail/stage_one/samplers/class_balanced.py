"""Class-balanced sampling: every draw takes each class with equal chance (Kang et al. 2020, q = 0)."""

import torch
from torch import Tensor

from longtail.settings.base import Settings as BaseSettings


class Settings(BaseSettings):
    """Nothing to set."""


def indices(labels: Tensor, generator: torch.Generator, progress: float, settings: Settings) -> Tensor:
    """N draws with replacement: a class uniformly among those that have images, then one of its images.

    Args:
        labels: class of each training image, shape (N,).
        generator: CPU generator of the epoch.
        progress: share of the training that is done, in [0, 1]; not used.
        settings: none.

    Returns:
        Indices into labels, int64, shape (N,).
    """
    by_class = labels.argsort(stable=True)
    counts = labels.bincount()
    counts = counts[counts > 0]
    starts = counts.cumsum(0) - counts
    classes = torch.randint(len(counts), (len(labels),), generator=generator)
    # float64: a float32 product can round up to the class's size, which is the next class's first image
    within = torch.rand(len(labels), generator=generator, dtype=torch.float64) * counts[classes]
    return by_class[starts[classes] + within.long()]
