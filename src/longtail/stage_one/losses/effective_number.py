"""Weights of classes by the effective number of their images, and the mean loss under them.

Cui et al. 2019, proposition 1, E_n = (1 - beta^n) / (1 - beta): the images of a class overlap, so each
one more is worth less. Losses take their weights from here; it is none itself.
"""

from typing import Literal

import torch
from torch import Tensor, nn


def class_weights(class_counts: Tensor, beta: float) -> Tensor:
    """1 / E_n of each class, scaled to sum to C: float64 (C,) of counts (C,).

    beta = 0 weighs all classes alike, beta -> 1 by 1 / n.

    Raises:
        ValueError: if a class has no training image; its weight would be infinite.
    """
    counts = at_least_one(class_counts)
    inverse = (1 - beta) / (1 - torch.full_like(counts, beta).pow(counts))
    return inverse * (len(counts) / inverse.sum())


def at_least_one(class_counts: Tensor) -> Tensor:
    """The counts (C,) as float64.

    Raises:
        ValueError: if a class has no training image.
    """
    if empty := (class_counts == 0).nonzero().flatten().tolist():
        raise ValueError(f"classes {empty} have no training image: remove them or merge them")
    return class_counts.double()


class Reweighting(nn.Module):
    """Mean of losses, weighted by class from some moment of the training on (deferred re-weighting).

    Cao et al. 2019, algorithm 1: plain at first, then with class weights, whose sum over the batch divides
    (`average="weights"`), so that they share the loss out among the classes without making it smaller. Cui
    et al. 2019 divide by the number of images (`average="images"`).

    Args:
        class_counts: training images per class, shape (C,), every one at least 1.
        beta: of the effective number, in [0, 1).
        start: share of the training from which the weights apply; 0 is always.
        average: what the weighted sum is divided by.
    """

    class_weights: Tensor

    def __init__(
        self, class_counts: Tensor, beta: float, start: float, average: Literal["weights", "images"]
    ) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights(class_counts, beta).float())
        self.start, self.average = start, average

    def divisor(self, labels: Tensor, progress: Tensor) -> Tensor | None:
        """What a sum over images with labels (B,) is divided by, 0-d; None where that is their number.

        A batch that is cut into parts has one divisor, that of the whole batch.
        """
        return self._now(progress)[labels].sum() if self.average == "weights" else None

    def _now(self, progress: Tensor) -> Tensor:
        """Weights of the classes (C,) at a progress."""
        # No branch on progress, whose value is on the device.
        return torch.where(progress >= self.start, self.class_weights, torch.ones_like(self.class_weights))

    def forward(
        self, losses: Tensor, labels: Tensor, progress: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Mean of losses (B,) of images with labels (B,); progress is a 0-d tensor in [0, 1].

        Weights (B,) or 0-d multiply the losses and not what they are divided by: label pairs are two terms.
        """
        chosen = self._now(progress)[labels]
        values = losses * chosen if weights is None else losses * chosen * weights
        return values.sum() / chosen.sum() if self.average == "weights" else values.mean()
