"""Any classification backbone of timm (PyTorch Image Models), as features and a head of ours.

Features are what timm's own classifier reads. Only architectures that end with a ReLU have features >= 0,
which Tukey's ladder needs: not vision transformers, nor what ends with GELU, SiLU or Hardswish.
"""

import re
from importlib import import_module
from os.path import commonpath
from types import ModuleType
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from longtail.errors import UserError
from longtail.settings.base import Neutral
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.known_weights import EMBEDDED, EMBEDDED_ARCHITECTURE, EMBEDDED_WEIGHTS
from longtail.settings.weight_file import WeightFile, as_file
from longtail.stage_one.networks.adapters import adapt, take_trunk
from longtail.stage_one.networks.batchnorm import stop_counting
from longtail.stage_one.networks.cosine import CosineHead
from longtail.stage_one.networks.embedded_weights import SHA256, read_embedded
from longtail.stage_one.networks.pretrained import digest, load, read


class Adapters(BaseSettings):
    """In every block of a vision transformer; `freeze: all_but_adapters` trains them and the head."""

    form: Literal["adaptformer", "lora"] = "adaptformer"  # [paper] LIFT: adaptformer
    # [paper] null: 2^floor(log2(classes / 2 blocks)), at least 1
    bottleneck: int | None = Field(None, ge=1, le=4096)


class Settings(BaseSettings):
    """Architecture, head, and the weights to begin with."""

    architecture: str = Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$")  # timm's name, e.g. resnet50.a1_in1k
    head: Annotated[Literal["linear", "cosine"], Neutral("linear")] = "linear"  # of the network
    scale: Annotated[float, Neutral(30.0)] = Field(30.0, gt=0)  # of a cosine head's logits
    # true: timm's own, those of the tag behind the architecture's name; efficientnet_lite0: those in a
    # package of the environment; or a file of weights
    pretrained: Annotated[bool | Literal["efficientnet_lite0"] | WeightFile, Neutral(False)] = False
    # what learns beside a frozen transformer; null: none
    adapters: Annotated[Adapters | None, Neutral(None)] = None
    # side of the pictures, for a transformer whose own it is not; null: the architecture's own
    image_size: Annotated[int | None, Neutral(None)] = Field(None, ge=8, le=4096)

    @field_validator("pretrained", mode="before")
    @classmethod
    def _a_path(cls, value: object) -> object:
        if value == EMBEDDED:
            return value
        return False if value is None else as_file(value)

    @model_validator(mode="after")
    def _says_which_weights(self) -> "Settings":
        if self.pretrained is True and "." not in self.architecture:
            raise ValueError(
                f"pretrained: true needs a tag that says which weights, e.g. {self.architecture}.a1_in1k; "
                "`timm.list_pretrained()` lists them"
            )
        if self.pretrained == EMBEDDED and self.architecture != EMBEDDED_ARCHITECTURE:
            raise ValueError(f"pretrained: {EMBEDDED} needs architecture: {EMBEDDED_ARCHITECTURE}")
        return self


class TimmModel(nn.Module):
    """A backbone of timm and a head.

    Attributes:
        backbone: timm's model without its classifier.
        head: the classifier, `nn.Linear(d, classes)` or `CosineHead(d, classes, scale)`.
    """

    def __init__(self, settings: Settings, channels: int, classes: int) -> None:
        super().__init__()
        self._settings, self._channels = settings, channels
        self.backbone = self._created(pretrained=False)
        stop_counting(self.backbone)
        self._added: list[nn.Module] = []  # modules of the backbone: a list, so that they have one name
        if settings.adapters:
            form, bottleneck = settings.adapters.form, settings.adapters.bottleneck
            self._added += adapt(self.backbone, form, bottleneck, classes)
        backbone: Any = self.backbone
        dimensions: int = getattr(backbone, "head_hidden_size", None) or backbone.num_features
        self.head: nn.Module = (
            CosineHead(dimensions, classes, settings.scale)
            if settings.head == "cosine"
            else nn.Linear(dimensions, classes)
        )

    def _created(self, pretrained: bool) -> nn.Module:
        timm, name = _timm(), self._settings.architecture
        try:
            size = {"img_size": self._settings.image_size} if self._settings.image_size else {}
            model: nn.Module = timm.create_model(
                name, pretrained=pretrained, num_classes=0, in_chans=self._channels, **size
            )
        except Exception as error:  # of a registry, of a download by one of several libraries
            reason = " ".join(str(error).split())[:160]
            if pretrained:
                raise UserError(
                    f"network timm_model: the weights of {name} cannot be had ({reason}); download them once "
                    "where there is a network, or name a file of weights: pretrained: PATH"
                ) from None
            raise UserError(f"network timm_model: {name} cannot be made ({reason})") from None
        return model

    def load_pretrained(self) -> str | None:
        """Take the weights that the settings name, all but the head; what they are, None if there are none.

        Raises:
            UserError: if they are not there, not those that were planned, or do not fit.
        """
        source = self._settings.pretrained
        if not source:
            return None
        plain = self.backbone
        if self._settings.adapters:
            plain = self._created(pretrained=False)
            stop_counting(plain)
        if source == EMBEDDED:
            load(plain, read_embedded(), EMBEDDED, ("classifier.",))
            said = f"{EMBEDDED_WEIGHTS.source}, licence {EMBEDDED_WEIGHTS.licence}, SHA-256 {SHA256}"
        elif isinstance(source, WeightFile):
            classifier = getattr(plain, "pretrained_cfg", {}).get("classifier") or ()
            names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
            load(plain, read(source), source.file, tuple(f"{name}." for name in names))
            said = f"{source.file}, SHA-256 {source.sha256}"
        else:
            plain.load_state_dict(self._created(pretrained=True).state_dict())
            licence = getattr(plain, "pretrained_cfg", {}).get("license") or "not stated"
            said = (
                f"timm's {self._settings.architecture}, licence {licence}, "
                f"SHA-256 of its tensors {digest(plain)}"
            )
        if plain is not self.backbone:
            take_trunk(self.backbone, plain)
        return said

    @property
    def adapters(self) -> nn.Module | None:
        """All adapters; None where the network has none."""
        return nn.ModuleList(self._added) if self._added else None

    @property
    def last_block(self) -> nn.Module | None:
        """The last of timm's layers that are numbered and all behind it; None where timm does not say."""
        return self._last(coarse=False)

    @property
    def last_stage(self) -> nn.Module | None:
        """The last of timm's stages and all behind it; None where timm does not say."""
        return self._last(coarse=True)

    def _last(self, coarse: bool) -> nn.Module | None:
        """By the groups of parameters that timm makes for layer-wise learning rates."""
        backbone: Any = self.backbone
        if not hasattr(backbone, "group_matcher"):
            return None
        matcher = backbone.group_matcher(coarse=coarse)
        groups: dict[int, list[str]] = _timm().models.group_parameters(self.backbone, matcher)
        blocks = [number for number, names in groups.items() if any(map(_numbered, names))]
        if not blocks:
            return None
        last = [name for number in groups if number >= max(blocks) for name in groups[number]]
        return nn.ModuleList([self.backbone.get_submodule(name) for name in _owners(self.backbone, last)])

    def features(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) to features (B, d), at least float32."""
        try:
            found: Tensor = self.backbone(x)
        except AssertionError as error:  # of a transformer of another size
            side = x.shape[-1]
            raise UserError(
                f"network timm_model: {self._settings.architecture}: {' '.join(str(error).split())[:120]}; "
                f"give the network image_size: {side}, or data.images the size that it was made for"
            ) from None
        return found.to(torch.promote_types(found.dtype, torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) to logits (B, classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def build(settings: Settings, channels: int, classes: int) -> TimmModel:
    """A freshly initialised network; weights to begin with are loaded by `load_pretrained`, never here.

    Raises:
        UserError: if timm is not installed, or has no such architecture.
    """
    return TimmModel(settings, channels, classes)


def _timm() -> ModuleType:
    try:
        return import_module("timm")
    except ModuleNotFoundError as error:
        raise UserError(
            f"network timm_model: {error.name} is not installed; `make environment` installs it"
        ) from None


def _numbered(name: str) -> bool:
    return re.search(r"\.\d+\.", name) is not None


def _owners(model: nn.Module, names: list[str]) -> list[str]:
    """The modules of some parameters: the whole block that numbered ones share, the others' own."""
    numbered = [name.rpartition(".")[0].replace(".", "/") for name in names if _numbered(name)]
    block = commonpath(numbered).replace("/", ".")
    if block and all(f"{block}.{name}" in names for name, _ in model.get_submodule(block).named_parameters()):
        names = [name for name in names if not name.startswith(f"{block}.")]
        return [block, *dict.fromkeys(name.rpartition(".")[0] for name in names)]
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))
