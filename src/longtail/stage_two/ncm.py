"""Nearest class mean (NCM): Decoupling (Kang et al. 2020), section 4.2.

    z = (x - m) / ||x - m||;  mu_c = mean of the z of class c;  the class is argmin_c ||z - mu_c||

with m the mean of all training features ("cl2n" in the public code). As ||z||^2 is the same for every
class, the classifier is linear in z: logits = 2 mu_c . z - ||mu_c||^2, which is ||z||^2 - ||z - mu_c||^2.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_two.classifier import FeatureData, Fitted, Report


class Settings(BaseSettings):
    """Which features, and what is done to them first."""

    features: Literal["clean", "views"] = "clean"  # [code] clean; views: all augmented views, pooled
    # [code] cl2n; l2n: not centred; none: as they are
    normalisation: Literal["cl2n", "l2n", "none"] = "cl2n"


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """The means of the classes; nothing is trained.

    A feature that is the centre itself has no direction: its z is 0.

    Raises:
        ValueError: if a class has no training image; it has no mean.
    """
    views = data.clean.unsqueeze(0) if settings.features == "clean" else data.views
    features, labels = views.flatten(0, 1), data.labels.repeat(len(views))
    center = features.mean(0) if settings.normalisation == "cl2n" else None
    z = features if center is None else features - center
    if settings.normalisation != "none":
        z = F.normalize(z, dim=1)
    means = class_means(z, labels, len(data.class_counts))
    return Fitted(
        weight=2 * means,
        bias=-means.square().sum(1),
        center=center,
        normalise=settings.normalisation != "none",
    )


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean of each class's features (M, d), summed in float64; (C, d) float32.

    Raises:
        ValueError: if a class has none.
    """
    counts = labels.bincount(minlength=classes)
    if empty := (counts == 0).nonzero().flatten().tolist():
        raise ValueError(f"classes {empty} have no training image: remove them or merge them")
    sums = features.new_zeros(classes, features.shape[1]).double()
    sums.index_add_(0, labels, features.double())
    return (sums / counts.unsqueeze(1)).float()
