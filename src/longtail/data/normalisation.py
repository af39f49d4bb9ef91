"""By what images are normalised, and how.

The constants are a dataset's or those of the settings, and part of the identity of either.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from longtail.settings.data import Pictures
from longtail.settings.datasets import DATASETS


def mean_and_std(
    dataset: str, pictures: Pictures | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """By what images are normalised, per channel on the scale 0 to 1; `pictures` is of picture files."""
    if pictures is not None:
        return tuple(pictures.mean), tuple(pictures.std)
    return DATASETS[dataset].mean, DATASETS[dataset].std


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(images / 255 - mean) / std of uint8 images (N, C, H, W): float32, channels_last, same device.

    Args:
        images: uint8.
        mean, std: per channel, on the scale 0 to 1.
    """
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    pixels = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
    return torch.addcmul(shift, images.float(), scale, out=pixels)


@cache
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    centre, spread = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    scale, shift = 1 / (255 * spread), -centre / spread
    # The host waits for the copy: trainings side by side share what is kept, each in a stream of its own.
    scale, shift = (part.float().view(1, -1, 1, 1).to(device) for part in (scale, shift))
    return scale, shift
