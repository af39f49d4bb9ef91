"""A batch as a step sees it."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Images (B, C, H, W), uint8 until they are normalised, with weighted pairs of labels.

    An image counts with `weight` (B,) or 0-d for its class in `labels` (B,) and with 1 - weight for that in
    `others` (B,). Where both are None, as in a batch that no transform has mixed, `labels` is all. `drawn`
    are the random numbers that a step has asked for; only the first batch of a step has them.
    """

    images: Tensor
    labels: Tensor
    others: Tensor | None = None
    weight: Tensor | None = None
    drawn: tuple[Tensor, ...] = ()

    def tensors(self) -> list[Tensor]:
        """All of its tensors, in a fixed order."""
        return [part for part in self[:4] if isinstance(part, Tensor)] + list(self.drawn)

    def clone(self) -> "Batch":
        """The same numbers at addresses of their own."""
        parts = [part.clone() if isinstance(part, Tensor) else None for part in self[:4]]
        return Batch._make([*parts, tuple(tensor.clone() for tensor in self.drawn)])
