"""Exemplars by chance: what a choice by features has to be better than."""

import torch
from torch import Tensor

from longtail.settings.base import Settings as BaseSettings


class Settings(BaseSettings):
    """Nothing to set."""


def choose(features: Tensor, number: int, generator: torch.Generator, settings: Settings) -> Tensor:
    """Draws without replacement, each image with equal chance.

    Args:
        features: of the images of one class, (n, d); only their number counts.
        number: of exemplars wanted.
        generator: CPU generator of the class.
        settings: none.

    Returns:
        Indices into features in the order drawn, without repeats, int64 (min(number, n),), on the CPU.
    """
    return torch.randperm(len(features), generator=generator)[:number]
