"""LDAM (Cao et al. 2019): a margin around every class, larger for rare ones; LDAM-DRW with `reweight`."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.losses.effective_number import Reweighting, at_least_one


class ReweightSettings(BaseSettings):
    """Deferred re-weighting by effective numbers (Cao et al. 2019, algorithm 1)."""

    beta: float = Field(0.9999, ge=0, lt=1)  # [code]
    start: float = Field(0.8, ge=0, lt=1)  # share of the training without weights [code]: epoch 160 of 200


class Settings(BaseSettings):
    """Margins, their scale, and whether classes are weighted late in training; needs a cosine head."""

    max_margin: float = Field(0.5, ge=0)  # of the rarest class, in cosines [code]
    scale: float = Field(30.0, gt=0)  # s: logits are s times cosines, as the network's head makes them [code]
    reweight: ReweightSettings | None = None  # LDAM-DRW: {}


class LDAMLoss(nn.Module):
    """Label-distribution-aware margin loss (Cao et al. 2019, section 3.2) on logits z = s cos.

        L = -log( exp(z_y - s m_y) / (exp(z_y - s m_y) + sum_{c != y} exp(z_c)) ),  m_c ~ n_c^(-1/4)

    Logits come with their scale, so that they are at test time what training fits: logits of a
    classifier, not cosines.

    Args:
        settings: margins, scale, re-weighting.
        class_counts: training images per class, shape (C,), every one at least 1.

    Raises:
        ValueError: if a class has no training image.
    """

    margins: Tensor

    def __init__(self, settings: Settings, class_counts: Tensor) -> None:
        super().__init__()
        margins = at_least_one(class_counts) ** -0.25
        margins *= settings.scale * settings.max_margin / margins.max()
        self.register_buffer("margins", margins.float())
        reweight = settings.reweight or ReweightSettings(beta=0.0, start=0.0)  # beta = 0: all classes alike
        self.mean = Reweighting(class_counts, reweight.beta, reweight.start, "weights")

    def divisor(self, labels: Tensor, progress: Tensor) -> Tensor | None:
        """What the sum over images with labels (B,) is divided by, 0-d; see `Reweighting`."""
        return self.mean.divisor(labels, progress)

    def forward(
        self, logits: Tensor, labels: Tensor, progress: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Mean loss of logits (B, C) against labels (B,); see `Reweighting` for progress and weights."""
        own = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
        losses = F.cross_entropy(logits - own * self.margins, labels, reduction="none")
        mean: Tensor = self.mean(losses, labels, progress, weights)
        return mean


def build(settings: Settings, class_counts: Tensor) -> LDAMLoss:
    """The loss for class counts (C,)."""
    return LDAMLoss(settings, class_counts)
