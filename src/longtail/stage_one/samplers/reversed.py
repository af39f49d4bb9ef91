"""Reversed sampling: p_c ~ 1 / n_c, the rarest class most often (Zhou et al. 2020, BBN)."""

import torch
from torch import Tensor

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.samplers.chances import draw


class Settings(BaseSettings):
    """Nothing to set."""


def chances(labels: Tensor) -> Tensor:
    """Chance of each class to be drawn, float64 (C,), for labels (N,); 0 for a class without images."""
    counts = labels.bincount().double()
    inverse = torch.where(counts > 0, 1 / counts.clamp_min(1), 0)
    return inverse / inverse.sum()


def indices(labels: Tensor, generator: torch.Generator, progress: float, settings: Settings) -> Tensor:
    """N draws with replacement: a class by one over its size, then one of its images.

    Args:
        labels: class of each training image, shape (N,).
        generator: CPU generator of the epoch.
        progress: share of the training that is done, in [0, 1]; not used.
        settings: none.

    Returns:
        Indices into labels, int64, shape (N,).
    """
    return draw(labels, chances(labels), generator)
