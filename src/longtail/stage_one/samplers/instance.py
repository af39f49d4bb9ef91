"""Instance-balanced sampling: every training image once an epoch (Kang et al. 2020, q = 1)."""

import torch
from torch import Tensor

from longtail.settings.base import Settings as BaseSettings


class Settings(BaseSettings):
    """Nothing to set."""


def indices(labels: Tensor, generator: torch.Generator, progress: float, settings: Settings) -> Tensor:
    """A permutation of the training images.

    Args:
        labels: class of each training image, shape (N,).
        generator: CPU generator of the epoch.
        progress: share of the training that is done, in [0, 1]; not used.
        settings: none.

    Returns:
        Indices into labels, int64, shape (N,).
    """
    return torch.randperm(len(labels), generator=generator)
