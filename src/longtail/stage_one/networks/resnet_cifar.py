"""ResNet for 32 x 32 images (He et al. 2016, section 4.2), as the long-tailed field means it.

ResNet-32 with widths 16/32/64 and parameter-free shortcuts: 464,154 parameters with 10 classes and
470,004 with 100 (3 channels). Networks that are called ResNet-32 elsewhere and have more of them (widths
64/128/256, or a 128-dimensional feature) are not comparable with the printed tables.
"""

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from longtail.settings.base import Neutral
from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.networks.cosine import CosineHead
from longtail.stage_one.networks.fused_batchnorm import FusableBatchNorm, bn_relu
from longtail.stage_one.networks.place_weights import weighted_mean


class Settings(BaseSettings):
    """Depth, width, pooling and head; the default is the ResNet-32 of the field's tables."""

    stages: ClassVar = 3

    depth: int = Field(32, ge=8, le=2000)  # 6n + 2 layers, n blocks a stage [paper]
    width: int = Field(16, ge=2, le=4096, multiple_of=2)  # channels of the first stage, doubled twice [paper]
    head: Annotated[Literal["linear", "cosine"], Neutral("linear")] = "linear"  # cosine: LDAM's
    scale: Annotated[float, Neutral(30.0)] = Field(30.0, gt=0)  # of a cosine head's logits [code] of LDAM
    # over the places of the last maps; bfr: those that look like background count less (place_weights)
    pooling: Annotated[Literal["mean", "bfr"], Neutral("mean")] = "mean"

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth % 6 != 2:
            raise ValueError(f"{depth} is not 6n + 2 (n blocks a stage), e.g. 20, 32, 44, 56, 110")
        return depth


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters (option A of the paper).

    Where the shape changes, the shortcut takes every second pixel and pads the channels with zeros, the
    same number before and after.
    """

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, padding=1, bias=False)
        self.bn1 = FusableBatchNorm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = FusableBatchNorm(planes)
        self.stride = stride
        self.padding = (planes - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, planes, ceil(H / stride), ceil(W / stride))."""
        out = self.conv2(bn_relu(self.bn1, self.conv1(x)))
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.padding:
            x = F.pad(x, (0, 0, 0, 0, self.padding, self.padding))
        return bn_relu(self.bn2, out, x)


class ResNetCifar(nn.Module):
    """Stem, three stages of basic blocks, pooling over all places and a linear or cosine head.

    Weights of convolutions and of a linear head are drawn from He et al.'s normal distribution (fan in), as
    in the field's public code, from torch's global generator.

    Attributes:
        head: the classifier, `nn.Linear(4 width, classes)` or `CosineHead(4 width, classes, scale)`.
    """

    def __init__(self, settings: Settings, channels: int, classes: int) -> None:
        super().__init__()
        blocks, width = (settings.depth - 2) // 6, settings.width
        self.pooling = settings.pooling
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = FusableBatchNorm(width)
        self.stage1 = _stage(blocks, width, width, stride=1)
        self.stage2 = _stage(blocks, width, 2 * width, stride=2)
        self.stage3 = _stage(blocks, 2 * width, 4 * width, stride=2)
        self.head: nn.Module = (
            CosineHead(4 * width, classes, settings.scale)
            if settings.head == "cosine"
            else nn.Linear(4 * width, classes)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @property
    def last_block(self) -> nn.Module:
        """The last block of two convolutions."""
        return self.stage3[-1]

    @property
    def last_stage(self) -> nn.Module:
        """All blocks of the last width."""
        return self.stage3

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """The stages, between which `maps` and `features_of` part the network."""
        return self.stage1, self.stage2, self.stage3

    def maps(self, x: Tensor, stage: int) -> Tensor:
        """Images (B, channels, H, W) to what a stage, counted from 1, puts out, (B, its channels, H', W')."""
        # Strides of one-channel images name no memory format; from here on it is always channels_last.
        x = self.conv(x).contiguous(memory_format=torch.channels_last)
        x = bn_relu(self.bn, x)
        for part in self.stages[:stage]:
            x = part(x)
        return x

    def features_of(self, maps: Tensor, stage: int) -> Tensor:
        """What a stage puts out to features (B, 4 width); at least float32."""
        for part in self.stages[stage:]:
            maps = part(maps)
        if self.pooling == "bfr":
            return weighted_mean(maps)
        return maps.mean(dim=(2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))

    def features(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) to features (B, 4 width): means after the last ReLU, so >= 0.

        At least float32, also where the convolutions run in bfloat16.
        """
        return self.features_of(self.maps(x, 3), 3)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) to logits (B, classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def build(settings: Settings, channels: int, classes: int) -> ResNetCifar:
    """A freshly initialised network for images with `channels` channels and any size from 1 x 1 on."""
    return ResNetCifar(settings, channels, classes)


def _stage(blocks: int, channels: int, planes: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels, planes, stride)
    return nn.Sequential(first, *(BasicBlock(planes, planes, stride=1) for _ in range(blocks - 1)))
