"""Adaptive Feature Generator (AFG) with knowledge distillation: stage two of GLAG (Zhang and Xiang 2022).

Before every epoch a tail class draws features from Gaussians that are calibrated by the larger classes
nearest to each of its own samples, as far as the class's confidence c_y goes:

    d_ij = ||x~_i - mu_j||_2 for n_j > n_{y_i};  S_i = the k classes with the smallest d_ij    (7)
    w_ij = (n_j / d_ij) / sum_{l in S_i} (n_l / d_il)                                         (10)
    mu'_i    = (1 - c_y) x~_i    + c_y sum_j w_ij mu_j                                         (8)
    Sigma'_i = (1 - c_y) Sigma_y + c_y sum_j w_ij Sigma_j + alpha I                            (9)

and every other class from N(mu_c, Sigma_c), so many that all classes have as many features as the largest
has images. A linear classifier trains on real and generated features mixed, held near stage one's on
classes that are not tail (11), and c_y follows the class's validation accuracy.

The forms of (8) to (10) are our reading; the paper's equations are not to be had. What it leaves open is a
key of the settings. What is no key:

- n_j counts images. Means and covariances are over all views of the class's images.
- The real features of generation epoch e are view e mod V of every image, and generated features start
  from the same view. A class's draws start from its images in turn, in a new random order every epoch,
  so each image is used equally often, give or take one.
- Where fewer than k classes are larger, all of these are S_i. The largest classes have none that is
  larger, whatever `tail_max` says; so they are not tail classes, and draw nothing but what
  `features_per_class` asks for above their size, from their own mean and covariance.
- d_ij = 0, a sample on a class mean, counts as 1e-12: that class has all the weight.
- gamma(t) of (11) takes t / T = finished epochs / epochs, as in stage one.
- Terms (11) are averaged over the whole batch, a tail sample's distillation being 0.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from longtail.random import generator
from longtail.settings.base import Neutral
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import Gamma, LearningRate, Power
from longtail.stage_two.classifier import (
    FeatureData,
    Fitted,
    Report,
    class_accuracy,
    selection_classes,
    tukey,
)
from longtail.stage_two.gaussian import ClassGaussians
from longtail.stage_two.generator import FeatureGenerator, tail_classes
from longtail.stage_two.initial import initial_classifier
from longtail.stage_two.linear import LinearTraining, Objective, SoftTargets, total


class Confidence(BaseSettings):
    """The confidence c_y of each tail class, and how it moves after an epoch."""

    initial: float = Field(0.4, ge=0, le=1)  # [paper] 0.4 in section 5.3.2, 0.6 in 5.1.2
    update: Literal["adaptive", "fixed"] = "adaptive"  # [paper] adaptive; fixed needs no validation image
    step: float = Field(0.05, ge=0, le=1)  # [ours]
    minimum: float = Field(0.0, ge=0, le=1)  # [ours]
    maximum: float = Field(1.0, ge=0, le=1)  # [ours]
    # [ours] what the accuracy is compared with: the epoch before (at first stage one), or always stage one
    baseline: Literal["previous", "stage_one"] = "previous"

    @model_validator(mode="after")
    def _in_order(self) -> "Confidence":
        if not self.minimum <= self.initial <= self.maximum:
            bounds = f"minimum {self.minimum:g} and maximum {self.maximum:g}"
            raise ValueError(f"initial {self.initial:g} is not between {bounds}")
        return self


class Tukey(BaseSettings):
    """Tukey's ladder of powers, x~ = x^lambda (log x for lambda = 0)."""

    power: float = Field(1.0, ge=0, alias="lambda")  # [ours] the paper's value is lost; Free Lunch 0.5
    apply: Literal["all", "tail"] = "all"  # [ours] all features; the paper: tail classes' training features
    statistics: Literal["after", "before"] = "after"  # [ours] means and covariances; TailCalib: before
    # [ours] true: what is drawn in x~ is clamped at 0 and mapped back to x, and the classifier sees no x~
    map_back: Annotated[bool, Neutral(False)] = False

    @property
    def of_classifier(self) -> float:
        """The power of the features that the classifier gets at test time."""
        return 1.0 if self.map_back or self.apply == "tail" else self.power


class Distillation(BaseSettings):
    """Knowledge distillation from stage one's classifier on classes that are not tail (11)."""

    on: Literal["all", "real", "none"] = "all"  # [ours] real and generated features, or real ones only
    temperature: float = Field(1.0, gt=0)  # [ours]
    scale: Literal["none", "squared_temperature"] = "none"  # [ours] Hinton et al. 2015 multiply by its square
    mixing: Literal["add", "convex"] = "add"  # [ours] CE + gamma KL, or (1 - gamma) CE + gamma KL
    gamma: Gamma = Power()  # [paper] that of the loss of stage one; a = 1, b = 2 are ours

    @model_validator(mode="after")
    def _convex(self) -> "Distillation":
        if self.mixing == "convex" and self.gamma.a > 1:
            raise ValueError(f"mixing convex needs gamma.a <= 1, not {self.gamma.a:g}")
        return self


class Settings(BaseSettings):
    """All of the generator, the classifier and its optimiser."""

    generation_epochs: int = Field(40, ge=1, le=1_000_000)  # [paper]
    # features of every class in an epoch, real and generated [ours]; null: as many as the largest class has
    # images [paper]. Classes with more images take so many of them, others in every epoch
    features_per_class: Annotated[int | None, Neutral(None), Field(ge=1, le=1_000_000_000)] = None
    k: int = Field(2, ge=1, le=10_000)  # [paper] 2 or 3
    alpha: float = Field(0.0, ge=0)  # [paper] 0 or 0.1
    # [ours] alpha I; Free Lunch's and TailCalib's code adds alpha to every entry of the covariance
    alpha_mode: Literal["identity", "ones"] = "identity"
    # [ours] tail classes have at most this many training images
    tail_max: int = Field(100, ge=0, le=1_000_000_000)
    weight_size: Literal["count", "log_count"] = "count"  # [ours] n_j or log n_j in (10)
    distance_power: Literal[1, 2] = 1  # [ours] d or d^2 in (10)
    # [ours] (9) as above, or sum_j w_ij Sigma_j + alpha I whatever c_y is, as Free Lunch and TailCalib
    covariance: Literal["mixed", "neighbours"] = "mixed"
    confidence: Confidence = Confidence()
    tukey: Tukey = Tukey()
    kd: Distillation = Distillation()
    init: Literal["stage_one", "random"] = "stage_one"  # [ours] TailCalibX: stage one's weights
    batch_size: int = Field(128, ge=1, le=1_000_000)  # [ours]
    learning_rate: LearningRate = LearningRate(peak=0.01)  # [paper] cosine over all steps; peak is ours
    momentum: float = Field(0.9, ge=0, lt=1)  # [paper]
    weight_decay: float = Field(5e-4, ge=0)  # [paper]

    @property
    def selects(self) -> str:
        """What validation images choose."""
        return "confidences c_y" if self.confidence.update == "adaptive" else ""

    @model_validator(mode="after")
    def _stage_one_saw_untransformed_features(self) -> "Settings":
        if self.tukey.power != 1 and not self.tukey.map_back:
            needs = f"needs tukey.lambda 1, not {self.tukey.power:g}: stage one saw untransformed features"
            if self.init == "stage_one":
                raise ValueError(f"init stage_one {needs}; or set init: random, or tukey.map_back: true")
            if self.kd.on == "all":
                raise ValueError(f"kd.on all {needs}; or set kd.on: real or none, or tukey.map_back: true")
        return self


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Train a classifier on real and generated features, generated anew before every epoch.

    The history has the mean loss, the number of generated features, gamma, the mean accuracy of the
    classes with a full number of validation images (nan without any) and the mean confidence of the tail
    classes (nan without any). `tensors`: confidences (epochs + 1, C), the first row before training and
    nan for classes that are not tail; tail, bool (C,).
    """
    views, images, _ = data.views.shape
    where, classes = data.views.device, len(data.class_counts)
    generate = feature_generator(data, settings)
    tail, labels, rows = generate.tail, generate.labels, len(generate.rows(generator(0)))
    first = initial_classifier(settings.init, data, seed)
    training = LinearTraining(first.weight, first.bias, settings, settings.generation_epochs, rows)

    confidence = torch.full((classes,), settings.confidence.initial, device=where)
    selection = selection_classes(data.validation_labels, classes)
    baseline = class_accuracy(_stage_one(data, data.validation), data.validation_labels, classes)
    validation = first.inputs(tukey(data.validation, settings.tukey.of_classifier))
    confidences, history = [confidence], []
    taught = ~tail[labels]
    if settings.kd.on != "all":
        taught[images if settings.kd.on == "real" else 0 :] = False
    for epoch in range(settings.generation_epochs):
        view = epoch % views
        gamma = settings.kd.gamma(torch.tensor(epoch / settings.generation_epochs, device=where))
        order = torch.randperm(rows, generator=generator(seed, "stage_two", "order", epoch))
        order = generate.rows(generator(seed, "stage_two", "images", epoch))[order].to(where)
        random = generator(seed, "stage_two", "generate", epoch)

        def objective(
            chunk: Tensor, inputs: Tensor, gamma: Tensor = gamma, logits: Tensor = data.view_logits[view]
        ) -> Objective:
            on = taught[chunk].nonzero().flatten()
            numbers = chunk[on]
            real = (numbers < images).unsqueeze(1)
            teacher = torch.where(real, logits[numbers.clamp(max=images - 1)], _stage_one(data, inputs[on]))
            return distillation(labels[chunk], on, teacher, gamma, settings.kd)

        mean = training.train(
            (first.inputs(inputs), objective(chunk, inputs))
            for chunk, inputs in generate(torch.split(order, training.chunk), view, confidence, random)
        )
        accuracy = class_accuracy(training.logits(validation), data.validation_labels, classes)
        if settings.confidence.update == "adaptive":
            confidence = updated_confidence(confidence, accuracy, baseline, settings.confidence)
        if settings.confidence.baseline == "previous":
            baseline = accuracy
        confidences.append(confidence)
        history.append(
            {
                "epoch": epoch + 1,
                "loss": mean,
                "generated": len(labels) - images,
                "gamma": float(gamma),
                "validation": float(accuracy[selection].mean()),
                "confidence": float(confidence[tail].mean()),
            }
        )
        progress(epoch + 1, settings.generation_epochs, f"loss {mean:.3f}")
    weight, bias = training.result()
    return Fitted(
        weight=weight,
        bias=bias,
        tukey=settings.tukey.of_classifier,
        normalise=first.normalise,
        history=history,
        tensors={"confidences": torch.stack(confidences).where(tail, torch.nan), "tail": tail},
    )


def _stage_one(data: FeatureData, features: Tensor) -> Tensor:
    """Stage one's logits (M, C) of untransformed features (M, d)."""
    seen = F.normalize(features, dim=1) if data.head_normalises else features
    return F.linear(seen, data.head_weight, data.head_bias)


def distillation(
    labels: Tensor, taught: Tensor, teacher: Tensor, gamma: Tensor, settings: Distillation
) -> Objective:
    """CE + gamma KL(softmax(teacher / T) || softmax(logits / T)) of taught rows, CE of the others (11).

    Args:
        labels: of a chunk's rows, int64 (R,).
        taught: the rows that distillation is for, int64 (K,).
        teacher: logits of these, (K, C).
        gamma: 0-d.
        settings: temperature and how the two terms mix.
    """
    t = settings.temperature
    log_shares = (teacher / t).log_softmax(1)
    shares = log_shares.exp()
    strength = gamma * (t**2 if settings.scale == "squared_temperature" else 1)
    offset = labels.new_zeros(len(labels), dtype=shares.dtype)
    offset[taught] = strength * (shares * log_shares).sum(1)
    targets = shares.new_zeros(len(labels), teacher.shape[1]).scatter_(1, labels.unsqueeze(1), 1)
    if settings.mixing == "convex":
        targets[taught] *= 1 - gamma
    shares *= strength
    if t == 1:
        return SoftTargets(targets.index_add_(0, taught, shares), offset)
    softened = torch.zeros_like(targets).index_copy_(0, taught, shares)
    return total([SoftTargets(targets), SoftTargets(softened, offset, t)])


def updated_confidence(
    confidence: Tensor, accuracy: Tensor, baseline: Tensor, settings: Confidence
) -> Tensor:
    """c a step up where a class's validation accuracy is above its baseline, down where it is below.

    All (C,). A class without validation images (accuracy nan) keeps its c.
    """
    move = (accuracy - baseline).sign().nan_to_num(0)
    return (confidence + settings.step * move).clamp(settings.minimum, settings.maximum)


def feature_generator(data: FeatureData, settings: Settings) -> FeatureGenerator:
    """The generator of these features, with its classes' statistics.

    Raises:
        ValueError: if a class has no training image, or a feature is negative and lambda is not 1.
    """
    tail = tail_classes(data.class_counts, settings.tail_max)
    features = _transformed(data, tail, settings.tukey)
    gaussians = ClassGaussians(
        (data.views if settings.tukey.statistics == "before" else features).flatten(0, 1),
        data.labels.repeat(len(features)),
        len(data.class_counts),
    )
    original = data.views if settings.tukey.map_back and settings.tukey.power != 1 else None
    return FeatureGenerator(features, data.labels, data.class_counts, tail, gaussians, settings, original)


def _transformed(data: FeatureData, tail: Tensor, settings: Tukey) -> Tensor:
    """x~ of all views, (V, N, d)."""
    if settings.power == 1:
        return data.views
    changed = tukey(data.views, settings.power)
    if settings.apply == "all":
        return changed
    return torch.where(tail[data.labels].unsqueeze(1), changed, data.views)
