"""Gaussian class statistics, and exact draws from their mixtures without ever forming a covariance.

A draw from N(m, sum_t s_t Sigma_t) is a sum of independent terms, m + sum_t sqrt(s_t) e_t with
e_t ~ N(0, Sigma_t). With X the n features of a class, Xc the centred ones and g standard normal,

    n <= d:  e = X^T (g - mean(g)) / sqrt(n - 1), g in R^n: centring g instead of X leaves X as it is
    n > d:   e = R^T g, g in R^d, R of one QR decomposition of Xc / sqrt(n - 1), so that R^T R = Sigma

Both exist for every class and need no jitter: a Cholesky factor does not exist where a feature is constant
in a class or n <= d. A class with one feature vector has e = 0. All that is stored beside the features is
the triangles R, each smaller than the features it stands for.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.random import Normals

CHUNK = 1 << 23  # numbers of noise that are held at once; 32 MB


class ClassGaussians:
    """Mean and covariance of every class's features (GLAG eqs. 5 and 6).

    Args:
        features: (M, d) float32, on any device; kept, not copied. The rows of a class are fetched for every
            use unless they lie together, as those of class-sorted features do.
        labels: class of each, int64 (M,).
        classes: number of classes C.

    Attributes:
        means: (C, d) float32.

    Raises:
        ValueError: if a class has no feature.
    """

    def __init__(self, features: Tensor, labels: Tensor, classes: int) -> None:
        self._sizes = torch.bincount(labels, minlength=classes).tolist()
        if empty := [label for label, size in enumerate(self._sizes) if size == 0]:
            raise ValueError(f"classes {empty} have no training image: remove them or merge them")
        self.dimensions = features.shape[1]
        self.means = features.new_empty(classes, self.dimensions, dtype=torch.float32)
        self._features = features
        self._rows: list[slice | Tensor] = []
        self._triangles: dict[int, Tensor] = {}
        for label, rows in enumerate(torch.split(torch.argsort(labels, stable=True), self._sizes)):
            first, last = int(rows[0]), int(rows[-1])
            together = last - first + 1 == len(rows)
            self._rows.append(slice(first, last + 1) if together else rows)
            mean = self._own(label).mean(0, dtype=torch.float64)
            self.means[label] = mean
            if len(rows) > self.dimensions:
                centred = (self._own(label) - mean) / math.sqrt(len(rows) - 1)
                self._triangles[label] = torch.linalg.qr(centred, mode="r").R.float()
        norms = [1 if n > self.dimensions else max(n - 1, 1) ** -0.5 for n in self._sizes]
        self._norms = torch.tensor(norms, device=features.device)

    def draw(self, means: Tensor, classes: Tensor, shares: Tensor, generator: torch.Generator) -> Tensor:
        """One draw each from M Gaussians whose covariances are mixtures of the classes' covariances.

        Args:
            means: (M, d).
            classes: the classes that each covariance is made of, int64 (M, T); a class that stands
                twice in a row has the sum of the shares.
            shares: s >= 0 in the covariance sum_t s_t Sigma_t of each, (M, T).
            generator: a keyed CPU generator; `longtail.random.Normals` makes normals from it.

        Returns:
            (M, d) float32.
        """
        drawn = means.float().clone()
        self.add_noise(drawn, classes, shares, generator)
        return drawn

    def add_noise(self, out: Tensor, classes: Tensor, shares: Tensor, generator: torch.Generator) -> None:
        """`draw` in place: add its noise to each row of `out`, float32 (M, d).

        All that is asked of one class is one matrix product, so that a call costs C of them.
        """
        asked = shares > 0
        row, term = asked.nonzero(as_tuple=True)
        label = classes[row, term]
        scale = shares[row, term].float().sqrt() * self._norms[label]
        sizes = torch.bincount(label, minlength=len(self._sizes)).tolist()
        narrow = torch.int16 if len(sizes) < 1 << 15 else torch.int32  # sorts four times as fast as int64
        by_class = torch.argsort(label.to(narrow), stable=True)
        needed = sum(size * min(n, self.dimensions) for size, n in zip(sizes, self._sizes, strict=True))
        normals = Normals(generator, out.device, min(needed, CHUNK))
        if len(row) * self.dimensions <= CHUNK:  # all noise first, then every row gathers its own
            noise = out.new_empty(len(row), self.dimensions)
            for own, part in enumerate(torch.split(noise, sizes)):
                self._noise(own, normals, part)
            place = torch.empty_like(by_class)
            place[by_class] = torch.arange(len(row), device=row.device)
            terms = asked.sum(1)
            first = terms.cumsum(0) - terms
            out += F.embedding_bag(place, noise, first, mode="sum", per_sample_weights=scale)
            return
        step = max(1, CHUNK // self.dimensions)
        for own, requests in enumerate(torch.split(by_class, sizes)):
            for some in torch.split(requests, step):
                noise = self._noise(own, normals, out.new_empty(len(some), self.dimensions))
                out.index_add_(0, row[some], noise.mul_(scale[some].unsqueeze(1)))

    def _own(self, label: int) -> Tensor:
        """The features of a class, (n, d); a view where they lie together."""
        return self._features[self._rows[label]]

    def _noise(self, label: int, normals: Normals, out: Tensor) -> Tensor:
        """Fill `out` (m, d) with draws from N(0, Sigma / norm^2) of a class."""
        if not len(out):
            return out
        if label in self._triangles:
            return torch.mm(normals(len(out), self.dimensions), self._triangles[label], out=out)
        drawn = normals(len(out), self._sizes[label])
        drawn -= drawn.mean(1, keepdim=True)
        return torch.mm(drawn, self._own(label), out=out)
