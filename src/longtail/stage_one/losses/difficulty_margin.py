"""DBM (Son et al., AAAI 2025): angular margins, larger for rare classes and for images that are got wrong."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import Constant, Gamma
from longtail.stage_one.losses.logit_adjusted import LogitAdjustedLoss

LARGEST = 1 - 1e-7  # cosine: at 1 the slope of arccos is infinite [ours: the code has no bound]


class Settings(BaseSettings):
    """Margins, their scale, and the strength of logit adjustment; needs a cosine head."""

    gamma: Gamma = Constant(a=1.0)  # DBM on Balanced Softmax; a: 0 on cross-entropy [paper]
    max_margin: float = Field(0.1, ge=0, lt=3)  # K, of the rarest class, in radians [paper]
    power: float = Field(1.0, ge=0)  # tau: margins go with n_c^(-tau) [paper]
    instance: float = Field(1.0, ge=0)  # factor on the margin of an image that is got wrong; 0: none [code]
    difficulty: Literal["learnt", "detached"] = "learnt"  # whether its gradient is followed; it is [code]
    scale: float = Field(32.0, gt=0)  # s: logits are s times cosines, as of the network's head [paper]


class DifficultyMarginLoss(nn.Module):
    """Difficulty-aware balancing margin on logit adjustment, for logits z = s cos (Son et al. 2025).

        m_c = K (n_min / n_c)^tau                                       of a class
        m = m_y + instance [argmax_c cos_c != y] m_y (1 - cos_y) / 2    of an image
        L = CE( z' + gamma(t) log pi ),  z'_y = s cos(arccos(cos_y) + m),  z'_c = z_c for the others

    K = 0 is logit adjustment on a cosine head. At test time logits are s cos, without prior or margin.

    Args:
        settings: margins, scale, gamma.
        class_counts: training images per class, shape (C,), every one at least 1.

    Raises:
        ValueError: if a class has no training image.
    """

    margins: Tensor

    def __init__(self, settings: Settings, class_counts: Tensor) -> None:
        super().__init__()
        self.adjusted = LogitAdjustedLoss(class_counts, settings.gamma)
        counts = class_counts.double()
        margins = settings.max_margin * (counts.min() / counts) ** settings.power
        self.register_buffer("margins", margins.float())
        self.scale, self.instance = settings.scale, settings.instance
        self.detached = settings.difficulty == "detached"

    def with_margins(self, logits: Tensor, labels: Tensor) -> Tensor:
        """z' (B, C) of logits z = s cos (B, C) and labels (B,)."""
        own = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
        cosine = (logits.where(own, 0).sum(dim=1) / self.scale).clamp(-LARGEST, LARGEST)
        difficulty = (1 - (cosine.detach() if self.detached else cosine)) / 2
        wrong = logits.argmax(dim=1) != labels
        margin = self.margins[labels] * (1 + self.instance * wrong * difficulty)
        return torch.where(own, (self.scale * (cosine.arccos() + margin).cos())[:, None], logits)

    def forward(
        self, logits: Tensor, labels: Tensor, progress: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Mean loss of logits (B, C) against labels (B,); see `LogitAdjustedLoss` for progress and weights.

        Of a pair of labels each is the own class of its term, with its own margin [ours].
        """
        value: Tensor = self.adjusted(self.with_margins(logits, labels), labels, progress, weights)
        return value

    def curves(self, progress: Tensor) -> dict[str, Tensor]:
        """What history.csv shows of the loss itself: the strength of the shift."""
        return self.adjusted.curves(progress)


def build(settings: Settings, class_counts: Tensor) -> DifficultyMarginLoss:
    """The loss for class counts (C,)."""
    return DifficultyMarginLoss(settings, class_counts)
