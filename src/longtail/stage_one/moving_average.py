"""A moving average of the weights, which trainings with `weight_average` evaluate and write."""

import copy
from itertools import chain

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """The exponential moving average of a network that learns: w <- a_t w + (1 - a_t) theta after step t.

        a_t = min(decay, t / (t + 9)),  t = 0, 1, ...

    So the first average is the weights after the first step, whatever was there before, and early ones forget
    quickly, as in TensorFlow's ExponentialMovingAverage with a number of updates. Running statistics of batch
    normalisation are averaged as the weights are. All of its state is buffers and parameters that do not
    learn, which a checkpoint has and a recorded step updates in place.

    Args:
        network: is copied.
        decay: a_t in the long run, in [0, 1).

    Attributes:
        network: of the averaged weights; always in evaluation mode.
        updates: t, 0-d.
    """

    updates: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> "MovingAverage":
        """Stay in evaluation mode, whatever the network that learns is in."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights and statistics of the network after a step."""
        done = self.updates.float()
        share = 1 - (done / (done + 9)).clamp_max(self.decay)
        for own, new in zip(_tensors(self.network), _tensors(network), strict=True):
            if own.is_floating_point():
                own.lerp_(new, share.to(own.dtype))
            else:
                own.copy_(new)
        self.updates += 1


def update_average(modules: nn.ModuleDict) -> None:
    """After a step: `average` of the modules takes in `network`."""
    modules["average"].update(modules["network"])  # type: ignore[operator]


def _tensors(network: nn.Module) -> "chain[Tensor]":
    return chain(network.parameters(), network.buffers())
