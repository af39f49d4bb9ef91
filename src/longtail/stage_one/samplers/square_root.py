"""Square-root sampling: p_c ~ n_c^(1/2), between instance and class-balanced (Kang et al. 2020, q = 1/2)."""

import torch
from torch import Tensor

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.samplers.chances import draw


class Settings(BaseSettings):
    """Nothing to set."""


def chances(labels: Tensor) -> Tensor:
    """Chance of each class to be drawn, float64 (C,), for labels (N,)."""
    roots = labels.bincount().double().sqrt()
    return roots / roots.sum()


def indices(labels: Tensor, generator: torch.Generator, progress: float, settings: Settings) -> Tensor:
    """N draws with replacement: a class by the root of its size, then one of its images.

    Args:
        labels: class of each training image, shape (N,).
        generator: CPU generator of the epoch.
        progress: share of the training that is done, in [0, 1]; not used.
        settings: none.

    Returns:
        Indices into labels, int64, shape (N,).
    """
    return draw(labels, chances(labels), generator)
