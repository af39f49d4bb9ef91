"""Stage two of MiSLAS (Zhong et al. 2021): label-aware smoothing of a classifier with learnt scales.

    logits = s * (W x + b);   L = (1 - eps_y) (-log p_y) + eps_y (-1/C sum_c log p_c)

with eps_y = f(n_y) between smooth_tail for the smallest class and smooth_head for the largest. W, b and s
are learnt, W and b from stage one's on. The paper's third part, shifted batch normalisation, is how the
features are made: `batchnorm: train` in the entry of `stage_two`. Its stage one uses mixup.
"""

import math
from dataclasses import replace
from typing import Literal

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from longtail.random import generator
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import LearningRate
from longtail.stage_two.classifier import FeatureData, Fitted, Report, selection_score
from longtail.stage_two.descent import Descent
from longtail.stage_two.draws import rows
from longtail.stage_two.initial import initial_classifier


class Settings(BaseSettings):
    """Smoothing and optimiser; the defaults are the authors' for CIFAR-100-LT at ratio 100."""

    smooth_head: float = Field(0.4, ge=0, lt=1)  # [code] 0.4, 0.3, 0.2 at ratios 100, 50, 10
    smooth_tail: float = Field(0.1, ge=0, lt=1)  # [code] 0.1, 0.0, 0.0
    form: Literal["concave", "linear", "convex"] = "concave"  # [paper]
    # [code] eps is spread over all classes; others: over the wrong ones, as the paper writes it
    spread: Literal["all", "others"] = "all"
    epochs: int = Field(10, ge=1, le=1_000_000)  # [code]
    sampler: Literal["class_balanced", "class_aware"] = "class_aware"  # [code]
    batch_size: int = Field(128, ge=1, le=1_000_000)  # [code]
    learning_rate: LearningRate = LearningRate(peak=0.1)  # [code] of the scales; cosine, by epochs there
    classifier_factor: float = Field(
        0.2, ge=0
    )  # [code] of W's and b's rate; 0.2, 0.1, 0.1 at ratios 100, 50, 10
    momentum: float = Field(0.9, ge=0, lt=1)  # [code]
    weight_decay: float = Field(2e-4, ge=0)  # [code] its README: 5e-4 may do better

    @model_validator(mode="after")
    def _head_is_smoothed_more(self) -> "Settings":
        if self.smooth_head < self.smooth_tail:
            raise ValueError(f"smooth_head {self.smooth_head:g} is below smooth_tail {self.smooth_tail:g}")
        return self


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Train W, b and s on class-aware draws of the training images, each from a random one of its views."""
    views, images, _ = data.views.shape
    classes = len(data.class_counts)
    first = initial_classifier("stage_one", data, seed)
    inputs, labels = first.inputs(data.views).flatten(0, 1), data.labels.repeat(views)
    smoothing = smoothing_of(data.class_counts, settings)
    factor = settings.classifier_factor
    training = Descent(
        [first.weight, first.bias, first.bias.new_ones(classes)],
        settings,
        settings.epochs,
        images,
        [factor, factor, 1.0],
    )
    weight, bias, scale = training.tensors
    labels_cpu = data.labels.cpu()

    def loss(batch: Tensor) -> Tensor:
        own = labels[batch]
        logits = scale * F.linear(inputs[batch], weight, bias)
        return smoothed_loss(logits, own, smoothing[own], settings.spread)

    def classifier() -> Fitted:
        w, b, s = training.result()
        return Fitted(weight=s.unsqueeze(1) * w, bias=s * b, normalise=first.normalise)

    history = []
    for epoch in range(settings.epochs):
        random = generator(seed, "stage_two", "sample", epoch)
        order = rows(settings.sampler, labels_cpu, views, random, epoch / settings.epochs)
        mean = training.epoch(order.to(inputs.device), loss)
        score = selection_score(classifier().logits(data.validation), data.validation_labels, classes)
        history.append({"epoch": epoch + 1, "loss": mean, "validation": score})
        progress(epoch + 1, settings.epochs, f"loss {mean:.3f}")
    return replace(classifier(), history=history, tensors={"scale": training.result()[2]})


def smoothing_of(class_counts: Tensor, settings: Settings) -> Tensor:
    """eps of each class (C,), with r = (n - n_min) / (n_max - n_min); r = 0 where all counts are equal.

    concave: tail + (head - tail) sin(r pi / 2); linear: tail + (head - tail) r;
    convex: head + (head - tail) sin(3 pi / 2 + r pi / 2).
    """
    counts = class_counts.double()
    r = (counts - counts.min()) / (counts.max() - counts.min()).clamp_min(1)
    head, tail = settings.smooth_head, settings.smooth_tail
    shape = {
        "concave": (r * math.pi / 2).sin(),
        "linear": r,
        "convex": 1 + ((3 + r) * math.pi / 2).sin(),
    }[settings.form]
    return (tail + (head - tail) * shape).float()


def smoothed_loss(logits: Tensor, labels: Tensor, smoothing: Tensor, spread: str) -> Tensor:
    """Mean cross-entropy against labels of which a share eps is spread over all classes, or the others.

    Args:
        logits: (B, C).
        labels: int64 (B,).
        smoothing: eps of each sample, (B,).
        spread: "all" or "others".
    """
    log_p = logits.log_softmax(1)
    own = log_p.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = max(1, logits.shape[1] - 1)
    rest = log_p.mean(1) if spread == "all" else (log_p.sum(1) - own) / others
    return -((1 - smoothing) * own + smoothing * rest).mean()
