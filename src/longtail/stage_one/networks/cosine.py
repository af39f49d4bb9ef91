"""The cosine classifier, a head for any backbone (LDAM's, Cao et al. 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CosineHead(nn.Module):
    """Logits are a scale times the cosine between feature and class vector; no bias.

    The scale belongs to the head, not to a loss, so that logits mean the same wherever they are used:
    in any loss, in calibration, as a teacher's.

    Args:
        dimensions: d of the features.
        classes: C.
        scale: of the logits.

    Attributes:
        weight: class vectors (C, d) of any length, at first unit vectors of random direction.
    """

    def __init__(self, dimensions: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.empty(classes, dimensions).uniform_(-1, 1)))
        self.scale = scale

    def linear(self) -> Tensor:
        """The scaled unit class vectors (C, d): a linear classifier without bias of normalised features."""
        return self.scale * F.normalize(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, d) to logits (B, C), float32 also under autocast: 30 in bfloat16 is known to 0.1."""
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(F.normalize(features.float()), self.linear())
