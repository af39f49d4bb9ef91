"""How training images are augmented."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from longtail.settings.base import Neutral, Settings

Positive = Annotated[float, Field(gt=0)]
Range = Annotated[tuple[Positive, Positive], Field(strict=False)]  # a list of two


class ResizedCrop(Settings):
    """A random part of a picture (Szegedy et al. 2015), as torchvision's RandomResizedCrop chooses it."""

    scale: Range = (0.08, 1.0)  # share of the picture's area
    ratio: Range = (3 / 4, 4 / 3)  # width / height of the part

    @model_validator(mode="after")
    def _in_order(self) -> "ResizedCrop":
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} should be [lowest, highest], not [{low:g}, {high:g}]")
        if self.scale[1] > 1:
            raise ValueError(f"scale is a share of the picture's area: {self.scale[1]:g} is above 1")
        return self


Strength = Annotated[float, Field(ge=0, le=1)]


class Jitter(Settings):
    """Random colours: every factor is uniform in [1 - strength, 1 + strength], in this order [ours]."""

    brightness: Strength = 0.4  # Decoupling's code: 0.4 each
    contrast: Strength = 0.4  # the factor is within 1 ± this
    saturation: Strength = 0.4  # the factor is within 1 ± this


class RandAugment(Settings):
    """Operations of one magnitude, chosen at random (Cubuk et al. 2020), as torchvision's RandAugment."""

    operations: int = Field(2, ge=1, le=100)  # of each image, one after the other
    magnitude: int = Field(9, ge=0, le=30)  # of all operations


class Augmentation(Settings):
    """Batched augmentation of uint8 images, in the order of these keys, after `resized_crop`."""

    crop: int = Field(4, ge=0, le=4096)  # padding in pixels; 0: no crop
    flip: bool = True  # left and right at random
    # changes of brightness, contrast and saturation; null: none
    jitter: Annotated[Jitter | None, Neutral(None)] = None
    randaugment: Annotated[RandAugment | None, Neutral(None)] = None  # null: none
    autoaugment: Literal["none", "cifar10"] = "cifar10"  # AutoAugment's policy for CIFAR-10
    fill: int = Field(128, ge=0, le=255)  # AutoAugment's fill
    cutout: int = Field(16, ge=0, le=4096)  # side of the hole in pixels; 0: none
    resized_crop: Annotated[ResizedCrop | None, Neutral(None)] = None  # of picture files, in place of crop

    @model_validator(mode="after")
    def _one_crop(self) -> "Augmentation":
        if self.resized_crop and self.crop:
            raise ValueError("resized_crop and crop exclude each other; give it crop: 0")
        return self
