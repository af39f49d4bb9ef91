"""TailCalibX (Vigneswaran et al. 2021): features drawn anew every epoch, and a cosine classifier.

Before each epoch every class is filled up to the size of the largest with draws from the calibrated
Gaussians of its own images (longtail.stage_two.feature_calibration), on L2-normalised features under Tukey's
ladder, with class statistics from before Tukey. Real and drawn features are L2-normalised once more, z,
and train

    logits_c = s w_c . z / ||w_c|| + b_c,    s = softplus(sigma), all learnt

from stage one's w_c on. The public code divides w by its length over classes, not over features, by what
looks like a slip; here each w_c has length 1, as the paper has it. There, stage one has a cosine classifier
too and the best epoch on the validation split is kept; here stage one is as it is, and the last epoch stays.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from longtail.random import generator
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import LearningRate, StepDecay
from longtail.stage_two.classifier import FeatureData, Fitted, Report, selection_score, tukey
from longtail.stage_two.descent import Descent
from longtail.stage_two.feature_calibration import calibrated, draw, sources
from longtail.stage_two.gaussian import ClassGaussians
from longtail.stage_two.initial import initial_classifier


class Tukey(BaseSettings):
    """Tukey's ladder of powers, x~ = x^lambda; not its logarithm, as features are normalised after it."""

    power: float = Field(1.0, gt=0, alias="lambda")  # [code] 1, 0.9, 0.9 at ratios 100, 50, 10
    statistics: Literal["before", "after"] = "before"  # [code] class means and covariances


class Settings(BaseSettings):
    """The generator, the classifier and its optimiser; the defaults are the authors' for ratio 100."""

    epochs: int = Field(150, ge=1, le=1_000_000)  # [code]
    k: int = Field(3, ge=1, le=10_000)  # [code] 3, 3, 2 at ratios 100, 50, 10
    alpha: float = Field(0.0, ge=0)  # [code] 0, 0.2, 0
    tukey: Tukey = Tukey()
    scale: float = Field(10.0, gt=0)  # [code] sigma at first
    init: Literal["stage_one", "random"] = "stage_one"  # [code]
    batch_size: int = Field(128, ge=1, le=1_000_000)  # [code]
    # [code] constant
    learning_rate: LearningRate = LearningRate(peak=0.01, decay=StepDecay(form="step", at=[0], factors=[1]))
    momentum: float = Field(0.7, ge=0, lt=1)  # [code] 0.7, 0, 0.9 at ratios 100, 50, 10
    weight_decay: float = Field(5e-4, ge=0)  # [code]


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Train on real and drawn features; epoch e takes view e mod V of every image [ours].

    A feature of length 0 has no direction and stays 0.

    Raises:
        ValueError: if a class has no training image, or a feature is negative and lambda is not 1.
    """
    views = len(data.views)
    classes, power = len(data.class_counts), settings.tukey.power
    before = F.normalize(data.views, dim=2)
    transformed = tukey(before, power)
    base = transformed if settings.tukey.statistics == "after" else before
    gaussians = [ClassGaussians(view, data.labels, classes) for view in base]
    calibrations = [
        calibrated(view, of.means, settings.k) for view, of in zip(transformed, gaussians, strict=True)
    ]
    total = classes * int(data.class_counts.max())
    first = initial_classifier(settings.init, data, seed)
    tensors = [first.weight, first.bias, first.bias.new_tensor(settings.scale)]
    training = Descent(tensors, settings, settings.epochs, total)
    labels_cpu, counts_cpu = data.labels.cpu(), data.class_counts.cpu()

    history = []
    for epoch in range(settings.epochs):
        random, view = generator(seed, "stage_two", "generate", epoch), epoch % views
        image = sources(labels_cpu, counts_cpu, random).to(data.views.device)
        drawn = draw(gaussians[view], calibrations[view], image, settings.alpha, random)
        inputs = F.normalize(torch.cat([transformed[view], drawn]), dim=1)
        labels = torch.cat([data.labels, data.labels[image]])

        def slope(
            rows: Tensor, inputs: Tensor = inputs, labels: Tensor = labels
        ) -> tuple[Tensor, list[Tensor]]:
            return cosine_slope(training.tensors, inputs[rows], labels[rows])

        order = torch.randperm(total, generator=generator(seed, "stage_two", "order", epoch))
        mean = training.slope_epoch(order.to(inputs.device), slope)
        logits = _fitted(training, power).logits(data.validation)
        score = selection_score(logits, data.validation_labels, classes)
        history.append({"epoch": epoch + 1, "loss": mean, "generated": len(drawn), "validation": score})
        progress(epoch + 1, settings.epochs, f"loss {mean:.3f}")
    fitted = _fitted(training, power)
    return Fitted(fitted.weight, fitted.bias, power, normalise=True, history=history)


def cosine(tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Weight (C, d) and bias (C,) of the linear map that w, b and sigma make of unit vectors."""
    weight, bias, sigma = tensors
    return F.softplus(sigma) * F.normalize(weight, dim=1), bias


@torch.no_grad()
def cosine_slope(tensors: list[Tensor], inputs: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Mean cross-entropy of a batch, and its gradient by w, b and sigma; written out, as it is most of a run.

    With u_c = w_c / ||w_c|| and G = (p - onehot)^T z / B, the gradient of s u_c . z is s G by u_c, of which
    w_c gets the part across u_c over ||w_c||, and sum(G u) by s.

    Args:
        tensors: w (C, d), b (C,), sigma 0-d.
        inputs: z, (B, d).
        labels: int64 (B,).
    """
    weight, _, sigma = tensors
    scaled, bias = cosine(tensors)
    log_p = F.linear(inputs, scaled, bias).log_softmax(1)
    own = labels.unsqueeze(1)
    loss = -log_p.gather(1, own).mean()
    error = log_p.exp_().scatter_add_(1, own, log_p.new_full(own.shape, -1)).div_(len(labels))
    by_unit = error.T @ inputs
    unit = F.normalize(weight, dim=1)
    along = (by_unit * unit).sum(1, keepdim=True)
    across = F.softplus(sigma) * (by_unit - along * unit) / weight.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return loss, [across, error.sum(0), along.sum() * sigma.sigmoid()]


def _fitted(training: Descent, power: float) -> Fitted:
    """x^lambda, normalised, is the same with and without the first normalisation, as lambda > 0."""
    weight, bias = cosine(training.result())
    return Fitted(weight, bias, power, normalise=True)
