"""Focal loss (Lin et al. 2017): what is classified well already counts less."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from longtail.settings.base import Settings as BaseSettings


class Settings(BaseSettings):
    """How fast an image fades as it is classified better."""

    gamma: float = Field(2.0, ge=0)  # [paper] best of 0 to 5; public long-tailed code: 1; 0 is cross-entropy


class FocalLoss(nn.Module):
    """Lin et al. 2017, eq. 4, over classes: -(1 - p_y)^gamma log p_y with p = softmax(logits).

    Args:
        gamma: at least 0; 0 is cross-entropy.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(
        self, logits: Tensor, labels: Tensor, progress: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Mean loss of logits (B, C) against labels (B,); progress (0-d) is not used.

        With weights (B,) or 0-d it is the mean of weight times loss.
        """
        losses = focal(logits, labels, self.gamma)
        return losses.mean() if weights is None else (weights * losses).mean()


def focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Focal loss (B,) of logits (B, C) against labels (B,)."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    # 1 - p is 0 for a sure image; the gradient of its power would be infinite there for gamma < 1
    missing = (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny)
    return missing**gamma * losses


def build(settings: Settings, class_counts: Tensor) -> FocalLoss:
    """The loss; it does not depend on the class counts (C,)."""
    return FocalLoss(settings.gamma)
