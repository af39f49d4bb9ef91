"""The feature generator of AFG: which classes a sample learns from, and the features of an epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.random import Normals
from longtail.stage_two.classifier import tukey_inverse
from longtail.stage_two.feature_calibration import missing, sources
from longtail.stage_two.gaussian import CHUNK, ClassGaussians

if TYPE_CHECKING:
    from longtail.stage_two.afg import Settings


def tail_classes(class_counts: Tensor, tail_max: int) -> Tensor:
    """Classes with at most `tail_max` training images and a larger class to learn from, bool (C,)."""
    return (class_counts <= tail_max) & (class_counts < class_counts.max())


@dataclass(frozen=True)
class Support:
    """The classes that a sample learns from.

    Attributes:
        classes: S_i, nearest first, int64 (M, k).
        weights: w_ij, (M, k); a row sums to 1, or is 0 for a sample of a largest class. Where fewer than
            k classes are larger, the rest of the row has weight 0.
    """

    classes: Tensor
    weights: Tensor


def support(
    features: Tensor, labels: Tensor, means: Tensor, class_counts: Tensor, settings: "Settings"
) -> Support:
    """The k nearest larger classes of each sample (7), and their weights (10).

    Args:
        features: x~, (M, d).
        labels: int64 (M,).
        means: mu, (C, d).
        class_counts: n, int64 (C,).
        settings: k, weight_size and distance_power.
    """
    k = min(settings.k, len(class_counts))
    classes, weights = [], []
    step = max(1, CHUNK // (8 * max(means.shape)))  # 8 MB of float64
    sizes = class_counts.double().log() if settings.weight_size == "log_count" else class_counts.double()
    exact = means.double()
    for own, own_labels in zip(torch.split(features, step), torch.split(labels, step), strict=True):
        distance = torch.cdist(own.double(), exact)
        larger = class_counts > class_counts[own_labels].unsqueeze(1)
        nearest, found = distance.where(larger, torch.inf).topk(k, largest=False)
        share = sizes[found] / nearest.clamp_min(1e-12) ** settings.distance_power  # 0 where infinite
        classes.append(found)
        weights.append((share / share.sum(1, keepdim=True).clamp_min(1e-300)).float())
    return Support(torch.cat(classes), torch.cat(weights))


class FeatureGenerator:
    """The features of an epoch, real and generated: every class has equally many (`features_per_class`).

    Its rows have numbers: the images first, then the generated features, class after class.

    Args:
        features: x~ of all views, (V, N, d).
        labels: int64 (N,).
        class_counts: images of each class, int64 (C,).
        tail: bool (C,).
        gaussians: of the classes.
        settings: of the method.
        original: x of all views, (V, N, d), if drawn features are to be mapped back to it.

    Attributes:
        tail: as above.
        labels: classes of all rows, int64 (N + G,), the same in every epoch.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        class_counts: Tensor,
        tail: Tensor,
        gaussians: ClassGaussians,
        settings: "Settings",
        original: Tensor | None = None,
    ) -> None:
        self.features, self.tail, self.gaussians, self.settings = features, tail, gaussians, settings
        self._original = original
        gaps = missing(class_counts, settings.features_per_class)
        drawn = torch.repeat_interleave(torch.arange(len(gaps), device=gaps.device), gaps)
        self.labels = torch.cat([labels, drawn])
        self._for_sources = labels.cpu(), class_counts.cpu()
        of_tail = tail[labels].nonzero().flatten()
        shape = (*features.shape[:2], min(settings.k, len(class_counts)))
        self._neighbours = labels.new_zeros(shape)
        self._weights = features.new_zeros(shape)
        step = max(1, CHUNK // features.shape[2])
        for view, own in enumerate(features):
            for some in torch.split(of_tail, step):
                found = support(own[some], labels[some], gaussians.means, class_counts, settings)
                self._neighbours[view, some], self._weights[view, some] = found.classes, found.weights

    def rows(self, random: torch.Generator) -> Tensor:
        """Row numbers of an epoch, int64 (R,) on the CPU: as many in every epoch.

        All rows, unless a class has more images than `features_per_class`: of these so many are chosen at
        random, without repetition.
        """
        labels, class_counts = self._for_sources
        rows, most = torch.arange(len(self.labels)), self.settings.features_per_class
        if most is None or most >= int(class_counts.max()):
            return rows
        shuffled = torch.randperm(len(labels), generator=random)
        by_class = shuffled[labels[shuffled].argsort(stable=True)]
        first = (class_counts.cumsum(0) - class_counts)[labels[by_class]]
        return torch.cat([by_class[rows[: len(labels)] - first < most], rows[len(labels) :]])

    def __call__(
        self, chunks: Sequence[Tensor], view: int, confidence: Tensor, random: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Row numbers and features (R, d) of one chunk of an epoch after the other.

        An epoch is never stored whole: each chunk's features overwrite those of the chunk before.

        Args:
            chunks: row numbers, int64 (R,) each, in any order.
            view: that the epoch's features are made of.
            confidence: c, (C,).
            random: a CPU generator; chunk by chunk, the draws go on with it.
        """
        images = torch.arange(self.features.shape[1])
        source = torch.cat(
            [images, sources(*self._for_sources, random, self.settings.features_per_class)]
        ).to(self.labels.device)
        made = self.features.new_empty(max(map(len, chunks)), self.features.shape[2])
        for rows in chunks:
            part = made[: len(rows)]
            self._make(part, rows, source[rows], view, confidence, random)
            yield rows, part

    def _make(
        self,
        made: Tensor,
        rows: Tensor,
        source: Tensor,
        view: int,
        confidence: Tensor,
        random: torch.Generator,
    ) -> None:
        """Each row is a part of a real feature, of class means, and noise: a real one that feature alone."""
        settings, means = self.settings, self.gaussians.means
        labels, generated = self.labels[rows], rows >= self.features.shape[1]
        calibrated = generated & self.tail[labels]
        c = confidence[labels] * calibrated
        uncalibrated = (generated & ~calibrated).float()
        weights = self._weights[view, source]
        by_neighbour = c.unsqueeze(1) * weights
        classes = torch.cat([labels.unsqueeze(1), self._neighbours[view, source]], 1)
        recalled = torch.cat([uncalibrated.unsqueeze(1), by_neighbour], 1)
        if settings.covariance == "mixed":
            shares = torch.cat([(generated.float() - c).unsqueeze(1), by_neighbour], 1)
        else:
            shares = torch.cat([uncalibrated.unsqueeze(1), calibrated.unsqueeze(1) * weights], 1)

        torch.index_select(self.features[view], 0, source, out=made)
        made *= (1 - c - uncalibrated).unsqueeze(1)
        step = max(1, CHUNK // made.shape[1])
        for first in range(0, len(made), step):
            some = slice(first, first + step)
            made[some] += F.embedding_bag(classes[some], means, mode="sum", per_sample_weights=recalled[some])
        self.gaussians.add_noise(made, classes, shares, random)
        if settings.alpha:
            width = 1 if settings.alpha_mode == "ones" else made.shape[1]
            on = calibrated.nonzero().flatten()
            normals = Normals(random, made.device, min(len(on) * width, CHUNK))
            for row in torch.split(on, step):
                noise = normals(len(row), width).expand(-1, made.shape[1])
                made.index_add_(0, row, noise, alpha=settings.alpha**0.5)
        if self._original is not None:
            transformed = generated if settings.tukey.apply == "all" else generated & self.tail[labels]
            for row in torch.split(transformed.nonzero().flatten(), step):
                made[row] = tukey_inverse(made[row], settings.tukey.power)
            for row in torch.split((~generated).nonzero().flatten(), step):
                made[row] = self._original[view][source[row]]
