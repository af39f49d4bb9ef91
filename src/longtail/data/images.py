"""Images of a part: one tensor on the device, or picture files that are decoded when they are asked for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from longtail.data.picture_loader import PictureFiles

EVALUATED = 1 << 22  # pixels of a batch where nothing is learnt
CPU_PICTURES = (
    16  # of 83 of 224 pixels activations leave a CPU's caches: each takes one and a half times as long
)

Images = Tensor | PictureFiles  # uint8 (N, C, H, W)


def in_batches(images: Images, sizes: int | list[int]) -> Sequence[Tensor]:
    """The images in batches of a size, of which the last may be smaller, or of these sizes."""
    return torch.split(images, sizes) if isinstance(images, Tensor) else images.split(sizes)


def evaluation_batch(images: Images) -> int:
    """Images a batch where nothing is learnt: 1,000 small ones, as many as memory holds of large ones."""
    return max(1, min(1000, EVALUATED // (images.shape[2] * images.shape[3])))


def cpu_batch(images: Images) -> int:
    """The same for a CPU, for which fewer pictures are quicker."""
    size = evaluation_batch(images)
    return size if isinstance(images, Tensor) else min(size, CPU_PICTURES)
