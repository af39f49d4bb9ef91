"""How good features are: a linear classifier on those of the complete, balanced training set.

GLAG, tables 1 and 5, "stage two". It is no long-tailed classifier: it learns from the images that the
imbalance left out, which the features have not seen. The recipe is ours; the paper states none.
"""

from typing import Literal

import torch
from pydantic import Field

from longtail.random import generator
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import LearningRate
from longtail.stage_two.classifier import FeatureData, Fitted, Report
from longtail.stage_two.initial import initial_classifier
from longtail.stage_two.linear import LinearTraining


class Settings(BaseSettings):
    """Length, start and optimiser of the classifier."""

    epochs: int = Field(30, ge=1, le=1_000_000)  # [ours]
    init: Literal["random", "stage_one"] = "random"  # [ours] "retrained"
    batch_size: int = Field(128, ge=1, le=1_000_000)  # [ours]
    learning_rate: LearningRate = LearningRate(peak=0.1)  # [ours]
    momentum: float = Field(0.9, ge=0, lt=1)  # [ours]
    weight_decay: float = Field(5e-4, ge=0)  # [ours]

    @property
    def reads(self) -> Literal["whole"]:
        """Features of all training images; the plan has them made."""
        return "whole"


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Train on every training image of the dataset once an epoch, clean.

    Raises:
        ValueError: if there are no features of all training images.
    """
    if data.whole is None or data.whole_labels is None:
        raise ValueError("needs features of all training images: whole.safetensors of the step features")
    first = initial_classifier(settings.init, data, seed)
    inputs, labels = first.inputs(data.whole), data.whole_labels
    training = LinearTraining(first.weight, first.bias, settings, settings.epochs, len(labels))

    history = []
    for epoch in range(settings.epochs):
        order = torch.randperm(len(labels), generator=generator(seed, "stage_two", "sample", epoch))
        mean = training.labelled_epoch(inputs, labels, order.to(inputs.device))
        history.append({"epoch": epoch + 1, "loss": mean})
        progress(epoch + 1, settings.epochs, f"loss {mean:.3f}")
    weight, bias = training.result()
    return Fitted(weight=weight, bias=bias, normalise=first.normalise, history=history)
