"""CMO (Park et al. 2022): CutMix whose patches are of images that rare classes have a larger share in."""

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from longtail.device import sent
from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.batch import Batch
from longtail.stage_one.samplers import class_balanced, reversed


class Settings(BaseSettings):
    """Where patches come from, how large they are, and how often and how long there are any."""

    pastes: ClassVar = True  # images, and labels, of a stream of their own

    # chance of a class to give a patch: 1 / C each [code], or ~ 1 / n_c [paper: "inverse class frequency"]
    patches: Literal["balanced", "inverse"] = "balanced"
    chance: float = Field(0.5, ge=0, le=1)  # of a batch to be pasted on [code]
    alpha: float = Field(1.0, gt=0)  # of Beta(alpha, alpha), the share of the image that stays [code]
    until: float = Field(
        0.9, gt=0, le=1
    )  # share of the training with patches [ours; code: last 3 epochs none]


class MinorityCutMix:
    """A patch of each partner is put onto the image at the same place; labels count by area.

    One box a batch, as in CutMix (Yun et al. 2019): its sides are sqrt(1 - l) of the image's, l ~ Beta, its
    centre is uniform, and what lies outside the image is cut off. The image's label has the share of its area
    that is left, the partner's label the rest.

    Args:
        settings: of the transform.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def sampler(self, labels: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        """Partners of an epoch of images with labels (N,): indices (N,) into them."""
        if self.settings.patches == "balanced":
            return class_balanced.indices(labels, generator, progress, class_balanced.Settings())
        return reversed.indices(labels, generator, progress, reversed.Settings())

    def __call__(
        self,
        batch: Batch,
        partners: Batch,
        progress: float,
        generator: torch.Generator,
        shared: torch.Generator | None = None,
    ) -> Batch:
        """The batch with patches; the host does not wait for the device.

        A batch that is left out is a pair of labels too, of weights 1 and 0, so that a recorded step fits it.

        Args:
            batch: a whole one, or a part of one.
            partners: as many images.
            progress: share of the training that is done, in [0, 1).
            generator: CPU generator of a part; not used.
            shared: CPU generator of what is one for all parts of a batch; None: `generator`.
        """
        if progress >= self.settings.until:
            return batch
        height, width = batch.images.shape[2:]
        top, bottom, left, right = self.box(height, width, shared or generator)
        images = batch.images.clone()
        images[:, :, top:bottom, left:right] = partners.images[:, :, top:bottom, left:right]
        weight = torch.tensor(1 - (bottom - top) * (right - left) / (height * width), dtype=torch.float32)
        return Batch(images, batch.labels, partners.labels, sent(weight, batch.images.device))

    def box(self, height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
        """Rows and columns [top, bottom) x [left, right) of a patch; none for a batch that is left out."""
        # torch draws no Beta from a generator of one's own; numpy's legacy generator never changes
        random = np.random.RandomState(int(torch.randint(2**32, (), generator=generator)))
        pasted = random.uniform() < self.settings.chance
        side = (1 - random.beta(self.settings.alpha, self.settings.alpha)) ** 0.5
        row, column = random.randint(height), random.randint(width)
        if not pasted:
            return 0, 0, 0, 0
        (top, bottom), (left, right) = (
            (max(middle - int(length * side) // 2, 0), min(middle + int(length * side) // 2, length))
            for middle, length in ((row, height), (column, width))
        )
        return top, bottom, left, right


def build(settings: Settings, class_counts: Tensor) -> MinorityCutMix:
    """The transform; it does not depend on the class counts (C,)."""
    return MinorityCutMix(settings)
