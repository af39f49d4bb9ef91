"""Distribution calibration as first published: Free Lunch and TailCalib (both 2021).

For a transformed feature x~_i (Yang et al., ICLR 2021; Vigneswaran et al., ICVGIP 2021):

    S_i = the k classes with the smallest ||x~_i - mu_j||_2
    mu'_i    = (x~_i + sum_{j in S_i} mu_j) / (k + 1)
    Sigma'_i = sum_{j in S_i} Sigma_j / k + alpha

alpha is added to every entry of the covariance, so it is one normal number that all entries of a draw
share. Any class may be in S_i, the sample's own and smaller ones too. AFG (`longtail.stage_two.afg`)
changes both. The public code of TailCalib adds 1e-4 I so that its Cholesky factor exists; none is made here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.stage_two.gaussian import CHUNK, ClassGaussians


@dataclass(frozen=True)
class Calibrated:
    """The Gaussian that each of M features is replaced by.

    Attributes:
        means: mu', (M, d).
        classes: S_i, nearest first, int64 (M, k); all classes where there are fewer than k.
    """

    means: Tensor
    classes: Tensor


def calibrated(features: Tensor, class_means: Tensor, k: int) -> Calibrated:
    """Calibrate features x~ (M, d) by the k nearest of the class means (C, d)."""
    k = min(k, len(class_means))
    means, classes = [], []
    for own in torch.split(features, max(1, CHUNK // max(class_means.shape))):
        nearest = torch.cdist(own.double(), class_means.double()).topk(k, largest=False).indices
        means.append((own + class_means[nearest].sum(1)) / (k + 1))
        classes.append(nearest)
    return Calibrated(torch.cat(means), torch.cat(classes))


def draw(
    gaussians: ClassGaussians, of: Calibrated, rows: Tensor, alpha: float, random: torch.Generator
) -> Tensor:
    """One draw each from the Gaussians `rows` (G,) of `of`; (G, d), normals from a CPU generator."""
    classes = of.classes[rows]
    shares = torch.full(classes.shape, 1 / classes.shape[1], device=classes.device)
    drawn = gaussians.draw(of.means[rows], classes, shares, random)
    if alpha:
        drawn += alpha**0.5 * torch.randn(len(rows), 1, generator=random).to(drawn.device)
    return drawn


def missing(class_counts: Tensor, features: int | None = None) -> Tensor:
    """How many features each class draws to come to `features`, or to the largest class's; int64 (C,)."""
    return ((class_counts.max() if features is None else features) - class_counts).clamp_min(0)


def sources(
    labels: Tensor, class_counts: Tensor, random: torch.Generator, features: int | None = None
) -> Tensor:
    """Images to draw from, so that every class comes to as many features as the largest has; int64 (G,).

    A class's images come in turn, in a random order: each equally often, give or take one.

    Args:
        labels: int64 (N,), on the CPU.
        class_counts: images of each class, int64 (C,), on the CPU.
        random: a CPU generator.
        features: how many a class comes to; None is as many as the largest class has. Classes that have
            more images draw nothing.

    Raises:
        ValueError: if a class has no image.
    """
    if empty := (class_counts == 0).nonzero().flatten().tolist():
        raise ValueError(f"classes {empty} have no training image: remove them or merge them")
    shuffled = torch.randperm(len(labels), generator=random)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    gaps = missing(class_counts, features)
    drawn = torch.repeat_interleave(torch.arange(len(gaps)), gaps)
    turn = torch.arange(len(drawn)) - (gaps.cumsum(0) - gaps)[drawn]
    first = class_counts.cumsum(0) - class_counts
    return by_class[first[drawn] + turn % class_counts[drawn]]
