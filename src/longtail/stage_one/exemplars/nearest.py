"""The images nearest to the mean of their class: the most typical ones, however alike."""

import torch
from torch import Tensor

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.exemplars.points import points


class Settings(BaseSettings):
    """Between what the distance is."""

    normalise: bool = True  # as with herding: features have length 1, and the mean of a class too


def choose(features: Tensor, number: int, generator: torch.Generator, settings: Settings) -> Tensor:
    """The images nearest to the mean, nearest first; of images that are equally near the first.

    Args:
        features: of the images of one class, float32 (n, d).
        number: of exemplars wanted.
        generator: not used; there is no chance in it.
        settings: normalise.

    Returns:
        Indices into features in order of rank, without repeats, int64 (min(number, n),), on the CPU.
    """
    images, mean = points(features, settings.normalise)
    return (images - mean).square().sum(1).argsort(stable=True)[:number].cpu()
