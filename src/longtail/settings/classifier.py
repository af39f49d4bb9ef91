"""Which features stage two learns from, and its classifiers."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from longtail.settings.augmentation import Augmentation
from longtail.settings.base import Neutral, Settings
from longtail.settings.data import Pictures
from longtail.settings.method_blocks import ClassifierMethod, Network
from longtail.settings.schedules import Length


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

    @model_validator(mode="after")
    def _the_rate_gets_where_it_says(self) -> "Classifier":
        """What lies behind the end would never come to be, nor a start without warm-up."""
        options = self.method.options
        rate = getattr(options, "learning_rate", None)
        epochs = getattr(options, "epochs", None) or getattr(options, "generation_epochs", None)
        if rate and epochs and (wrong := rate.in_vain(Length(epochs=epochs))):
            raise ValueError(f"learning_rate of {self.method.name}: {wrong}")
        return self

    @property
    def reads_whole(self) -> bool:
        """Whether it learns from all training images of the dataset, validation images among them."""
        return getattr(self.method.options, "reads", "") == "whole"


class StageTwoSettings(Settings):
    """Everything that stage two reads."""

    method: ClassifierMethod
    seed: int
