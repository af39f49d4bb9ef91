"""Operations of torchvision that make the host wait for a GPU, in forms that do not; the same to the bit.

A CPU takes torchvision's own.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def equalised(images: Tensor, _magnitude: float = 0.0) -> Tensor:
    """torchvision's equalize, to the bit, from sorted pixels.

    It counts grey levels by adding up at indices, for which a GPU's deterministic form sorts all pixels of
    all images as one list. Here each image is sorted, and the levels are looked up in it.
    """
    channels = images.flatten(2).flatten(0, 1)  # (N C, H W)
    levels = torch.arange(255, dtype=torch.uint8, device=images.device).expand(len(channels), 255)
    ordered = channels.sort(dim=1).values
    below = torch.searchsorted(ordered, levels.contiguous(), right=True)  # pixels of at most each level
    largest = (ordered == ordered[:, -1:]).sum(dim=1, keepdim=True)
    step = (channels.shape[1] - largest).div(255, rounding_mode="floor")
    table = below.add(step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp(0, 255).to(torch.uint8)
    table = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
    return torch.where(step == 0, channels, table.gather(1, channels.long())).view(images.shape)


def autocontrasted(images: Tensor, _magnitude: float = 0.0) -> Tensor:
    """torchvision's autocontrast, without a mask as index, whose length the host has to know."""
    pixels = images.float()
    least, most = pixels.amin(dim=(2, 3), keepdim=True), pixels.amax(dim=(2, 3), keepdim=True)
    flat = most == least
    scale = torch.where(flat, 1.0, (most - least) * (1.0 / 255))
    return ((pixels - torch.where(flat, 0.0, least)) / scale).clamp(0, 255).to(torch.uint8)


def sharpened(images: Tensor, magnitude: float) -> Tensor:
    """torchvision's adjust_sharpness by 1 + magnitude, with a kernel that is on the device already."""
    channels, height, width = images.shape[1:]
    if height <= 2 or width <= 2:
        return images
    pixels = images.float()
    blurred = F.conv2d(pixels, _blur(images.device).expand(channels, 1, 3, 3), groups=channels).round_()
    inside = pixels[..., 1:-1, 1:-1]
    inside.add_(blurred.sub_(inside), alpha=1.0 - (1 + magnitude))
    return pixels.clamp_(0, 255).to(torch.uint8)


@cache
def _blur(device: torch.device) -> Tensor:
    a, b = 1.0 / 13.0, 5.0 / 13.0
    return torch.tensor([[a, a, a], [a, b, a], [a, a, a]]).to(device)  # the host waits, as in operations.py


WITHOUT_WAITING: dict[str, Callable[[Tensor, float], Tensor]] = {
    "AutoContrast": autocontrasted,
    "Equalize": equalised,
    "Sharpness": sharpened,
}
