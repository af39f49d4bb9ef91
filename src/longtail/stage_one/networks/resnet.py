"""ResNets of large images (He et al. 2016, Xie et al. 2017): torchvision's, as features and a head.

ResNet-10 is the field's own of ImageNet-LT (Liu et al. 2019): basic blocks, one a stage, 5,418,792 parameters
with 1,000 classes. With as many, ResNet-18 has 11,689,512, ResNet-50 25,557,032, ResNet-152 60,192,808 and
ResNeXt-50 (32x4d) 25,028,904. ResNets of depth 50 and more have their strides in the 3 x 3 convolutions, as
torchvision's and Decoupling's have; weights that were trained with strides elsewhere (Caffe's) load, but are
of another network.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torchvision.models import resnet as torchvision

from longtail.settings.base import Neutral
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.weight_file import WeightFile, as_file
from longtail.stage_one.networks.batchnorm import BatchNorm
from longtail.stage_one.networks.cosine import CosineHead
from longtail.stage_one.networks.pretrained import load, read, read_torchvision


class Settings(BaseSettings):
    """Architecture, head, and the weights to begin with."""

    stages: ClassVar = 4

    architecture: Literal[
        "resnet10",
        "resnet18",
        "resnet34",
        "resnet50",  # [paper] GLAG: with resnet10 on ImageNet-LT, alone on iNaturalist 2018
        "resnet101",
        "resnet152",  # Places-LT
        "resnext50",  # 32x4d; Decoupling on ImageNet-LT
        "resnext101",  # 32x8d
    ] = "resnet50"
    head: Annotated[Literal["linear", "cosine"], Neutral("linear")] = "linear"  # of the network
    scale: Annotated[float, Neutral(30.0)] = Field(30.0, gt=0)  # of a cosine head's logits
    # A file, e.g. SSP's for iNaturalist 2018 [paper]; or torchvision's weights of the balanced ImageNet, of
    # which ImageNet-LT is a part: for Places-LT, never for ImageNet-LT. The head is not taken.
    pretrained: Annotated[Literal["torchvision"] | WeightFile | None, Neutral(None)] = None

    @field_validator("pretrained", mode="before")
    @classmethod
    def _a_path(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError(f"{str(value).lower()} is neither null, nor torchvision, nor the path of a file")
        return value if value == "torchvision" else as_file(value)

    @model_validator(mode="after")
    def _torchvision_has_it(self) -> "Settings":
        if (self.architecture, self.pretrained) == ("resnet10", "torchvision"):
            raise ValueError("torchvision has no weights of resnet10; pretrained: null, or a file of weights")
        return self


# Blocks, blocks a stage, groups, channels a group.
ARCHITECTURES = {
    "resnet10": (torchvision.BasicBlock, [1, 1, 1, 1], 1, 64),
    "resnet18": (torchvision.BasicBlock, [2, 2, 2, 2], 1, 64),
    "resnet34": (torchvision.BasicBlock, [3, 4, 6, 3], 1, 64),
    "resnet50": (torchvision.Bottleneck, [3, 4, 6, 3], 1, 64),
    "resnet101": (torchvision.Bottleneck, [3, 4, 23, 3], 1, 64),
    "resnet152": (torchvision.Bottleneck, [3, 8, 36, 3], 1, 64),
    "resnext50": (torchvision.Bottleneck, [3, 4, 6, 3], 32, 4),
    "resnext101": (torchvision.Bottleneck, [3, 4, 23, 3], 32, 8),
}
# torchvision's default weights, by names that end with the first digits of their SHA-256. They stand here and
# so in a run's identity: "default" is another file in another version.
DEFAULT_WEIGHTS = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-11ad3fa6.pth",
    "resnet101": "resnet101-cd907fc2.pth",
    "resnet152": "resnet152-f82ba261.pth",
    "resnext50": "resnext50_32x4d-1a0047aa.pth",
    "resnext101": "resnext101_32x8d-110c445d.pth",
}
HEADS = ("head.", "fc.")  # ours, and that of torchvision, SSP, MoCo


class ResNet(torchvision.ResNet):  # type: ignore[misc] # torchvision has no types
    """torchvision's ResNet with a head that can be taken off, and batch normalisation that does not count.

    Convolutions are drawn from He et al.'s normal distribution (fan out), a linear head from torch's uniform
    one, as torchvision and the field's code have it, from torch's global generator.

    Attributes:
        head: the classifier, `nn.Linear(d, classes)` or `CosineHead(d, classes, scale)`; d is 512, with
            bottlenecks 2048.
    """

    def __init__(self, settings: Settings, channels: int, classes: int) -> None:
        block, layers, groups, width = ARCHITECTURES[settings.architecture]
        super().__init__(block, layers, classes, groups=groups, width_per_group=width, norm_layer=BatchNorm)
        linear = self._modules.pop("fc")
        assert isinstance(linear, nn.Linear)
        self.head: nn.Module = linear
        if settings.head == "cosine":
            self.head = CosineHead(linear.in_features, classes, settings.scale)
        if channels != 3:
            self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self._settings = settings

    @property
    def last_block(self) -> nn.Module:
        """The last block with a shortcut."""
        block: nn.Module = self.layer4[-1]
        return block

    @property
    def last_stage(self) -> nn.Module:
        """All blocks of the last resolution; the paper's conv5_x."""
        stage: nn.Module = self.layer4
        return stage

    def load_pretrained(self) -> str | None:
        """Take the weights that the settings name, all but the head; what they are, None if there are none.

        Raises:
            UserError: if they are not there, not those that were planned, or do not fit.
        """
        source = self._settings.pretrained
        if source is None:
            return None
        if isinstance(source, WeightFile):
            load(self, read(source), source.file, HEADS)
            return f"{source.file}, SHA-256 {source.sha256}"
        name = DEFAULT_WEIGHTS[self._settings.architecture]
        load(self, read_torchvision(name), name, HEADS)
        return f"torchvision's {name}"

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """The stages, between which `maps` and `features_of` part the network."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def maps(self, x: Tensor, stage: int) -> Tensor:
        """Images (B, channels, H, W) to what a stage, counted from 1, puts out, (B, its channels, H', W')."""
        # Strides of one-channel images name no memory format; from here on it is always channels_last.
        x = self.conv1(x).contiguous(memory_format=torch.channels_last)
        x = self.maxpool(self.relu(self.bn1(x)))
        for part in self.stages[:stage]:
            x = part(x)
        return x

    def features_of(self, maps: Tensor, stage: int) -> Tensor:
        """What a stage puts out to features (B, d); at least float32."""
        for part in self.stages[stage:]:
            maps = part(maps)
        return maps.mean(dim=(2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))

    def features(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) to features (B, d): averages after the last ReLU, so >= 0.

        At least float32, also where the convolutions run in bfloat16.
        """
        return self.features_of(self.maps(x, 4), 4)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) to logits (B, classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def build(settings: Settings, channels: int, classes: int) -> ResNet:
    """A freshly initialised network; weights to begin with are loaded by `load_pretrained`, never here."""
    return ResNet(settings, channels, classes)
