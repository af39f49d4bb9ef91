"""Herding (iCaRL, Rebuffi et al. 2017, algorithm 4): exemplars whose mean is the mean of the class.

    p_k = argmin_x || mu - (phi(x) + sum_{j<k} phi(p_j)) / k ||

Exemplars are in order of rank: the first m of them are those that a memory of m would hold.
"""

import math

import torch
from torch import Tensor

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.exemplars.points import points


class Settings(BaseSettings):
    """What phi and mu are."""

    normalise: bool = True  # [paper] features have length 1, and the mean of a class too


def choose(features: Tensor, number: int, generator: torch.Generator, settings: Settings) -> Tensor:
    """Greedily the image that brings the mean of the chosen nearest to the mean of the class.

    x runs over the images not yet chosen [ours]: read literally, the paper's argmin can choose an image
    twice. Of images that are equally near it is the first.

    Args:
        features: of the images of one class, float32 (n, d).
        number: of exemplars wanted.
        generator: not used; there is no chance in it.
        settings: normalise.

    Returns:
        Indices into features in order of rank, without repeats, int64 (min(number, n),), on the CPU.
    """
    images, mean = points(features, settings.normalise)
    total = torch.zeros_like(mean)
    taken = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    chosen: list[int] = []
    for rank in range(1, min(number, len(images)) + 1):
        # k times the norm above: the image is sought that is nearest to k mu - sum. Differences row by row
        # rather than a product, so that equal images are equally near to the last bit.
        distances = (images - (rank * mean - total)).square().sum(1)
        best = int(distances.masked_fill(taken, math.inf).argmin())
        taken[best] = True
        total += images[best]
        chosen.append(best)
    return torch.tensor(chosen, dtype=torch.int64)
