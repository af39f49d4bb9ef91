"""Which features stage two learns from, and its classifiers."""

from typing import Annotated, Literal

from pydantic import Field

from longtail.settings.augmentation import Augmentation
from longtail.settings.base import Neutral, Settings
from longtail.settings.data import Pictures
from longtail.settings.method_blocks import ClassifierMethod, Network


class Features(Settings):
    """Which features of the training images stage two learns from (docs/explanation/glag.md)."""

    views: int = Field(10, ge=0, le=10_000)  # augmented views an image; 0: the clean image is the only view


class FeaturesSettings(Settings):
    """Everything that feature extraction reads."""

    dataset: str
    images: Annotated[Pictures | None, Neutral(None)] = None  # of picture files
    views: int
    batchnorm: Literal["eval", "train"] = "eval"
    # whether features of all training images of the dataset are made, for a classifier that reads them
    whole: Annotated[bool, Neutral(False)] = False
    network: Network
    augmentation: Augmentation
    batch_size: int
    seed: int
    precision: Literal["auto", "bf16", "float32"] = "auto"


class Classifier(Settings):
    """An entry of `stage_two:`: a method over frozen features."""

    batchnorm: Literal["eval", "train"] = "eval"  # of the backbone while it makes the features
    method: ClassifierMethod


class StageTwoSettings(Settings):
    """Everything that stage two reads."""

    method: ClassifierMethod
    seed: int
