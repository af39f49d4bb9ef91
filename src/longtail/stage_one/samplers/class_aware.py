"""Class-aware sampling (Shen et al. 2016), as public code has it: round and round the classes."""

import math

import torch
from pydantic import Field
from torch import Tensor

from longtail.settings.base import Settings as BaseSettings


class Settings(BaseSettings):
    """How many images a class gives when it is its turn."""

    samples_per_class: int = Field(4, ge=1, le=1_000_000)  # [code] Decoupling, MiSLAS


def indices(labels: Tensor, generator: torch.Generator, progress: float, settings: Settings) -> Tensor:
    """N images: each class in its turn gives its next few, classes and images in shuffled cycles.

    After every class has had its turn all turns are shuffled anew, and after all of a class's images have
    been shown those are. So within an epoch the turns of two classes, and the showings of two images of a
    class, differ by one at most, but for the turn that the epoch's end cuts short. The cycles begin anew
    with every epoch [ours; they run on in the public code], whose length is N as with any sampler.

    Args:
        labels: class of each training image, shape (N,).
        generator: CPU generator of the epoch.
        progress: share of the training that is done, in [0, 1]; not used.
        settings: samples_per_class.

    Returns:
        Indices into labels, int64, shape (N,).
    """
    each = settings.samples_per_class
    counts = labels.bincount()
    sizes = counts[counts > 0].tolist()
    images = torch.split(labels.argsort(stable=True), sizes)
    turns = _cycles(torch.arange(len(sizes)), math.ceil(len(labels) / each), generator)
    wanted = turns.bincount(minlength=len(sizes)).tolist()
    shown = [_cycles(own, number * each, generator) for own, number in zip(images, wanted, strict=True)]
    chosen = torch.empty(len(turns), each, dtype=torch.int64)
    chosen[turns.argsort(stable=True)] = torch.cat(shown).reshape(-1, each)
    return chosen.flatten()[: len(labels)]


def _cycles(items: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """The first `length` of one shuffle of the items after another."""
    rounds = math.ceil(length / len(items))
    order = torch.rand(rounds, len(items), generator=generator, dtype=torch.float64).argsort(dim=1)
    return items[order].flatten()[:length]
