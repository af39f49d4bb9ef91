"""A linear classifier on frozen features by any loss of stage one: cross-entropy is the field's linear probe.

The head of recipes of `freeze: features` is one, on which classifiers of stage two then build. As an entry of
`stage_two:` it is a classifier like any other, e.g. cRT by logit adjustment in place of balanced sampling.
"""

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from longtail.random import generator
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.method_blocks import Loss, Sampler
from longtail.settings.methods import method_module
from longtail.settings.schedules import LearningRate
from longtail.stage_two.classifier import FeatureData, Fitted, Report, selection_score
from longtail.stage_two.initial import initial_classifier
from longtail.stage_two.linear import LinearTraining


class Settings(BaseSettings):
    """Loss, sampler, length and optimiser, as a recipe of stage one has them."""

    loss: Loss  # as of a recipe
    sampler: Sampler = Field({"name": "instance"}, validate_default=True)  # as of a recipe
    epochs: int = Field(30, ge=1, le=1_000_000)  # [ours]
    progress: Literal["epoch", "step"] = "epoch"  # how often the t of gamma(t) moves
    init: Literal["random", "stage_one"] = "random"  # random weights, or stage one's
    batch_size: int = Field(128, ge=1, le=1_000_000)  # images of a step
    learning_rate: LearningRate = LearningRate(peak=0.1)  # [ours]
    momentum: float = Field(0.9, ge=0, lt=1)  # of stochastic gradient descent
    weight_decay: float = Field(5e-4, ge=0)  # on all weights

    @field_validator("loss")
    @classmethod
    def _of_plain_logits(cls, loss: Loss) -> Loss:
        if hasattr(loss.options, "scale"):
            raise ValueError(f"{loss.name} is a loss of scaled cosines, and the classifier here is linear")
        return loss


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Train on the sampler's images, each from a random one of its views.

    Raises:
        ValueError: if the loss cannot have these classes, e.g. one without a training image.
    """
    views, images, _ = data.views.shape
    classes, where = len(data.class_counts), data.views.device
    loss = method_module("losses", settings.loss.name).build(settings.loss.options, data.class_counts)
    loss = loss.to(where)
    sampler = method_module("samplers", settings.sampler.name).indices
    first = initial_classifier(settings.init, data, seed)
    inputs, labels = first.inputs(data.views).flatten(0, 1), data.labels.repeat(views)
    validation = first.inputs(data.validation)
    training = LinearTraining(first.weight, first.bias, settings, settings.epochs, images)
    steps = settings.epochs * training.steps_per_epoch
    labels_cpu = data.labels.cpu()

    def reached(epoch: int) -> Tensor:
        share = training.step / steps if settings.progress == "step" else epoch / settings.epochs
        return torch.tensor(share, device=where)

    history = []
    for epoch in range(settings.epochs):
        random = generator(seed, "stage_two", "sample", epoch)
        drawn = sampler(labels_cpu, random, epoch / settings.epochs, settings.sampler.options)
        order = torch.randint(views, drawn.shape, generator=random) * images + drawn

        def mean_loss(logits: Tensor, rows: Tensor, epoch: int = epoch) -> Tensor:
            value: Tensor = loss(logits, labels[rows], reached(epoch))
            return value

        shown = loss.curves(reached(epoch)) if hasattr(loss, "curves") else {}
        mean = training.epoch(inputs, order.to(where), mean_loss)
        score = selection_score(training.logits(validation), data.validation_labels, classes)
        curves = {name: float(value) for name, value in shown.items()}
        history.append({"epoch": epoch + 1, "loss": mean, **curves, "validation": score})
        progress(epoch + 1, settings.epochs, f"loss {mean:.3f}")
    weight, bias = training.result()
    return Fitted(weight=weight, bias=bias, normalise=first.normalise, history=history)
