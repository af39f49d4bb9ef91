"""Stochastic gradient descent on any tensors: for classifiers that are more than a weight and a bias.

Those that are only that train with `longtail.stage_two.linear.LinearTraining`.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from longtail.errors import UserError
from longtail.settings.schedules import Length
from longtail.stage_two.linear import LinearRecipe


class Descent:
    """SGD over a number of epochs of equal length.

    Args:
        start: where the tensors start; left as they are.
        recipe: optimiser and schedule.
        epochs: number of epochs.
        samples: rows an epoch; the last batch of an epoch may be smaller.
        factors: of the learning rate, one a tensor; 1 if not given.

    Attributes:
        tensors: as they now are, in the order given; they require a gradient.
    """

    def __init__(
        self,
        start: Sequence[Tensor],
        recipe: LinearRecipe,
        epochs: int,
        samples: int,
        factors: Sequence[float] | None = None,
    ) -> None:
        self.tensors = [tensor.clone().requires_grad_() for tensor in start]
        self.recipe = recipe
        self.length = Length(epochs=epochs)
        self.steps_per_epoch = math.ceil(samples / recipe.batch_size)
        self.step = 0
        self.factors = factors or [1.0] * len(self.tensors)
        self.optimiser = torch.optim.SGD(
            [{"params": [tensor]} for tensor in self.tensors],
            lr=recipe.learning_rate.peak,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def epoch(self, order: Tensor, loss: Callable[[Tensor], Tensor]) -> float:
        """One pass over the rows `order` (M,); returns the mean loss.

        `loss(rows (B,))` gives the 0-d mean loss of a batch under the tensors as they then are.

        Raises:
            UserError: if the loss is not finite.
        """

        def automatic(rows: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            value = loss(rows)
            return value.detach(), torch.autograd.grad(value, self.tensors)

        return self.slope_epoch(order, automatic)

    def slope_epoch(self, order: Tensor, slope: Callable[[Tensor], tuple[Tensor, Sequence[Tensor]]]) -> float:
        """The same with the gradient given: `slope(rows)` is the loss and the gradient of each tensor."""
        total = torch.zeros((), device=order.device)
        for rows in torch.split(order, self.recipe.batch_size):
            rate = self.recipe.learning_rate.at(self.step, self.length, self.steps_per_epoch)
            for group, factor in zip(self.optimiser.param_groups, self.factors, strict=True):
                group["lr"] = factor * rate
            value, gradients = slope(rows)
            for tensor, gradient in zip(self.tensors, gradients, strict=True):
                tensor.grad = gradient
            self.optimiser.step()
            total += value * len(rows)
            self.step += 1
        mean = float(total) / len(order)
        if not math.isfinite(mean):
            epoch = math.ceil(self.step / self.steps_per_epoch)
            peak = self.recipe.learning_rate.peak
            raise UserError(
                f"stage two: the loss is {mean} in epoch {epoch}; try a learning_rate.peak below {peak:g}"
            )
        return mean

    def result(self) -> list[Tensor]:
        """The tensors as they now are, detached."""
        return [tensor.detach().clone() for tensor in self.tensors]
