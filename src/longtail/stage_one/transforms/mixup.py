"""mixup (Zhang et al. 2018): batches of convex combinations of two images, and of their labels."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from longtail.device import sent
from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.batch import Batch


class Settings(BaseSettings):
    """How far images are mixed."""

    alpha: float = Field(1.0, ge=0)  # of Beta(alpha, alpha) [code] MiSLAS, Bag of tricks; 0: no mixing


class Mixup:
    """x = share x_i + (1 - share) x_j with share ~ Beta(alpha, alpha), one a batch; labels likewise.

    j runs over a permutation of the batch, as in the authors' code. With alpha = 0 the share is 1: images
    and losses are those of the batch as it was.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def __call__(
        self, batch: Batch, generator: torch.Generator, shared: torch.Generator | None = None
    ) -> Batch:
        """The batch mixed; the host does not wait for the device.

        Args:
            batch: a whole one, or a part of one.
            generator: CPU generator of the partners, which a part has to itself.
            shared: CPU generator of the share, which is one for all parts of a batch; None: the same.
        """
        drawn = self.draw(len(batch.labels), generator, shared)
        share, partners = (sent(tensor, batch.images.device) for tensor in drawn)
        return self.apply(batch, share, partners)

    def draw(
        self, size: int, generator: torch.Generator, shared: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The share (0-d float32) and the partners j (size,) of a batch, on the CPU."""
        # torch draws no Beta from a generator of one's own; numpy's legacy generator never changes
        random = np.random.RandomState(int(torch.randint(2**32, (), generator=shared or generator)))
        share = random.beta(self.alpha, self.alpha) if self.alpha else 1.0
        return torch.tensor(share, dtype=torch.float32), torch.randperm(size, generator=generator)

    def apply(self, batch: Batch, share: Tensor, partners: Tensor) -> Batch:
        """The batch mixed with itself in the order of the partners; all on the batch's device."""
        images = share * batch.images + (1 - share) * batch.images[partners]
        return Batch(images, batch.labels, batch.labels[partners], share)


def build(settings: Settings, class_counts: Tensor) -> Mixup:
    """The transform; it does not depend on the class counts (C,)."""
    return Mixup(settings.alpha)
