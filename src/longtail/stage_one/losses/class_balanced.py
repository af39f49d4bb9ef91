"""Class-balanced loss (Cui et al. 2019): cross-entropy or focal loss, weighted by effective numbers.

With `start: 0.8` it is CE-DRW, deferred re-weighting (Cao et al. 2019).
"""

from typing import Literal

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.losses.effective_number import Reweighting
from longtail.stage_one.losses.focal import focal


class Settings(BaseSettings):
    """The loss that is weighted, by how much and from when on."""

    beta: float = Field(0.9999, ge=0, lt=1)  # [paper] of 0.9, 0.99, 0.999, 0.9999; E_n = (1-beta^n)/(1-beta)
    start: float = Field(
        0.0, ge=0, lt=1
    )  # share of the training without weights; DRW: 0.8 (epoch 160 of 200)
    base: Literal["cross_entropy", "focal"] = "cross_entropy"  # [paper] both
    gamma: float = Field(1.0, ge=0)  # of focal; [paper] of 0.5, 1, 2
    average: Literal["weights", "images"] = "weights"  # [code] of LDAM-DRW; images: [paper], Remix-DRW

    @model_validator(mode="after")
    def _gamma_is_of_focal(self) -> "Settings":
        if self.base != "focal" and self.gamma != type(self).model_fields["gamma"].default:
            raise ValueError(f"gamma {self.gamma:g} is of the focal loss; set base: focal")
        return self


class ClassBalancedLoss(nn.Module):
    """Cui et al. 2019, section 4: (1 - beta) / (1 - beta^n_y) times the loss, the weights scaled to sum to C.

    Args:
        settings: base loss, beta, start, average.
        class_counts: training images per class, shape (C,), every one at least 1.

    Raises:
        ValueError: if a class has no training image.
    """

    def __init__(self, settings: Settings, class_counts: Tensor) -> None:
        super().__init__()
        self.gamma = settings.gamma if settings.base == "focal" else 0.0
        self.mean = Reweighting(class_counts, settings.beta, settings.start, settings.average)

    def divisor(self, labels: Tensor, progress: Tensor) -> Tensor | None:
        """What the sum over images with labels (B,) is divided by, 0-d; see `Reweighting`."""
        return self.mean.divisor(labels, progress)

    def forward(
        self, logits: Tensor, labels: Tensor, progress: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Mean loss of logits (B, C) against labels (B,); see `Reweighting` for progress and weights."""
        if self.gamma:
            losses = focal(logits, labels, self.gamma)
        else:
            losses = F.cross_entropy(logits, labels, reduction="none")
        mean: Tensor = self.mean(losses, labels, progress, weights)
        return mean


def build(settings: Settings, class_counts: Tensor) -> ClassBalancedLoss:
    """The loss for class counts (C,)."""
    return ClassBalancedLoss(settings, class_counts)
