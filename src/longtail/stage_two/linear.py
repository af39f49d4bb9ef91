"""Training a linear classifier on frozen features: the one loop of every stage-two method that trains one."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.errors import UserError
from longtail.schedules import LearningRate, Length


class Recipe(Protocol):
    """What the loop reads of a method's settings."""

    @property
    def batch_size(self) -> int:
        """Features a step."""

    @property
    def learning_rate(self) -> LearningRate:
        """Warm-up and decay over all steps; warm-up in epochs."""

    @property
    def momentum(self) -> float:
        """Of SGD."""

    @property
    def weight_decay(self) -> float:
        """Of SGD, on weight and bias."""


class LinearTraining:
    """SGD on weight (C, d) and bias (C,) over a number of epochs of equal length.

    Args:
        weight, bias: where it starts; left as they are.
        recipe: optimiser and schedule.
        epochs: number of epochs.
        samples: features an epoch; the last batch of an epoch may be smaller.
    """

    def __init__(self, weight: Tensor, bias: Tensor, recipe: Recipe, epochs: int, samples: int) -> None:
        self.weight = weight.clone().requires_grad_()
        self.bias = bias.clone().requires_grad_()
        self.recipe = recipe
        self.length = Length(epochs=epochs)
        self.steps_per_epoch = math.ceil(samples / recipe.batch_size)
        self.step = 0
        self.optimiser = torch.optim.SGD(
            [self.weight, self.bias],
            lr=recipe.learning_rate.peak,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def epoch(self, inputs: Tensor, order: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
        """One pass over the rows `order` (M,) of `inputs` (n, d); returns the mean loss.

        `loss(logits (B, C), rows (B,))` gives the 0-d mean loss of a batch; rows index `inputs`.

        Raises:
            UserError: if the loss is not finite.
        """
        total = torch.zeros((), device=inputs.device)
        for rows in torch.split(order, self.recipe.batch_size):
            rate = self.recipe.learning_rate.at(self.step, self.length, self.steps_per_epoch)
            self.optimiser.param_groups[0]["lr"] = rate
            value = loss(F.linear(inputs[rows], self.weight, self.bias), rows)
            self.optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            total += value.detach() * len(rows)
            self.step += 1
        mean = float(total) / len(order)
        if not math.isfinite(mean):
            epoch = math.ceil(self.step / self.steps_per_epoch)
            peak = self.recipe.learning_rate.peak
            raise UserError(
                f"stage two: the loss is {mean} in epoch {epoch}; try a learning_rate.peak below {peak:g}"
            )
        return mean

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits (n, C) of inputs (n, d) under the classifier as it now is."""
        with torch.no_grad():
            return F.linear(inputs, self.weight, self.bias)

    def result(self) -> tuple[Tensor, Tensor]:
        """Weight (C, d) and bias (C,) as they now are."""
        return self.weight.detach().clone(), self.bias.detach().clone()


def fresh_head(classes: int, dimensions: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weight (C, d) and bias (C,) of a new classifier: uniform in +-1 / sqrt(d), as `nn.Linear` starts."""
    bound = dimensions**-0.5
    weight = torch.empty(classes, dimensions).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(classes).uniform_(-bound, bound, generator=generator)
