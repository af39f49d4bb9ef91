"""Where a linear classifier over frozen features starts, and what it sees of them."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from longtail.random import generator
from longtail.stage_two.classifier import FeatureData
from longtail.stage_two.linear import fresh_head


@dataclass(frozen=True)
class InitialClassifier:
    """A classifier before its training.

    Attributes:
        weight, bias: (C, d) and (C,).
        normalise: whether it is one of features / their L2 norm, as stage one's is with a cosine head.
    """

    weight: Tensor
    bias: Tensor
    normalise: bool = False

    def inputs(self, features: Tensor) -> Tensor:
        """What the classifier sees of features (..., d)."""
        return F.normalize(features, dim=-1) if self.normalise else features


def initial_classifier(init: str, data: FeatureData, seed: int) -> InitialClassifier:
    """Stage one's classifier for "stage_one", a new one for "random"."""
    if init == "stage_one":
        return InitialClassifier(data.head_weight, data.head_bias, data.head_normalises)
    classes, dimensions = data.head_weight.shape
    weight, bias = fresh_head(classes, dimensions, generator(seed, "stage_two", "init"))
    return InitialClassifier(weight.to(data.head_weight.device), bias.to(data.head_weight.device))
