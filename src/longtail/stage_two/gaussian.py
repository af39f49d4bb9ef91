"""Gaussian class statistics, and exact draws from their mixtures without ever forming a covariance.

A draw from N(m, sum_t s_t Sigma_t) is a sum of independent terms, m + sum_t sqrt(s_t) e_t with
e_t ~ N(0, Sigma_t). A class's own e is A^T g with g standard normal and A^T A = Sigma, where A is

    the centred features / sqrt(n - 1)                  if the class has at most d of them,
    R of one QR decomposition of the same               if it has more.

Both exist for every class and need no jitter: a Cholesky factor does not exist where a feature is constant
in a class or n <= d. A class with one feature vector has A = 0.
"""

import math

import torch
from torch import Tensor

CHUNK = 1 << 24  # normals that are drawn at once, about; 64 MB


class ClassGaussians:
    """Mean and covariance of every class's features (GLAG eqs. 5 and 6), the covariance as a factor.

    Sums and QR are made in float64, so that a feature that is constant in a class is so in every draw.
    A factor is never larger than the features that it stands for.

    Args:
        features: (M, d), on any device.
        labels: class of each, int64 (M,).
        classes: number of classes C.

    Attributes:
        means: (C, d) float32.
        factors: C tensors (r, d) float32, r = min(n, d), or 0 where n = 1; factor^T factor is the
            covariance with 1 / (n - 1).

    Raises:
        ValueError: if a class has no feature.
    """

    def __init__(self, features: Tensor, labels: Tensor, classes: int) -> None:
        sizes = torch.bincount(labels, minlength=classes).tolist()
        if empty := [label for label, size in enumerate(sizes) if size == 0]:
            raise ValueError(f"classes {empty} have no training image: remove them or merge them")
        self.dimensions = features.shape[1]
        self.means = features.new_empty(classes, self.dimensions, dtype=torch.float32)
        self.factors: list[Tensor] = []
        for label, rows in enumerate(torch.split(torch.argsort(labels, stable=True), sizes)):
            own = features[rows].double()
            mean = own.mean(0)
            self.means[label] = mean
            self.factors.append(_factor(own - mean))

    def noise(self, label: int, count: int, generator: torch.Generator) -> Tensor:
        """Draws (count, d) from N(0, Sigma) of a class; the normals come from a CPU generator."""
        factor = self.factors[label]
        normals = torch.randn(count, factor.shape[0], generator=generator).to(factor.device)
        return normals @ factor

    def draw(self, means: Tensor, classes: Tensor, shares: Tensor, generator: torch.Generator) -> Tensor:
        """One draw each from M Gaussians whose covariances are mixtures of the classes' covariances.

        All requests for noise of one class are one matrix product, so that an epoch costs C of them.

        Args:
            means: (M, d).
            classes: the classes that each covariance is made of, int64 (M, T); a class that stands
                twice in a row has the sum of the shares.
            shares: s >= 0 in the covariance sum_t s_t Sigma_t of each, (M, T).
            generator: a CPU generator.

        Returns:
            (M, d) float32.
        """
        drawn = means.float().clone()
        row, term = (shares > 0).nonzero(as_tuple=True)
        requested = classes[row, term]
        order = torch.argsort(requested, stable=True)
        row, scale = row[order], shares[row, term][order].float().sqrt().unsqueeze(1)
        sizes = torch.bincount(requested, minlength=len(self.factors)).tolist()
        step = max(1, CHUNK // max(1, self.dimensions))
        start = 0
        for label, size in enumerate(sizes):
            for first in range(start, start + size, step):
                piece = slice(first, min(first + step, start + size))
                noise = self.noise(label, piece.stop - first, generator)
                drawn.index_add_(0, row[piece], noise.mul_(scale[piece]))
            start += size
        return drawn


def _factor(centred: Tensor) -> Tensor:
    """A with A^T A = centred^T centred / (n - 1), of min(n, d) rows; float32 of float64 (n, d)."""
    count, dimensions = centred.shape
    if count == 1:
        return centred[:0].float()
    scaled = centred / math.sqrt(count - 1)
    if count <= dimensions:
        return scaled.float()
    triangle: Tensor = torch.linalg.qr(scaled, mode="r").R
    return triangle.float()
