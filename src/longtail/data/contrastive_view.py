"""MoCo-v2's second look at an image (Chen et al. 2020), a whole epoch at once.

A random part at the size of the image, colours, grey, mirror image, in this order. Gaussian blur, which
MoCo-v2 has for pictures of 224 pixels, is left out [ours]: images of 32 have little to lose.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from longtail.data.augmentation import CACHED, CHUNK_BYTES, LUMINANCE, jittered, resized_crops
from longtail.data.images import Images
from longtail.device import sent
from longtail.settings.augmentation import Jitter, ResizedCrop


@dataclass(frozen=True, kw_only=True)
class ContrastiveView:
    """Makes the view; MoCo-v2's numbers.

    Attributes:
        smallest: share of the image's area that a part has at least.
        jitter: strengths of brightness, contrast and saturation, done in this order [ours: MoCo-v2's order is
            random].
        hue: the largest shift of the hue, as a share of the circle.
        jitter_chance, grey_chance: probability that an image's colours change, and that it becomes grey.
        flip: whether a random half of the images is mirrored.
    """

    smallest: float = 0.2
    jitter: Jitter = field(default_factory=Jitter)
    hue: float = 0.1
    jitter_chance: float = 0.8
    grey_chance: float = 0.2
    flip: bool = True

    def __call__(self, images: Images, generator: torch.Generator) -> Images:
        """Another look at uint8 images (N, C, H, W), or at picture files; the images stay as they are.

        Args:
            images: on any device; colours change where there are three channels.
            generator: a CPU generator, from which all random numbers come.
        """
        count = len(images)
        crop = resized_crops(count, ResizedCrop(scale=(self.smallest, 1.0)), generator)
        chance = torch.rand(count, 7, generator=generator)
        if not isinstance(images, Tensor):
            return images.seen(crop, lambda batch, places: self._coloured(batch, chance[places]))
        height, width = images.shape[-2:]
        boxes = torch.tensor([crop(place, width, height) for place in range(count)], dtype=torch.float32)
        result = torch.empty_like(images)
        for part in _parts(images):
            result[part] = self._coloured(resized(images[part], boxes[part]), chance[part])
        return result

    def _coloured(self, images: Tensor, chance: Tensor) -> Tensor:
        """What follows the part, by numbers in [0, 1) (N, 7)."""
        happens = (chance[:, 4:5] < self.jitter_chance).float()
        signed = (2 * chance[:, :4] - 1) * happens  # a shift of nought changes nothing
        images = jittered(images, signed[:, :3], self.jitter)
        if images.shape[1] == 3:
            images = hue_shifted(images, self.hue * signed[:, 3])
            grey = sent(chance[:, 5] < self.grey_chance, images.device).view(-1, 1, 1, 1)
            weights = sent(torch.tensor(LUMINANCE), images.device).view(1, 3, 1, 1)
            light = (images.float() * weights).sum(1, keepdim=True).round().to(torch.uint8)
            images = torch.where(grey, light, images)
        if self.flip:
            mirrored = sent(chance[:, 6] < 0.5, images.device).view(-1, 1, 1, 1)
            images = torch.where(mirrored, images.flip(3), images)
        return images


def _parts(images: Tensor) -> Iterator[slice]:
    """So many images at a time as a cache holds, or on another device as memory may."""
    each = max(1, images[:1].numel())
    size = max(1, (CACHED if images.device.type == "cpu" else CHUNK_BYTES) // each)
    return (slice(start, start + size) for start in range(0, len(images), size))


def resized(images: Tensor, boxes: Tensor) -> Tensor:
    """A part of each image at the size of the whole, bilinear, as torchvision's resized_crop has it.

    Args:
        images: uint8 (N, C, H, W).
        boxes: left, top, width and height of the parts in pixels, float32 (N, 4), on the CPU.
    """
    left, top, width, height = sent(boxes, images.device).unbind(1)
    rows = _between(top, height, images.shape[-2])
    columns = _between(left, width, images.shape[-1])
    found = rows.unsqueeze(1) @ images.float() @ columns.unsqueeze(1).transpose(-1, -2)
    return found.round_().clamp_(0, 255).to(torch.uint8)


def _between(first: Tensor, length: Tensor, size: int) -> Tensor:
    """How much each pixel of the part is of each pixel of the image, along one side: (N, size, size)."""
    pixels = torch.arange(size, device=first.device, dtype=torch.float32)
    first, length = first.unsqueeze(1), length.unsqueeze(1)
    places = first + (pixels + 0.5) * length / size - 0.5
    places = torch.minimum(torch.maximum(places, first), first + length - 1)
    return (1 - (places.unsqueeze(2) - pixels).abs()).clamp_min_(0)


def hue_shifted(images: Tensor, shift: Tensor) -> Tensor:
    """RGB images, uint8 (N, 3, H, W), with their hue shifted by a share of the circle (N,), on the CPU.

    By the hexagon model: with hue h in [0, 6), largest value v and range c, the channels red, green and blue
    are v - c clamp(min(k, 4 - k), 0, 1) with k = (n + h) mod 6, n = 5, 3, 1.
    """
    red, green, blue = (images.float() / 255).unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    over = torch.where(spread == 0, 1.0, spread)
    late = torch.where(value == green, (blue - red) / over + 2, (red - green) / over + 4)
    hue = torch.where(value == red, (green - blue) / over, late)
    hue = hue + 6 * sent(shift, images.device).view(-1, 1, 1)
    channels = []
    for n in (5, 3, 1):
        k = (n + hue).remainder(6)
        channels.append(value - spread * torch.minimum(k, 4 - k).clamp(0, 1))
    return (torch.stack(channels, dim=1) * 255).round_().clamp_(0, 255).to(torch.uint8)
