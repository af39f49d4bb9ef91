"""Classifier re-training (cRT; Kang et al. 2020, section 4.2): a new linear classifier, balanced sampling."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from longtail.random import generator
from longtail.samplers import class_balanced
from longtail.schedules import LearningRate
from longtail.settings import Settings as BaseSettings
from longtail.stage_two import FeatureData, Fitted, Report, class_accuracy, selection_classes
from longtail.stage_two.linear import LinearTraining, fresh_head


class Settings(BaseSettings):
    """Length, start and optimiser of the new classifier."""

    epochs: int = Field(
        30, ge=1
    )  # [code] Bag of Tricks on CIFAR; Decoupling: 10 on ImageNet-LT, 30 on iNaturalist
    init: Literal["random", "stage_one"] = "random"  # [paper] "randomly re-initialise"
    batch_size: int = Field(128, ge=1)  # [code] Bag of Tricks; Decoupling: 512
    # [code] peak 0.1 of Bag of Tricks (steps at 10 and 20 there, cosine from 0.2 in Decoupling)
    learning_rate: LearningRate = LearningRate(peak=0.1)
    momentum: float = Field(0.9, ge=0, lt=1)  # [paper]
    weight_decay: float = Field(5e-4, ge=0)  # [code] both


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Train on class-balanced draws of the training images, each from a random one of its views.

    An epoch is N draws with replacement, a class as likely as any other, then an image of it. A draw takes
    a random view [ours], so that an image of a small class, drawn many times, is seen in many views.
    """
    views, images, dimensions = data.views.shape
    classes = len(data.class_counts)
    if settings.init == "random":
        weight, bias = fresh_head(classes, dimensions, generator(seed, "stage_two", "init"))
        weight, bias = weight.to(data.views.device), bias.to(data.views.device)
    else:
        weight, bias = data.head_weight, data.head_bias
    inputs, labels = data.views.flatten(0, 1), data.labels.repeat(views)
    training = LinearTraining(weight, bias, settings, settings.epochs, images)
    labels_cpu = data.labels.cpu()
    selection = selection_classes(data.validation_labels, classes)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels[rows])

    history = []
    for epoch in range(settings.epochs):
        random = generator(seed, "stage_two", "sample", epoch)
        drawn = class_balanced.indices(labels_cpu, random, epoch / settings.epochs, class_balanced.Settings())
        view = torch.randint(views, (images,), generator=random)
        mean = training.epoch(inputs, (view * images + drawn).to(inputs.device), loss)
        accuracy = class_accuracy(training.logits(data.validation), data.validation_labels, classes)
        history.append({"epoch": epoch + 1, "loss": mean, "validation": float(accuracy[selection].mean())})
        progress(epoch + 1, settings.epochs, f"loss {mean:.3f}")
    weight, bias = training.result()
    return Fitted(weight=weight, bias=bias, history=history)
