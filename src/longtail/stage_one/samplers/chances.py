"""Draws from classes by given chances, for the samplers that say with which chance a class is drawn."""

import torch
from torch import Tensor


def draw(labels: Tensor, chances: Tensor, generator: torch.Generator) -> Tensor:
    """N draws with replacement: a class by its chance, then one of its images uniformly.

    Args:
        labels: class of each training image, shape (N,).
        chances: of the classes, not negative, (C,); need not sum to one; 0 for a class without images.
        generator: CPU generator.

    Returns:
        Indices into labels, int64, shape (N,).
    """
    by_class = labels.argsort(stable=True)
    counts = labels.bincount(minlength=len(chances))
    starts = counts.cumsum(0) - counts
    classes = torch.multinomial(chances.double(), len(labels), replacement=True, generator=generator)
    # float64: a float32 product can round up to the class's size, which is the next class's first image
    within = torch.rand(len(labels), generator=generator, dtype=torch.float64) * counts[classes]
    return by_class[starts[classes] + within.long()]
