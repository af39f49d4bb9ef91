"""BBN's network (Zhou et al. 2020): a ResNet for 32 x 32 images with its last block twice.

Both branches see the same trunk. One is to learn from images as they come, the other from images that are
sampled the other way round (`longtail.stage_one.steps.two_streams`). ResNet-32 so becomes 550,388 parameters
with 100 classes.
"""

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.networks.fused_batchnorm import FusableBatchNorm, bn_relu
from longtail.stage_one.networks.resnet_cifar import BasicBlock


class Settings(BaseSettings):
    """Depth and width, those of either way through the network."""

    depth: int = Field(32, ge=8, le=2000)  # 6n + 2 layers, n blocks a stage [paper]
    width: int = Field(16, ge=2, le=4096, multiple_of=2)  # channels of the first stage, doubled twice [code]

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth % 6 != 2:
            raise ValueError(f"{depth} is not 6n + 2 (n blocks a stage), e.g. 20, 32, 44, 56, 110")
        return depth


class BilateralBranchNetwork(nn.Module):
    """Trunk, two last blocks of one form, and a linear head over what both make of an image.

    Convolutions are drawn from He et al.'s normal distribution (fan in), the head from torch's uniform one,
    as in the authors' code, from torch's global generator.

    Attributes:
        conventional, rebalancing: the last blocks.
        head: `nn.Linear(8 width, classes)`; the first half of its inputs is of the conventional block.
    """

    def __init__(self, settings: Settings, channels: int, classes: int) -> None:
        super().__init__()
        blocks, width = (settings.depth - 2) // 6, settings.width
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = FusableBatchNorm(width)
        every = [width] * blocks + [2 * width] * blocks + [4 * width] * blocks
        planes = [width, *every]
        self.trunk = nn.Sequential(
            *(_block(planes[place], planes[place + 1]) for place in range(len(every) - 1))
        )
        self.conventional, self.rebalancing = (_block(planes[-2], planes[-1]) for _ in range(2))
        self.head = nn.Linear(8 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def trunk_maps(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) to the maps that both branches see."""
        x = self.conv(x).contiguous(memory_format=torch.channels_last)
        maps: Tensor = self.trunk(bn_relu(self.bn, x))
        return maps

    def branch(self, maps: Tensor, branch: nn.Module) -> Tensor:
        """Maps of the trunk to the features (B, 4 width) of one of the two; at least float32."""
        maps = branch(maps)
        return maps.mean(dim=(2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))

    def features(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) to features (B, 8 width) >= 0, the conventional branch's first."""
        maps = self.trunk_maps(x)
        return torch.cat([self.branch(maps, self.conventional), self.branch(maps, self.rebalancing)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) to logits (B, classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def build(settings: Settings, channels: int, classes: int) -> BilateralBranchNetwork:
    """A freshly initialised network for images with `channels` channels and any size from 1 x 1 on."""
    return BilateralBranchNetwork(settings, channels, classes)


def _block(channels: int, planes: int) -> BasicBlock:
    return BasicBlock(channels, planes, stride=1 if planes == channels else 2)
