"""Classifier re-training (cRT; Kang et al. 2020, section 4.2): a new linear classifier, balanced sampling."""

from typing import Annotated, Literal

from pydantic import Field

from longtail.random import generator
from longtail.settings.base import Neutral
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import LearningRate
from longtail.stage_two.classifier import FeatureData, Fitted, Report, selection_score
from longtail.stage_two.draws import rows
from longtail.stage_two.initial import initial_classifier
from longtail.stage_two.linear import LinearTraining


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
    """Train on class-balanced draws of the training images, each from a random one of its views.

    An epoch is N draws with replacement, a class as likely as any other, then an image of it. A draw takes
    a random view [ours], so that an image of a small class, drawn many times, is seen in many views.
    """
    views, images, _ = data.views.shape
    classes = len(data.class_counts)
    first = initial_classifier(settings.init, data, seed)
    inputs, labels = first.inputs(data.views).flatten(0, 1), data.labels.repeat(views)
    validation = first.inputs(data.validation)
    training = LinearTraining(first.weight, first.bias, settings, settings.epochs, images)
    labels_cpu = data.labels.cpu()

    history = []
    for epoch in range(settings.epochs):
        random = generator(seed, "stage_two", "sample", epoch)
        order = rows(settings.sampler, labels_cpu, views, random, epoch / settings.epochs)
        mean = training.labelled_epoch(inputs, labels, order.to(inputs.device))
        score = selection_score(training.logits(validation), data.validation_labels, classes)
        history.append({"epoch": epoch + 1, "loss": mean, "validation": score})
        progress(epoch + 1, settings.epochs, f"loss {mean:.3f}")
    weight, bias = training.result()
    return Fitted(weight=weight, bias=bias, normalise=first.normalise, history=history)
