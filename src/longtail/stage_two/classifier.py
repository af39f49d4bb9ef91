"""What a method of stage two is handed, and the classifier that it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Report = Callable[[int, int, str], None]  # epochs done, epochs in all, a note


@dataclass(frozen=True)
class FeatureData:
    """What a method learns from.

    Attributes:
        views: features of the training images, one row an image and view, float32 (V, N, d), >= 0 after a
            ReLU; V = 1 and the clean features where no augmented views were made.
        view_logits: stage one's logits of the same, (V, N, C).
        labels: int64 (N,).
        class_counts: training images of each class, int64 (C,).
        clean: features of the training images without augmentation, (N, d).
        validation, validation_labels: clean features (M, d) and labels (M,) of the validation images.
        head_weight, head_bias: stage one's classifier, (C, d) and (C,).
        head_normalises: whether that is a classifier of features / their L2 norm (a cosine head).
        whole, whole_labels: clean features (W, d) and labels (W,) of all training images that the dataset
            has, those that the imbalance left out included; None unless the method reads them.
    """

    views: Tensor
    view_logits: Tensor
    labels: Tensor
    class_counts: Tensor
    clean: Tensor
    validation: Tensor
    validation_labels: Tensor
    head_weight: Tensor
    head_bias: Tensor
    head_normalises: bool = False
    whole: Tensor | None = None
    whole_labels: Tensor | None = None

    def to(self, device: torch.device) -> "FeatureData":
        """The same on a device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Fitted:
    """A classifier: logits = W z + b with z = normalise(tukey(x) - center).

    Attributes:
        weight, bias: (C, d) and (C,).
        tukey: lambda of Tukey's ladder, applied to features before all else; 1 is none.
        center: what is subtracted then, (d,); None is nothing.
        normalise: whether z is divided by its length at last; a z of length 0 stays 0.
        history: one row an epoch; every row has the same keys. No times: they would differ between runs.
        tensors: what else is worth keeping, by name (e.g. confidences).
    """

    weight: Tensor
    bias: Tensor
    tukey: float = 1.0
    center: Tensor | None = None
    normalise: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def logits(self, features: Tensor) -> Tensor:
        """Logits (M, C) of clean features (M, d)."""
        inputs = tukey(features, self.tukey)
        if self.center is not None:
            inputs = inputs - self.center
        if self.normalise:
            inputs = F.normalize(inputs, dim=-1)
        return F.linear(inputs, self.weight, self.bias)

    def state(self) -> dict[str, Tensor]:
        """All that predicting needs, and the method's own tensors, by the names of the attributes."""
        return {
            "weight": self.weight,
            "bias": self.bias,
            "tukey": torch.tensor(self.tukey),
            **({} if self.center is None else {"center": self.center}),
            **({"normalise": torch.tensor(True)} if self.normalise else {}),
            **self.tensors,
        }


TUKEY_OFFSET = 1e-6


def tukey(features: Tensor, power: float) -> Tensor:
    """Tukey's ladder of powers: x^lambda, or log(x + 1e-6) for lambda = 0; x >= 0, any shape.

    The offset is ours: features behind a ReLU are often exactly 0, whose logarithm is minus infinity.

    Raises:
        ValueError: if lambda is not 1 and a feature is negative.
    """
    if power == 1:
        return features
    if negative := int((features < 0).sum()):
        raise ValueError(
            f"Tukey's ladder needs features >= 0, such as those behind a ReLU, and {negative:,} of "
            f"{features.numel():,} numbers are negative: set tukey.lambda to 1 instead of {power:g}"
        )
    return (features + TUKEY_OFFSET).log() if power == 0 else features**power


def tukey_inverse(transformed: Tensor, power: float) -> Tensor:
    """Features >= 0 whose `tukey` is `transformed`, any shape; what no such feature has becomes 0.

    x = max(x~, 0)^(1 / lambda), or max(e^x~ - 1e-6, 0) for lambda = 0. For lambda = 1 nothing changes,
    negative numbers included.
    """
    if power == 1:
        return transformed
    if power == 0:
        return (transformed.exp() - TUKEY_OFFSET).clamp_min(0)
    return transformed.clamp_min(0) ** (1 / power)


def class_accuracy(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Share of each class's samples that are classified rightly, float32 (C,); nan without samples."""
    hits = labels[logits.argmax(1) == labels]
    return torch.bincount(hits, minlength=classes) / torch.bincount(labels, minlength=classes)


def selection_classes(labels: Tensor, classes: int) -> Tensor:
    """Which classes count in a class-mean score by which something is selected, bool (C,).

    Those with as many validation images as any class has: with `validation: unused` nearly all have 20,
    and the largest classes fewer or none. Where fewer than half of the classes have the most images, as
    with a held-out share, which is proportional to a class's size, all that have an image count.
    """
    images = torch.bincount(labels, minlength=classes)
    full = (images == images.max()) & (images > 0)
    return full if 2 * int(full.sum()) >= classes else images > 0


def selection_score(logits: Tensor, labels: Tensor, classes: int) -> float:
    """Mean accuracy of the classes that count in selection (`selection_classes`); nan without any."""
    return float(class_accuracy(logits, labels, classes)[selection_classes(labels, classes)].mean())
