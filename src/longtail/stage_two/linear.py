"""Training a linear classifier on frozen features: the one loop of every stage-two method that trains one.

The gradient is written down: with dL/dz of the logits z = x W^T + b, an objective's business, the
classifier's is dL/dz^T x and the sum of dL/dz. A step is two small matrix products and a handful of
elementwise operations; autograd and an optimiser object cost several times as much as these.
"""

import math
from collections.abc import Callable, Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.errors import UserError
from longtail.settings.schedules import LearningRate, Length

CHUNK = 1 << 25  # numbers of a chunk's features, or of its logits; 128 MB

# From the logits (B, C) of some rows of a chunk: the sum of their losses (0-d), and its gradient (B, C).
Objective = Callable[[Tensor, slice], tuple[Tensor, Tensor]]


class LinearRecipe(Protocol):
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


class SoftTargets:
    """The objective -sum_c q_c log softmax(z / T)_c of each row, cross-entropy against targets q.

    Its gradient is (|q| softmax(z / T) - q) / T with |q| = sum_c q_c, which need not be 1. One-hot targets
    are cross-entropy, a mixture with a teacher's probabilities is distillation, and so on.

    Args:
        targets: q of each row of a chunk, (R, C).
        offset: (R,), added to the losses where given, e.g. minus the entropy of a teacher.
        temperature: T.
    """

    def __init__(self, targets: Tensor, offset: Tensor | None = None, temperature: float = 1.0) -> None:
        self.targets, self.offset, self.temperature = targets, offset, temperature
        self.mass = targets.sum(1, keepdim=True)

    def __call__(self, logits: Tensor, batch: slice) -> tuple[Tensor, Tensor]:
        """Sum of the losses of a batch, and its gradient."""
        targets = self.targets[batch]
        log_shares = (logits if self.temperature == 1 else logits / self.temperature).log_softmax(1)
        loss = -torch.dot(targets.flatten(), log_shares.flatten())
        if self.offset is not None:
            loss += self.offset[batch].sum()
        gradient = log_shares.exp_().mul_(self.mass[batch]).sub_(targets)
        return loss, gradient if self.temperature == 1 else gradient.div_(self.temperature)


def cross_entropy(labels: Tensor, classes: int, smoothing: float = 0.0) -> SoftTargets:
    """Cross-entropy of rows against labels, int64 (R,), of which `smoothing` is shared by all classes."""
    targets = torch.full((len(labels), classes), smoothing / classes, device=labels.device)
    return SoftTargets(targets.scatter_(1, labels.unsqueeze(1), 1 - smoothing + smoothing / classes))


def total(objectives: list[Objective]) -> Objective:
    """The sum of objectives."""

    def objective(logits: Tensor, batch: slice) -> tuple[Tensor, Tensor]:
        losses, gradients = zip(*(part(logits, batch) for part in objectives), strict=True)
        return sum(losses[1:], losses[0]), sum(gradients[1:], gradients[0])

    return objective


def by_autograd(loss: Callable[[Tensor, Tensor], Tensor], rows: Tensor) -> Objective:
    """Any mean loss of logits (B, C) and rows (B,) as an objective: slower, and nothing to derive."""

    def objective(logits: Tensor, batch: slice) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            value = loss(logits, rows[batch]) * len(logits)
        (gradient,) = torch.autograd.grad(value, logits)
        return value.detach(), gradient

    return objective


class LinearTraining:
    """SGD on weight (C, d) and bias (C,) over a number of epochs of equal length.

    As torch.optim.SGD computes it: v <- momentum v + gradient + weight_decay w, w <- w - rate v.

    Args:
        weight, bias: where it starts; left as they are.
        recipe: optimiser and schedule.
        epochs: number of epochs.
        samples: features an epoch; the last batch of an epoch may be smaller.

    Attributes:
        weight, bias: as they now are; they change in place.
        step: steps done.
        chunk: rows that a chunk may have at most, so that its features and its logits stay within `CHUNK`
            numbers; a multiple of the batch size, so that chunks do not change what a batch is.
    """

    def __init__(self, weight: Tensor, bias: Tensor, recipe: LinearRecipe, epochs: int, samples: int) -> None:
        self.recipe = recipe
        self.length = Length(epochs=epochs)
        self.steps_per_epoch = math.ceil(samples / recipe.batch_size)
        self.step = 0
        self.chunk = max(1, CHUNK // max(weight.shape) // recipe.batch_size) * recipe.batch_size
        # one vector, so that weight decay and the step are one operation each
        self._parameters = torch.cat([weight.detach().flatten(), bias.detach()])
        self._velocity = torch.zeros_like(self._parameters)
        self.weight, self.bias = self._as_classifier(self._parameters, weight.shape)

    @staticmethod
    def _as_classifier(vector: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """The parts of a vector that stand for weight and bias."""
        return vector[: shape.numel()].view(shape), vector[shape.numel() :]

    def epoch(self, inputs: Tensor, order: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
        """One pass over the rows `order` (M,) of `inputs` (n, d); returns the mean loss.

        `loss(logits (B, C), rows (B,))` gives the 0-d mean loss of a batch; rows index `inputs`. Autograd
        derives it: for any loss, but `train` with an objective is several times as fast.

        Raises:
            UserError: if the loss is not finite.
        """
        return self.train((inputs[rows], by_autograd(loss, rows)) for rows in torch.split(order, self.chunk))

    def labelled_epoch(self, inputs: Tensor, labels: Tensor, order: Tensor, smoothing: float = 0.0) -> float:
        """`epoch` for cross-entropy against labels (n,), as `cross_entropy` has it."""
        classes = len(self.weight)
        return self.train(
            (inputs.index_select(0, rows), cross_entropy(labels[rows], classes, smoothing))
            for rows in torch.split(order, self.chunk)
        )

    @torch.no_grad()
    def train(self, chunks: Iterable[tuple[Tensor, Objective]]) -> float:
        """One epoch, a chunk after the other; returns the mean loss.

        Args:
            chunks: features (R, d) and the objective of each; all but the last have a multiple of the
                batch size of rows. May be made one at a time.

        Raises:
            UserError: if the loss is not finite.
        """
        recipe, device = self.recipe, self._parameters.device
        weight_velocity, bias_velocity = self._as_classifier(self._velocity, self.weight.shape)
        ones = torch.ones(recipe.batch_size, device=device)
        summed, samples = torch.zeros((), device=device), 0
        for inputs, objective in chunks:
            for first in range(0, len(inputs), recipe.batch_size):
                batch = slice(first, first + recipe.batch_size)
                features = inputs[batch]
                loss, gradient = objective(torch.addmm(self.bias, features, self.weight.t()), batch)
                summed += loss
                transposed, mean = gradient.t(), 1 / len(features)
                weight_velocity.addmm_(transposed, features, beta=recipe.momentum, alpha=mean)
                bias_velocity.addmv_(transposed, ones[: len(features)], beta=recipe.momentum, alpha=mean)
                self._velocity.add_(self._parameters, alpha=recipe.weight_decay)
                rate = recipe.learning_rate.at(self.step, self.length, self.steps_per_epoch)
                self._parameters.add_(self._velocity, alpha=-rate)
                self.step += 1
            samples += len(inputs)
        result = float(summed) / samples
        if not math.isfinite(result):
            epoch = math.ceil(self.step / self.steps_per_epoch)
            peak = recipe.learning_rate.peak
            raise UserError(
                f"stage two: the loss is {result} in epoch {epoch}; try a learning_rate.peak below {peak:g}"
            )
        return result

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits (n, C) of inputs (n, d) under the classifier as it now is."""
        return F.linear(inputs, self.weight, self.bias)

    def result(self) -> tuple[Tensor, Tensor]:
        """Weight (C, d) and bias (C,) as they now are."""
        return self.weight.clone(), self.bias.clone()


def fresh_head(classes: int, dimensions: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weight (C, d) and bias (C,) of a new classifier: uniform in +-1 / sqrt(d), as `nn.Linear` starts."""
    bound = dimensions**-0.5
    weight = torch.empty(classes, dimensions).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(classes).uniform_(-bound, bound, generator=generator)
