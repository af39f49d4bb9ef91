"""A class as the choices of exemplars see it: points around a mean."""

import torch.nn.functional as F
from torch import Tensor


def points(features: Tensor, normalise: bool) -> tuple[Tensor, Tensor]:
    """The images of one class and their mean, in float64 so that rounding decides as little as may be.

    Args:
        features: (n, d).
        normalise: whether images are divided by their L2 norm, and then their mean by its own; a vector of
            length 0 stays 0.

    Returns:
        Images (n, d) and mean (d,), on the features' device.
    """
    images = features.double()
    if not normalise:
        return images, images.mean(0)
    images = F.normalize(images, dim=1)
    return images, F.normalize(images.mean(0), dim=0)
