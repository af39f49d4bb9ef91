"""Progressively balanced sampling: from instance to class-balanced over the training (Kang et al. 2020)."""

import torch
from torch import Tensor

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.samplers.chances import draw


class Settings(BaseSettings):
    """Nothing to set."""


def chances(labels: Tensor, progress: float) -> Tensor:
    """p_c = (1 - t/T) n_c / N + (t/T) / C of each class, float64 (C,), for labels (N,) and progress t/T.

    C counts the classes that have images; the others have chance 0.
    """
    counts = labels.bincount().double()
    present = (counts > 0).double()
    return (1 - progress) * counts / counts.sum() + progress * present / present.sum()


def indices(labels: Tensor, generator: torch.Generator, progress: float, settings: Settings) -> Tensor:
    """N draws with replacement: a class by its chance at this progress, then one of its images.

    Args:
        labels: class of each training image, shape (N,).
        generator: CPU generator of the epoch.
        progress: share t/T of the training that is done, in [0, 1].
        settings: none.

    Returns:
        Indices into labels, int64, shape (N,).
    """
    return draw(labels, chances(labels, progress), generator)
