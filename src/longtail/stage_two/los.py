"""Label over-smoothing (LOS; Sun et al., ICLR 2025): a linear classifier re-trained on very smooth labels.

    target_c = (1 - delta) [c = y] + delta / C,   delta close to 1

so that the right class is only a little more likely than any other, and logits stay small whatever the size
of a class. No class count is used, and images are drawn as they are. Recipe: the public code of the paper,
which goes on from stage one's classifier. Its stage one has a weight decay of 5e-3 and a ResNet-34.
"""

from typing import Literal

from pydantic import Field

from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import LearningRate
from longtail.stage_two.classifier import FeatureData, Fitted, Report
from longtail.stage_two.retraining import retrain


class Settings(BaseSettings):
    """Smoothing, length, start and optimiser."""

    smoothing: float = Field(0.98, ge=0, le=1)  # [code] delta
    epochs: int = Field(20, ge=1, le=1_000_000)  # [code]
    init: Literal["stage_one", "random"] = "stage_one"  # [code]
    sampler: Literal["instance", "class_balanced", "class_aware"] = "instance"  # [code]
    batch_size: int = Field(64, ge=1, le=1_000_000)  # [code]
    learning_rate: LearningRate = LearningRate(peak=5e-4)  # [code] cosine
    momentum: float = Field(0.9, ge=0, lt=1)  # [code]
    weight_decay: float = Field(0.0, ge=0)  # [code]


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Train on smoothed labels."""
    return retrain(data, settings, seed, progress, settings.smoothing)
