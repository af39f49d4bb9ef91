"""Weights in bfloat16 for a step, by one copy of them all.

Autocast casts every weight where a layer reads it: a launch a weight on the way forward, and another for its
gradient on the way back. A small network has as many of these as convolutions. Cast together they are one
launch each way, with the same bits: a copy rounds as autocast does, and a gradient in bfloat16 is a float32.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from longtail.stage_one.batch import Batch
from longtail.stage_one.step import Outcome, Step

LAYERS = (nn.Conv2d, nn.Linear)  # these classes themselves: one that inherits may compute with its weight


class _Cast(torch.autograd.Function):
    """float32 tensors to bfloat16, and their gradients back."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # a weight that the loss does not reach has no gradient, not nought
        return _copied(weights, torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found = iter(_copied([gradient for gradient in gradients if gradient is not None], torch.float32))
        return tuple(None if gradient is None else next(found) for gradient in gradients)


def _copied(tensors: Sequence[Tensor], kind: torch.dtype) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(tensor, dtype=kind) for tensor in tensors]
    if copies:
        torch._foreach_copy_(copies, list(tensors))
    return tuple(copies)


class CastTogether(nn.Module):
    """A step under autocast whose layers find their weights and biases in bfloat16 already.

    Args:
        step: with `cast_together`.
        modules: that it is given. Of these only what learns is cast: it is what every step changes.
    """

    def __init__(self, step: Step, modules: nn.ModuleDict) -> None:
        super().__init__()
        self._step, self.modules_of_step = step, modules
        self._names = [
            f"modules_of_step.{path}.{name}"
            for path, layer in modules.named_modules()
            if type(layer) in LAYERS
            for name, parameter in layer.named_parameters(recurse=False)
            if parameter.requires_grad and parameter.dtype == torch.float32
        ]

    def forward(self, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """What the step makes of the batches with the weights that the modules have."""
        return self._step(self.modules_of_step, batches, progress)

    def take(self, _modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """The same with these weights in bfloat16; called as the step is."""
        weights = _Cast.apply(*(self.get_parameter(name) for name in self._names))
        cast = dict(zip(self._names, weights, strict=True))
        outcome: Outcome = functional_call(self, cast, (batches, progress))
        return outcome


def casting(
    step: Step, modules: nn.ModuleDict, device: torch.device, precision: str
) -> Callable[[nn.ModuleDict, Sequence[Batch], Tensor], Outcome]:
    """The step, with its weights cast together where that saves launches: in bf16 on a GPU."""
    if device.type == "cuda" and precision == "bf16" and step.cast_together:
        return CastTogether(step, modules).take
    return step
