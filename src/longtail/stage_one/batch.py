"""A batch as a step sees it."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Images (B, C, H, W), uint8 until they are normalised, with weighted pairs of labels.

    An image counts with `weight` (B,) or 0-d for its class in `labels` (B,) and with 1 - weight for that in
    `others` (B,). Where both are None, as in a batch that no transform has mixed, `labels` is all.
    """

    images: Tensor
    labels: Tensor
    others: Tensor | None = None
    weight: Tensor | None = None
