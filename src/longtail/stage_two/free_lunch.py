"""Free Lunch: distribution calibration (Yang et al., ICLR 2021), carried over to long tails.

The paper learns few-shot classes next to base classes with many images. Features are transformed by
Tukey's ladder, calibrated by class statistics of untransformed features
(`longtail.stage_two.feature_calibration`), drawn once, and real
and drawn features together are what a logistic regression is fitted to.

Ours, as the paper has no long tail: every class is a base class, and every class is filled up to the size
of the largest (the paper draws 750 features a few-shot class); statistics are over all views, and every
feature, real or drawn from, is a random view of its image.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from longtail.errors import UserError
from longtail.random import generator
from longtail.settings.base import Settings as BaseSettings
from longtail.stage_two.classifier import FeatureData, Fitted, Report, tukey
from longtail.stage_two.feature_calibration import calibrated, draw, sources
from longtail.stage_two.gaussian import ClassGaussians


class Tukey(BaseSettings):
    """Tukey's ladder of powers, x~ = x^lambda (log x for lambda = 0)."""

    power: float = Field(0.5, ge=0, alias="lambda")  # [paper]
    statistics: Literal["before", "after"] = "before"  # [code] class means and covariances


class Settings(BaseSettings):
    """The generator and the logistic regression."""

    k: int = Field(2, ge=1, le=10_000)  # [paper]
    alpha: float = Field(0.21, ge=0)  # [paper]
    tukey: Tukey = Tukey()
    penalty: float = Field(1.0, ge=0)  # [code] of ||W||^2 / 2 beside the sum of losses; scikit-learn's C = 1
    iterations: int = Field(1000, ge=1, le=1_000_000)  # [code] of L-BFGS, at most


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Draw features once and fit the regression; the history is one row, the mean loss at the end.

    Raises:
        ValueError: if a class has no training image, or a feature is negative and lambda is not 1.
    """
    views, images, _ = data.views.shape
    classes, power = len(data.class_counts), settings.tukey.power
    transformed = tukey(data.views, power)
    base = transformed if settings.tukey.statistics == "after" else data.views
    gaussians = ClassGaussians(base.flatten(0, 1), data.labels.repeat(views), classes)

    random = generator(seed, "stage_two", "generate")
    device = data.views.device
    view = torch.randint(views, (images,), generator=random).to(device)
    real = transformed[view, torch.arange(images, device=device)]
    image = sources(data.labels.cpu(), data.class_counts.cpu(), random).to(device)
    view = torch.randint(views, image.shape, generator=random).to(device)
    rows, back = torch.unique(view * images + image, return_inverse=True)
    of = calibrated(transformed.flatten(0, 1)[rows], gaussians.means, settings.k)
    drawn = draw(gaussians, of, back, settings.alpha, random)

    features = torch.cat([real, drawn])
    labels = torch.cat([data.labels, data.labels[image]])
    weight, bias, loss = logistic_regression(
        features, labels, classes, settings.penalty, settings.iterations, progress
    )
    history = [{"epoch": 1, "loss": loss, "generated": len(drawn)}]
    return Fitted(weight=weight, bias=bias, tukey=power, history=history)


def logistic_regression(
    features: Tensor, labels: Tensor, classes: int, penalty: float, iterations: int, progress: Report
) -> tuple[Tensor, Tensor, float]:
    """Minimise sum CE + penalty ||W||^2 / 2 by L-BFGS from 0; the bias is not penalised.

    Args:
        features: (M, d).
        labels: int64 (M,).
        classes: C.
        penalty: 1 / C of scikit-learn's LogisticRegression.
        iterations: at most so many.
        progress: told of every evaluation.

    Returns:
        Weight (C, d), bias (C,), and the mean cross-entropy.

    Raises:
        UserError: if the loss is not finite.
    """
    weight = features.new_zeros(classes, features.shape[1]).requires_grad_()
    bias = features.new_zeros(classes).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        tolerance_grad=1e-4,  # of the mean, as scikit-learn's
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    done = 0

    def closure() -> Tensor:
        nonlocal done
        done += 1
        optimiser.zero_grad()
        entropy = F.cross_entropy(F.linear(features, weight, bias), labels)
        loss = entropy + penalty / (2 * len(labels)) * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        progress(min(done, iterations), iterations, f"loss {float(loss.detach()):.3f}")
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        mean = float(F.cross_entropy(F.linear(features, weight, bias), labels))
    if not torch.tensor(mean).isfinite():
        raise UserError(f"stage two: the loss of the logistic regression is {mean}; are features finite?")
    return weight.detach(), bias.detach(), mean
