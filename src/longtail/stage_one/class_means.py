"""A cosine head that starts at mean features of the classes: LIFT's without texts (Shi et al. 2024)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.errors import UserError
from longtail.stage_one.networks.cosine import CosineHead


def start_at_class_means(network: nn.Module, features: Tensor, labels: Tensor) -> None:
    """Give a cosine head the direction of each class's mean unit feature, where a class has images.

    Args:
        network: with `head`.
        features: of the training images, clean, (N, d).
        labels: int64 (N,).

    Raises:
        UserError: if the head is no cosine head.
    """
    head = network.get_submodule("head")
    if not isinstance(head, CosineHead):
        raise UserError("head_start: class_means: needs a network with head: cosine")
    sums = torch.zeros(head.weight.shape, dtype=torch.float64)
    sums.index_add_(0, labels.cpu(), F.normalize(features.double().cpu(), dim=1))
    seen = sums.any(dim=1)
    with torch.no_grad():
        head.weight[seen.to(head.weight.device)] = F.normalize(sums[seen]).to(head.weight)
