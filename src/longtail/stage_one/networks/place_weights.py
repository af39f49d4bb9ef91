"""BFR: places of the last feature maps that look like background count less in the pooling.

From OFBD (preprint, 2026), of whose parts it is the one without parameters and without cost in training. The
source leaves open the kind of variance, the eps and whether gradients go through the weights: ours are those
of the population, 1e-5, and they do.
"""

import torch
from torch import Tensor

EPSILON = 1e-5


def background(maps: Tensor) -> Tensor:
    """How much each place looks like background, B (N, 1, H, W), in (0, 1); maps F are (N, d, H, W).

    With mu_d, var_d over the places u of an image,

        S_du = sigmoid( (F_du - mu_d)^2 / (4 (var_d + eps)) )      how far a place stands out in a channel
        T_u  = mean of the S_du that are at least mean_d S_du      ... in the channels where it does
        B_u  = sigmoid( (mean_u T - T_u) / (std_u T + eps) )

    A map that is the same everywhere has B = 1/2.
    """
    variance, mean = torch.var_mean(maps, dim=(2, 3), correction=0, keepdim=True)
    standing_out = ((maps - mean) ** 2 / (4 * (variance + EPSILON))).sigmoid()
    # the mean of equal numbers may be rounded up to above them
    bound = standing_out.mean(dim=1, keepdim=True).minimum(standing_out.amax(dim=1, keepdim=True))
    among = (standing_out >= bound).to(maps.dtype)
    total = (among * standing_out).sum(dim=1, keepdim=True) / among.sum(dim=1, keepdim=True)
    spread, middle = torch.var_mean(total, dim=(2, 3), correction=0, keepdim=True)
    # the slope of the root is infinite at 0, where all places are alike
    return ((middle - total) / (spread.clamp_min(EPSILON**2).sqrt() + EPSILON)).sigmoid()


def weighted_mean(maps: Tensor) -> Tensor:
    """Features (N, d) = mean_u (1 - B_u / 2) F_u of maps (N, d, H, W), at least float32."""
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return ((1 - 0.5 * background(maps)) * maps).mean(dim=(2, 3))
