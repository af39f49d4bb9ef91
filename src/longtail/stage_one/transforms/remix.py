"""Remix (Chou et al. 2020): mixup that gives the label to the rarer of two classes of unequal size."""

import torch
from pydantic import Field
from torch import Tensor

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.batch import Batch
from longtail.stage_one.transforms.mixup import Mixup


class Settings(BaseSettings):
    """How far images are mixed, and between which classes the rarer one takes the label."""

    kappa: float = Field(3.0, ge=1)  # so many times larger is "unequal" [paper]
    tau: float = Field(0.5, ge=0, le=1)  # the rarer image's partner has less than this share [paper]
    alpha: float = Field(1.0, ge=0)  # of Beta(alpha, alpha) [code]; 0: no mixing


class Remix(Mixup):
    """Images are mixed as by mixup with share l, labels with a share l_y of their own for every pair.

    Chou et al. 2020, section 3: l_y is

        0 if n_i / n_j >= kappa and l < tau          (the image of the smaller class j is the larger part)
        1 if n_i / n_j <= 1 / kappa and 1 - l < tau  (likewise, of the smaller class i)
        l otherwise.

    Args:
        settings: kappa, tau, alpha.
        class_counts: training images per class, shape (C,), on the device of the batches.
    """

    def __init__(self, settings: Settings, class_counts: Tensor) -> None:
        super().__init__(settings.alpha)
        self.kappa, self.tau, self.class_counts = settings.kappa, settings.tau, class_counts.double()

    def apply(self, batch: Batch, share: Tensor, partners: Tensor) -> Batch:
        """The batch mixed with itself in the order of the partners, a weight (B,) of every label pair."""
        mixed = super().apply(batch, share, partners)
        own, other = self.class_counts[mixed.labels], self.class_counts[mixed.others]
        to_other = (own >= self.kappa * other) & (share < self.tau)
        to_own = (other >= self.kappa * own) & (1 - share < self.tau)
        weight = torch.where(to_own, torch.ones_like(share), share)
        return mixed._replace(weight=torch.where(to_other, torch.zeros_like(share), weight))


def build(settings: Settings, class_counts: Tensor) -> Remix:
    """The transform for class counts (C,)."""
    return Remix(settings, class_counts)
