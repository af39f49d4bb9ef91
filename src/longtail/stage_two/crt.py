"""Classifier re-training (cRT; Kang et al. 2020, section 4.2): a new linear classifier, balanced sampling."""

from typing import Annotated, Literal

from pydantic import Field

from longtail.settings.base import Neutral
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import LearningRate
from longtail.stage_two.classifier import FeatureData, Fitted, Report
from longtail.stage_two.retraining import retrain


class Settings(BaseSettings):
    """Length, start and optimiser of the new classifier."""

    epochs: int = Field(
        30, ge=1, le=1_000_000
    )  # [code] Bag of Tricks on CIFAR; Decoupling: 10 on ImageNet-LT, 30 on iNaturalist
    init: Literal["random", "stage_one"] = "random"  # [paper] "randomly re-initialise"
    # [paper] class_balanced; Decoupling's code: class_aware, four images of a class at a time
    sampler: Annotated[Literal["class_balanced", "class_aware"], Neutral("class_balanced")] = "class_balanced"
    batch_size: int = Field(128, ge=1, le=1_000_000)  # [code] Bag of Tricks; Decoupling: 512
    # [code] peak 0.1 of Bag of Tricks (steps at 10 and 20 there, cosine from 0.2 in Decoupling)
    learning_rate: LearningRate = LearningRate(peak=0.1)
    momentum: float = Field(0.9, ge=0, lt=1)  # [paper]
    weight_decay: float = Field(5e-4, ge=0)  # [code] both


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Train on balanced draws, each class as likely as any other."""
    return retrain(data, settings, seed, progress)
