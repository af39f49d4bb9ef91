"""Augmentation of images, a whole epoch at once: crop, flip, AutoAugment, Cutout, and more for pictures.

The chain is that of Balanced Meta-Softmax's public code (Ren et al. 2020), which GLAG trains with: random
crop from a zero border (He et al. 2016), horizontal flip, AutoAugment's CIFAR-10 policy (Cubuk et al.
2019), Cutout with one square hole (DeVries and Taylor 2017), then `normalise`. It is done with few large
tensor operations: images that chance gave the same operation are handled together, since the magnitudes
are constants of the policy. `draw` takes every random number, `apply` takes none.

Operations and magnitudes are torchvision's, on tensors, with the nearest pixel where an image moves; that
code's are PIL's, which round and interpolate differently.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.data.decode import Box
from longtail.data.images import Images
from longtail.data.operations import by_group, cifar10_policy, randaugment_space
from longtail.data.picture_loader import Crop
from longtail.device import sent
from longtail.errors import UserError
from longtail.settings.augmentation import Augmentation, Jitter, ResizedCrop

CHUNK_BYTES = 48 << 20  # of images at once: 16,384 of 3 x 32 x 32; working memory is about four times that


LUMINANCE = (0.2989, 0.587, 0.114)  # of red, green and blue, by ITU-R 601-2, as torchvision has it


CACHED = 1 << 18  # values of images that a processor's cache holds as float32


ATTEMPTS = 10  # to find a part of a picture


@dataclass(frozen=True)
class Draws:
    """What chance decided for N images; all on the CPU, drawn whether the settings use it or not.

    Attributes:
        top, left: corner of the crop in the padded image, in [0, 2 crop], int64 (N,).
        flip: whether the image is mirrored, bool (N,).
        policy: AutoAugment's sub-policy, in [0, 25), int64 (N,).
        chance: uniform in [0, 1); an operation happens where it is below its probability, (N, 2).
        positive: the sign of the magnitude, for operations that have one, bool (N, 2).
        hole: centre (y, x) of Cutout's hole, in [0, H) x [0, W), int64 (N, 2).
        jitter: uniform in [-1, 1), for brightness, contrast and saturation, (N, 3); None without jitter.
        operation: RandAugment's operations, indices of its space, int64 (N, n); None without it.
        sign: of their magnitudes, int64 0 or 1 (N, n); None without it.
    """

    top: Tensor
    left: Tensor
    flip: Tensor
    policy: Tensor
    chance: Tensor
    positive: Tensor
    hole: Tensor
    jitter: Tensor | None = None
    operation: Tensor | None = None
    sign: Tensor | None = None

    def __getitem__(self, part: slice | Tensor) -> "Draws":
        """The draws of some of the images."""
        kept = {name: values[part] for name, values in vars(self).items() if values is not None}
        return Draws(**kept)


@overload
def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor: ...


@overload
def augment(images: Images, settings: Augmentation, generator: torch.Generator) -> Images: ...


def augment(images: Images, settings: Augmentation, generator: torch.Generator) -> Images:
    """Augmented copies of uint8 images (N, C, H, W), same shape and device; the images stay as they are.

    Args:
        images: on any device; of picture files, everything is drawn now and done when they are decoded.
        settings: which operations; all off is the identity.
        generator: a CPU generator, from which all random numbers come.

    Raises:
        UserError: if AutoAugment meets images that are neither grey nor RGB.
    """
    count, size = len(images), images.shape[-2:]
    crop = None
    if settings.resized_crop:
        if isinstance(images, Tensor):
            raise UserError("augmentation.resized_crop is for picture files; images of one size have crop")
        crop = resized_crops(count, settings.resized_crop, generator)
    draws = draw(count, size, settings, generator)
    if isinstance(images, Tensor):
        return apply(images, draws, settings)
    return images.seen(crop, lambda batch, places: apply(batch, draws[places], settings))


def resized_crops(count: int, settings: ResizedCrop, generator: torch.Generator) -> Crop:
    """Random parts of `count` pictures of whichever sizes, as torchvision: ten attempts, then the middle."""
    drawn = torch.rand(count, 2 * ATTEMPTS + 2, generator=generator).numpy()
    (least, most), (low, high) = settings.scale, (math.log(edge) for edge in settings.ratio)

    def crop(place: int, width: int, height: int) -> Box:
        chance = drawn[place].tolist()
        for attempt in range(ATTEMPTS):
            area = width * height * (least + (most - least) * chance[2 * attempt])
            ratio = math.exp(low + (high - low) * chance[2 * attempt + 1])
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                left, top = int(chance[-2] * (width - across + 1)), int(chance[-1] * (height - down + 1))
                return left, top, across, down
        ratio = min(max(width / height, settings.ratio[0]), settings.ratio[1])
        across = max(1, min(width, round(height * ratio)))
        down = max(1, min(height, round(width / ratio)))
        return (width - across) // 2, (height - down) // 2, across, down

    return crop


def draw(count: int, size: Sequence[int], settings: Augmentation, generator: torch.Generator) -> Draws:
    """Draw what happens to `count` images of `size` (H, W)."""
    height, width = size

    def integers(below: int, *shape: int) -> Tensor:
        return torch.randint(below, (count, *shape), generator=generator)

    draws = Draws(
        top=integers(2 * settings.crop + 1),
        left=integers(2 * settings.crop + 1),
        flip=integers(2).bool(),
        policy=integers(25),
        chance=torch.rand(count, 2, generator=generator),
        positive=integers(2, 2).bool(),
        hole=torch.stack([integers(height), integers(width)], dim=1),
    )
    if settings.jitter:
        draws = replace(draws, jitter=2 * torch.rand(count, 3, generator=generator) - 1)
    if settings.randaugment:
        number = settings.randaugment.operations
        space = randaugment_space(settings.randaugment.magnitude, height, width)
        operation = torch.randint(len(space), (count, number), generator=generator)
        draws = replace(draws, operation=operation, sign=integers(2, number))
    return draws


def apply(images: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Do to images (N, C, H, W) what was drawn for each; arguments, result and errors as of `augment`."""
    if images.dtype != torch.uint8:
        raise TypeError(f"augmentation takes images of dtype uint8, not {images.dtype}")
    if settings.autoaugment != "none" and images.shape[1] not in (1, 3):
        raise UserError(
            f"augmentation.autoaugment: {settings.autoaugment} takes grey or RGB images, "
            f"these have {images.shape[1]} channels; set autoaugment: none"
        )
    augmented = torch.empty(images.shape, dtype=images.dtype, device=images.device)
    chunk = max(1, CHUNK_BYTES // max(1, images[:1].numel()))
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        drawn, view = draws[part], augmented[part]
        if settings.crop:
            flipped = drawn.flip & settings.flip
            view.copy_(crop_and_flip(images[part], drawn.top, drawn.left, flipped, settings.crop))
        else:
            view.copy_(images[part])
            if settings.flip:
                mirrored = sent(drawn.flip.nonzero().flatten(), view.device)
                view.index_copy_(0, mirrored, view.index_select(0, mirrored).flip(3))
        if settings.jitter and drawn.jitter is not None:
            view.copy_(jittered(view, drawn.jitter, settings.jitter))
        if settings.randaugment and drawn.operation is not None and drawn.sign is not None:
            space = randaugment_space(settings.randaugment.magnitude, *view.shape[-2:])
            for operation, sign in zip(drawn.operation.T, drawn.sign.T, strict=True):
                by_group(
                    view, 2 * operation + sign, [pair for signs in space for pair in signs], settings.fill
                )
        if settings.autoaugment != "none":
            _autoaugment(view, drawn, settings.fill)
        if settings.cutout:
            _cutout(view, drawn.hole, settings.cutout)
    return augmented


def crop_and_flip(images: Tensor, top: Tensor, left: Tensor, flipped: Tensor, padding: int) -> Tensor:
    """Windows of the images' own size out of the images with a border of zeros, some of them mirrored.

    Args:
        images: (N, C, H, W).
        top, left: corner of each window in the padded image, in [0, 2 padding], (N,).
        flipped: which windows are mirrored left to right, bool (N,).
        padding: width of the border in pixels.
    """
    _, channels, height, width = images.shape
    device = images.device
    top, left, flipped = (sent(drawn, device) for drawn in (top, left, flipped))
    along = torch.arange(width, device=device).expand(len(images), width)
    rows = (top[:, None] + torch.arange(height, device=device)) * (width + 2 * padding)
    columns = left[:, None] + torch.where(flipped[:, None], along.flip(1), along)
    sources = (rows[:, :, None] + columns[:, None, :]).flatten(1)[:, None].expand(-1, channels, -1)
    return F.pad(images, (padding,) * 4).flatten(2).gather(2, sources).view(images.shape)


def _autoaugment(images: Tensor, draws: Draws, fill: int) -> None:
    policy = cifar10_policy(images.shape[-2], images.shape[-1])
    for i in (0, 1):
        number = policy.number[draws.policy, i, draws.positive[:, i].long()]
        happens = draws.chance[:, i] < policy.probability[draws.policy, i]
        by_group(images, number, policy.operations, fill, happens)


def jittered(images: Tensor, chance: Tensor, settings: Jitter) -> Tensor:
    """Brightness, contrast and saturation of uint8 images (N, C, H, W), each by a factor of its own.

    What torchvision's ColorJitter does, in this order for all images and rounded once.

    Args:
        images: grey or RGB.
        chance: in [-1, 1), (N, 3); a factor is 1 + strength x chance.
        settings: the strengths.
    """
    strengths = torch.tensor([settings.brightness, settings.contrast, settings.saturation])
    factors = sent(1 + strengths * chance, images.device)
    grey = sent(torch.tensor(LUMINANCE if images.shape[1] == 3 else (1.0,)), images.device)
    result = torch.empty_like(images)
    # On a CPU a few images at a time, which stay in its cache from one operation to the next.
    size = len(images) if images.device.type != "cpu" else max(1, CACHED // max(1, images[:1].numel()))
    pieces = (torch.split(tensor, size) for tensor in (images, factors, result))
    for own, factor, out in zip(*pieces, strict=True):
        brightness, contrast, saturation = factor.view(-1, 3, 1, 1, 1).unbind(1)
        found = own.permute(0, 2, 3, 1).float().mul_(brightness).clamp_(0, 255)  # (n, H, W, C)
        middle = (found.mean(dim=(1, 2)) @ grey).view(-1, 1, 1, 1)
        found.sub_(middle).mul_(contrast).add_(middle).clamp_(0, 255)
        middle = (found @ grey).unsqueeze(-1)
        found.sub_(middle).mul_(saturation).add_(middle).clamp_(0, 255).round_()
        out.copy_(found.permute(0, 3, 1, 2))
    return result


def _cutout(images: Tensor, hole: Tensor, side: int) -> None:
    height, width = images.shape[-2:]
    first = sent(hole, images.device) - side // 2
    rows, columns = _outside(first[:, 0], side, height), _outside(first[:, 1], side, width)
    images.mul_((rows[:, :, None] | columns[:, None, :])[:, None])


def _outside(first: Tensor, length: int, size: int) -> Tensor:
    """Which of `size` positions lie outside [first, first + length): (N,) to uint8 0 or 1, (N, size)."""
    distance = torch.arange(size, device=first.device) - first[:, None]
    return ((distance < 0) | (distance >= length)).to(torch.uint8)
