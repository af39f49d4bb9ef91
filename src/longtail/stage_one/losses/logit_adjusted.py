"""Cross-entropy, logit adjustment, Balanced Softmax and GraLoss: one loss, one schedule of its strength."""

import torch.nn.functional as F
from torch import Tensor, nn

from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import Gamma, Power


class Settings(BaseSettings):
    """The strength gamma(t) of the shift; {form: constant, a: 0} is cross-entropy, a: 1 Balanced Softmax."""

    gamma: Gamma = Power()  # a = 1, b = 2, convex as GLAG found best [paper: the shape; ours: the numbers]


class LogitAdjustedLoss(nn.Module):
    """Cross-entropy on logits shifted by gamma * log(prior).

    GLAG eq. 3 with a gamma that grows during training; gamma = 0 is cross-entropy, a constant gamma is
    logit adjustment (Menon et al. 2021), gamma = 1 Balanced Softmax (Ren et al. 2020).

    Args:
        class_counts: training images per class, shape (C,), every one at least 1.
        gamma: maps progress (0-d tensor in [0, 1]) to the strength of the shift.

    Raises:
        ValueError: if a class has no training image; its log prior would be minus infinity.
    """

    log_prior: Tensor

    def __init__(self, class_counts: Tensor, gamma: Gamma) -> None:
        super().__init__()
        if empty := (class_counts == 0).nonzero().flatten().tolist():
            raise ValueError(f"classes {empty} have no training image: remove them or merge them")
        counts = class_counts.double()
        self.register_buffer("log_prior", (counts / counts.sum()).log().float())
        self.gamma = gamma

    def forward(
        self, logits: Tensor, labels: Tensor, progress: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Mean loss of logits (B, C) against labels (B,); progress is a 0-d tensor in [0, 1].

        With weights (B,) or 0-d it is the mean of weight times loss, so that a batch with label pairs is
        the sum of two such terms.
        """
        adjusted = logits + self.gamma(progress) * self.log_prior
        if weights is None:
            return F.cross_entropy(adjusted, labels)
        return (weights * F.cross_entropy(adjusted, labels, reduction="none")).mean()

    def curves(self, progress: Tensor) -> dict[str, Tensor]:
        """What history.csv shows of the loss itself: the strength of the shift."""
        return {"gamma": self.gamma(progress)}


def build(settings: Settings, class_counts: Tensor) -> LogitAdjustedLoss:
    """The loss for class counts (C,)."""
    return LogitAdjustedLoss(class_counts, settings.gamma)
