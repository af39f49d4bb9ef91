"""Pictures that decode like photographs, made anew for a measurement.

They are the same on every machine, so that figures of two machines compare and nobody needs a data set.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from longtail.random import generator

NUMBER, CLASSES = 1000, 10
HEIGHT, WIDTH = 212, 300  # the median of the photographs in docs/explanation/scale.md
QUALITY = 90
NOTE = f"JPEGs of {WIDTH} x {HEIGHT} that the benchmark makes"
SCALES = 7  # noise of 1, 2, 4, ... pixels


def picture(index: int) -> Tensor:
    """Gradients under noise whose strength grows with its scale, as in photographs; uint8 (3, H, W)."""
    random = generator("benchmark", "photographs", index)
    across, down, middle = torch.randn(3, 3, 1, 1, generator=random)
    field = across * torch.linspace(-1, 1, WIDTH) + down * torch.linspace(-1, 1, HEIGHT)[:, None]
    for scale in range(SCALES):
        side = 2**scale
        grid = torch.randn(1, 3, -(-HEIGHT // side) + 1, -(-WIDTH // side) + 1, generator=random)
        grey = grid.mean(1, keepdim=True) * 3**0.5  # colours differ less than brightness
        made = interpolate(0.9 * grey + 0.3 * grid, scale_factor=side, mode="bilinear")[0]
        field = field + 0.06 * 1.7**scale * made[:, :HEIGHT, :WIDTH]
    seen: Tensor = 128 + 24 * middle + 40 * field
    return seen.round().clamp(0, 255).to(torch.uint8)


def write(folder: Path, number: int = NUMBER) -> None:
    """So many JPEGs in a folder for each class."""
    for index in range(number):
        file = folder / f"class{index % CLASSES}" / f"{index:04}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels: np.ndarray = picture(index).permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(file, quality=QUALITY)
