"""The operations of AutoAugment and RandAugment on uint8 tensors, images of one operation at once.

Operations and magnitudes are torchvision's, on tensors, with the nearest pixel where an image moves; the
CIFAR-10 policy is that of Cubuk et al. (2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from longtail.data.device_operations import WITHOUT_WAITING
from longtail.device import sent

MAGNITUDE_BINS = 31  # of RandAugment


MAGNITUDES = 10  # steps of an AutoAugment magnitude, as the policy counts them


MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


@dataclass(frozen=True)
class Policy:
    """AutoAugment's policy in the form of tables; s is a sub-policy, i its first or second operation.

    Attributes:
        operations: every (name, magnitude) that occurs.
        number: index into `operations` for [s, i, sign], sign 1 if positive, int64 (25, 2, 2).
        probability: of operation i of sub-policy s, (25, 2).
    """

    operations: list[tuple[str, float]]
    number: Tensor
    probability: Tensor


def by_group(
    images: Tensor,
    number: Tensor,
    operations: Sequence[tuple[str, float]],
    fill: int,
    happens: Tensor | None = None,
) -> None:
    """Do to each image the operation of its number (N,), where it happens; those of one operation at once."""
    chosen = torch.arange(len(number)) if happens is None else happens.nonzero().flatten()
    number = number[chosen]
    order = sent(chosen[number.argsort(stable=True)], images.device)
    sizes = number.bincount(minlength=len(operations)).tolist()
    for (name, magnitude), group in zip(operations, torch.split(order, sizes), strict=True):
        if len(group) and name != "Identity":
            images.index_copy_(0, group, operate(images.index_select(0, group), name, magnitude, fill))


@cache
def randaugment_space(magnitude: int, height: int, width: int) -> list[list[tuple[str, float]]]:
    """RandAugment's operations as torchvision has them, each with its magnitude of both signs."""
    from torchvision.transforms import RandAugment

    space = RandAugment(magnitude=magnitude)._augmentation_space(MAGNITUDE_BINS, (height, width))
    found = []
    for name, (magnitudes, signed) in space.items():
        value = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
        found.append([(name, sign * value if signed else value) for sign in (-1, 1)])
    return found


@cache
def cifar10_policy(height: int, width: int) -> Policy:
    """AutoAugment's CIFAR-10 policy as torchvision has it, for images of a size (translations scale)."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    autoaugment = AutoAugment(AutoAugmentPolicy.CIFAR10)
    space = autoaugment._augmentation_space(MAGNITUDES, (height, width))
    operations: dict[tuple[str, float], int] = {}

    def number(name: str, step: int | None, sign: int) -> int:
        magnitudes, signed = space[name]
        magnitude = 0.0 if step is None else float(magnitudes[step])
        key = name, sign * magnitude if signed else magnitude
        return operations.setdefault(key, len(operations))

    numbers = [
        [[number(name, step, sign) for sign in (-1, 1)] for name, _, step in sub_policy]
        for sub_policy in autoaugment.policies
    ]
    probabilities = [[probability for _, probability, _ in pair] for pair in autoaugment.policies]
    return Policy(list(operations), torch.tensor(numbers), torch.tensor(probabilities))


def operate(images: Tensor, name: str, magnitude: float, fill: int) -> Tensor:
    """One operation of AutoAugment's space on every image of (N, C, H, W), C 1 or 3, uint8.

    Args:
        images: any number of them.
        name: as torchvision names it.
        magnitude: with its sign, in torchvision's unit (pixels, degrees, tangent, bits, grey levels).
        fill: grey level of what a move brings in from outside.
    """
    from torchvision.transforms.v2 import functional

    if name in MOVES:
        return _move(images, name, magnitude, fill)
    if images.device.type != "cpu" and name in WITHOUT_WAITING:
        return WITHOUT_WAITING[name](images, magnitude)
    match name:
        case "Brightness":
            result = functional.adjust_brightness(images, 1 + magnitude)
        case "Color":
            result = functional.adjust_saturation(images, 1 + magnitude)
        case "Contrast":
            result = functional.adjust_contrast(images, 1 + magnitude)
        case "Sharpness":
            result = functional.adjust_sharpness(images, 1 + magnitude)
        case "Posterize":
            result = functional.posterize(images, int(magnitude))
        case "Solarize":
            result = functional.solarize(images, magnitude)
        case "AutoContrast":
            result = functional.autocontrast(images)
        case "Equalize":
            result = functional.equalize(images)
        case "Invert":
            result = functional.invert(images)
        case _:
            raise ValueError(f"{name!r} is no operation of the CIFAR-10 policy")
    assert isinstance(result, Tensor)
    return result


def _move(images: Tensor, name: str, magnitude: float, fill: int) -> Tensor:
    """Shear, translate or rotate: every image's pixels go the same way, so the way is found once."""
    sources = _sources(name, magnitude, images.shape[-2], images.shape[-1], images.device)
    flat = images.flatten(2)
    numbered = torch.cat([torch.full_like(flat[:, :, :1], fill), flat], dim=2)
    return numbered.gather(2, sources.expand_as(flat)).view(images.shape)


@cache
def _sources(name: str, magnitude: float, height: int, width: int, device: torch.device) -> Tensor:
    """Where each pixel of a moved image comes from: 1 + its index in the image, 0 from outside, (H W,).

    It is what torchvision makes of an image whose pixels hold their own numbers (nearest neighbour).
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import _apply_op

    numbers = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, height, width)
    moved: Tensor = _apply_op(numbers, name, magnitude, InterpolationMode.NEAREST, fill=[0.0])
    return moved.long().flatten().to(device)  # the host waits: streams of other trainings share it
