"""Learnable weight scaling (LWS): Decoupling (Kang et al. 2020), section 4.2.

logits = s * (W x + b) with stage one's W and b frozen; only the scale s, one a class, is learnt.
"""

from dataclasses import replace
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from longtail.random import generator
from longtail.settings.base import Neutral
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import LearningRate
from longtail.stage_two.classifier import FeatureData, Fitted, Report, selection_score
from longtail.stage_two.descent import Descent
from longtail.stage_two.draws import rows


class Settings(BaseSettings):
    """Length and optimiser of the scales."""

    epochs: int = Field(30, ge=1, le=1_000_000)  # [code] Bag of tricks on CIFAR; Decoupling: 5 on ImageNet-LT
    sampler: Literal["class_balanced", "class_aware"] = "class_balanced"  # [paper]; class_aware: its code
    # images that a class gives in its turn, with class_aware [code]; SSD: 2
    samples_per_class: Annotated[int, Neutral(4)] = Field(4, ge=1, le=1_000_000)
    batch_size: int = Field(128, ge=1, le=1_000_000)  # [code] Bag of tricks; Decoupling: 512
    # [code] peak 0.1 of Bag of tricks (steps at 10 and 20 there, cosine from 0.2 in Decoupling)
    learning_rate: LearningRate = LearningRate(peak=0.1)
    momentum: float = Field(0.9, ge=0, lt=1)  # [paper]
    weight_decay: float = Field(5e-4, ge=0)  # [code] both

    @model_validator(mode="after")
    def _a_turn_is_of_class_aware(self) -> "Settings":
        usual = type(self).model_fields["samples_per_class"].default
        if self.sampler != "class_aware" and self.samples_per_class != usual:
            raise ValueError("samples_per_class is of sampler: class_aware")
        return self


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Learn s from 1 on class-balanced draws; its gradient needs stage one's logits only."""
    views, images, classes = data.view_logits.shape
    logits, labels = data.view_logits.flatten(0, 1), data.labels.repeat(views)
    training = Descent([logits.new_ones(classes)], settings, settings.epochs, images)
    [scale] = training.tensors
    labels_cpu = data.labels.cpu()

    def loss(batch: Tensor) -> Tensor:
        return F.cross_entropy(scale * logits[batch], labels[batch])

    def classifier() -> Fitted:
        [s] = training.result()
        weight = s.unsqueeze(1) * data.head_weight
        return Fitted(weight=weight, bias=s * data.head_bias, normalise=data.head_normalises)

    history = []
    for epoch in range(settings.epochs):
        random = generator(seed, "stage_two", "sample", epoch)
        done, each = epoch / settings.epochs, settings.samples_per_class
        order = rows(settings.sampler, labels_cpu, views, random, done, each)
        mean = training.epoch(order.to(logits.device), loss)
        score = selection_score(classifier().logits(data.validation), data.validation_labels, classes)
        history.append({"epoch": epoch + 1, "loss": mean, "validation": score})
        progress(epoch + 1, settings.epochs, f"loss {mean:.3f}")
    return replace(classifier(), history=history, tensors={"scale": training.result()[0]})
