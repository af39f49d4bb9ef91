"""What is measured of logits: accuracy by class and by size of class, and calibration."""

import math
from typing import Any

import torch
from torch import Tensor

from longtail.errors import UserError
from longtail.groups import FEW_BELOW, GROUPS, MANY_ABOVE, group

CALIBRATION_BINS = 15
PART = 1 << 22  # logits that are looked at together, in float64

Accuracies = list[float | None]


def metrics(logits: Tensor, labels: Tensor, class_counts: Tensor) -> dict[str, Any]:
    """Accuracy and calibration of one set of images, as plain JSON data.

    Args:
        logits: float, shape (N, C).
        labels: int64, shape (N,).
        class_counts: training images per class, shape (C,).

    Returns:
        n: number of images. accuracy: share of images whose largest logit is their class's.
        mean_class_accuracy: mean of the classes' accuracies. groups: `group_accuracy` with the field's
        thresholds. per_class, per_class_n: accuracy and number of images of each class.
        expected_calibration_error. All accuracies are shares in [0, 1], None where there is no image.
    """
    logits, labels, class_counts = logits.cpu(), labels.cpu(), class_counts.cpu()
    classes = len(class_counts)
    correct = logits.argmax(dim=1) == labels
    per_class_n = labels.bincount(minlength=classes)
    hits = labels[correct].bincount(minlength=classes)
    numbers, right = per_class_n.tolist(), hits.tolist()
    per_class: Accuracies = [h / n if n else None for h, n in zip(right, numbers, strict=True)]
    return {
        "n": len(labels),
        "accuracy": sum(right) / len(labels) if len(labels) else None,
        "mean_class_accuracy": _mean(per_class),
        "groups": group_accuracy(per_class, numbers, class_counts.tolist()),
        "expected_calibration_error": expected_calibration_error(logits, labels),
        "per_class": per_class,
        "per_class_n": numbers,
    }


def group_accuracy(
    per_class_accuracy: Accuracies,
    per_class_n: list[int],
    class_counts: list[int],
    many_above: int = MANY_ABOVE,
    few_below: int = FEW_BELOW,
) -> dict[str, float | None]:
    """Mean accuracy of the many, medium and few-shot classes (Liu et al. 2019, OLTR).

    Every class weighs the same, as in the field's code; classes without a test image are left out.

    Args:
        per_class_accuracy: shares in [0, 1], C of them.
        per_class_n: test images per class, C of them.
        class_counts: training images per class, C of them.
        many_above: a class with more training images is many-shot.
        few_below: a class with fewer training images is few-shot.

    Returns:
        many, medium, few; None for a group without a class that has test images.
    """
    groups: dict[str, Accuracies] = {name: [] for name in GROUPS}
    for accuracy, n, count in zip(per_class_accuracy, per_class_n, class_counts, strict=True):
        if n:
            groups[group(count, many_above, few_below)].append(accuracy)
    return {name: _mean(accuracies) for name, accuracies in groups.items()}


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> float | None:
    """Mean gap between confidence and accuracy (Guo et al. 2017, eq. 3): sum_b n_b / N |acc_b - conf_b|.

    Args:
        logits: shape (N, C).
        labels: shape (N,).
        bins: number of equally wide bins of the largest softmax probability.

    Returns:
        The error as a share in [0, 1]; None without images.

    Raises:
        UserError: if a logit is NaN or infinite.
    """
    if not len(labels):
        return None
    gaps = torch.zeros(bins, dtype=torch.float64)
    rows = max(1, PART // logits.shape[1])
    for part, own in zip(torch.split(logits, rows), torch.split(labels, rows), strict=True):
        confidence, predicted = part.double().softmax(dim=1).max(dim=1)
        if confidence.isnan().any():
            raise UserError("logits are not finite: the training diverged; lower learning_rate.peak")
        number = (confidence * bins).long().clamp(max=bins - 1)
        gaps.index_add_(0, number, (predicted == own).double() - confidence)
    return float(gaps.abs().sum() / len(labels))


def _mean(accuracies: Accuracies) -> float | None:
    present = [accuracy for accuracy in accuracies if accuracy is not None]
    return math.fsum(present) / len(present) if present else None
