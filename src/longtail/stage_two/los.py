"""Label over-smoothing (LOS; Sun et al., ICLR 2025): a linear classifier re-trained on very smooth labels.

    target_c = (1 - delta) [c = y] + delta / C,   delta close to 1

so that the right class is only a little more likely than any other, and logits stay small whatever the size
of a class. No class count is used, and images are drawn as they are. Recipe: the public code of the paper,
which goes on from stage one's classifier. Its stage one has a weight decay of 5e-3 and a ResNet-34.
"""

from typing import Literal

from pydantic import Field

from longtail.random import generator
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import LearningRate
from longtail.stage_two.classifier import FeatureData, Fitted, Report, selection_score
from longtail.stage_two.draws import rows
from longtail.stage_two.initial import initial_classifier
from longtail.stage_two.linear import LinearTraining


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
    """Train on the training images, each from a random one of its views [ours]."""
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
        mean = training.labelled_epoch(inputs, labels, order.to(inputs.device), settings.smoothing)
        score = selection_score(training.logits(validation), data.validation_labels, classes)
        history.append({"epoch": epoch + 1, "loss": mean, "validation": score})
        progress(epoch + 1, settings.epochs, f"loss {mean:.3f}")
    weight, bias = training.result()
    return Fitted(weight=weight, bias=bias, normalise=first.normalise, history=history)
