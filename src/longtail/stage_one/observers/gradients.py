"""Gradient distortion (Asynchronous modelling): how data-rich and data-poor classes pull at a network.

On the first batches of an epoch, at the parameters with which it begins, the gradient of the recipe's own
loss is taken apart by whose logits it comes through:

    g_total = g_rich + g_poor + g_rest,    g_rich = sum over data-rich images i of dL/dz_i dz_i/dtheta

so that the parts are exactly those of the batch's mean loss, for any loss of the logits z; g_rest is what a
loss has besides them, as a term on features. One pass forward and two back, about 5/3 of a training step.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from longtail.device import sent
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.rich_classes import Rich, rich_classes

# Of a batch that is measured, in training steps. On a GPU these are replayed graphs, while measuring launches
# every kernel: 14 is estimated from launches (docs/explanation/performance.md), not measured.
COST = {"cpu": 5 / 3, "cuda": 14.0}
SHARE = 0.1  # of the training that `every: auto` may cost
GRADIENTS = ("total", "rich", "poor")
PARTS = ("backbone", "head")
PAIRS = (("total", "rich"), ("total", "poor"), ("rich", "poor"))


class Settings(BaseSettings):
    """How much is measured, and where data-rich ends [ours]."""

    rich: Rich = Rich(above=100)
    batches: int = Field(4, ge=2, le=100_000)  # of an epoch; the norms' variance is over these
    every: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"  # epochs; auto: see SHARE


class Gradients:
    """Measures the gradients at the beginning of an epoch.

    Args:
        settings: of the measure.
        class_counts: training images of each class, shape (C,).
    """

    def __init__(self, settings: Settings, class_counts: Tensor) -> None:
        self._settings = settings
        self._is_rich = torch.tensor(rich_classes(settings.rich, class_counts.tolist()))

    def __call__(
        self,
        modules: nn.ModuleDict,
        loss_of: Callable[[int], tuple[Tensor, Tensor]],
        steps: int,
        epoch: int,
    ) -> dict[str, float | None]:
        """Columns of the history, none in an epoch that is not measured.

        Args:
            modules: with `network`, whose `head` every image passes once.
            loss_of: number of a step to the loss (0-d) of its batch and the batch's labels (B,).
            steps: of this epoch.
            epoch: finished ones of the phase.

        Returns:
            `gradient_PART_...` for the parts backbone and head: means over the batches of the cosines and
            norms, and the variances of the norms; None where a group had no image in any batch.
        """
        batches = min(self._settings.batches, steps)
        where = next(modules["network"].parameters()).device.type
        auto = math.ceil(batches * COST.get(where, COST["cuda"]) / (SHARE * steps))
        if epoch % (auto if self._settings.every == "auto" else self._settings.every):
            return {}
        with _as_they_were(modules):
            found = [self._products(modules["network"], loss_of, number) for number in range(batches)]
        products = torch.stack(found).tolist()  # the measure's one wait
        return {
            f"gradient_{part}_{name}": value
            for place, part in enumerate(PARTS)
            for name, value in _columns([batch[place] for batch in products]).items()
        }

    def _products(
        self, network: nn.Module, loss_of: Callable[[int], tuple[Tensor, Tensor]], number: int
    ) -> Tensor:
        """Scalar products of the gradients of one batch in each part, float64 (2, 3, 3)."""
        named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        parts = [[p for name, p in named if name.startswith("head.") == (part == "head")] for part in PARTS]
        parameters = [p for part in parts for p in part]
        total, rich, poor = parted(network, parameters, loss_of, number, self._is_rich)
        backbone = len(parts[0])
        return torch.stack(
            [
                _gram([gradient[own] for gradient in (total, rich, poor)], parameters[0].device)
                for own in (slice(backbone), slice(backbone, None))
            ]
        )


def parted(
    network: nn.Module,
    parameters: Sequence[Tensor],
    loss_of: Callable[[int], tuple[Tensor, Tensor]],
    number: int,
    is_rich: Tensor,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Gradients of a batch's loss with respect to parameters: total, of data-rich, of data-poor images.

    Args:
        network: its `head` is called once by `loss_of`.
        parameters: of the network.
        loss_of: as an observer is given it.
        number: of the step.
        is_rich: of each class, bool (C,).
    """
    cut: list[tuple[Tensor, Tensor]] = []

    def cut_off(_module: nn.Module, _inputs: Any, logits: Tensor) -> Tensor:
        leaf = logits.detach().requires_grad_()
        cut.append((logits, leaf))
        return leaf

    hook = network.get_submodule("head").register_forward_hook(cut_off)
    try:
        loss, labels = loss_of(number)
    finally:
        hook.remove()
    ((logits, leaf),) = cut
    by_logits, *rest = torch.autograd.grad(loss, [leaf, *parameters], retain_graph=True, allow_unused=True)
    mine = sent(is_rich, labels.device)[labels][:, None]
    rich, poor = (
        torch.autograd.grad(logits, parameters, by_logits * mask, retain_graph=True, allow_unused=True)
        for mask in (mine, ~mine)
    )
    by_rich, by_poor = (
        [
            torch.zeros_like(p) if found is None else found
            for p, found in zip(parameters, gradient, strict=True)
        ]
        for gradient in (rich, poor)
    )
    total = [
        a + b if other is None else a + b + other for a, b, other in zip(by_rich, by_poor, rest, strict=True)
    ]
    return total, by_rich, by_poor


def _gram(gradients: Sequence[Sequence[Tensor]], device: torch.device) -> Tensor:
    """Scalar products of gradients with each other, float64 (3, 3); zero for a part without parameters."""
    if not gradients[0]:
        return torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=device)
    flat = torch.stack([torch.cat([tensor.flatten() for tensor in gradient]) for gradient in gradients])
    return (flat @ flat.T).double()


def _columns(products: Sequence[Sequence[Sequence[float]]]) -> dict[str, float | None]:
    """What the products of one part, batch by batch, are as cosines, norms and variances of norms."""
    norms = [[math.sqrt(gram[i][i]) for gram in products] for i in range(len(GRADIENTS))]
    columns: dict[str, float | None] = {}
    for first, second in PAIRS:
        i, j = GRADIENTS.index(first), GRADIENTS.index(second)
        cosines = [
            gram[i][j] / (a * b)
            for gram, a, b in zip(products, norms[i], norms[j], strict=True)
            if a > 0 and b > 0
        ]
        columns[f"cosine_{first}_{second}"] = math.fsum(cosines) / len(cosines) if cosines else None
    for name, found in zip(GRADIENTS, norms, strict=True):
        columns[f"norm_{name}"] = statistics.fmean(found) if any(found) else None
    for name, found in zip(GRADIENTS, norms, strict=True):
        columns[f"variance_{name}"] = statistics.variance(found) if any(found) and len(found) > 1 else None
    return columns


@contextmanager
def _as_they_were(modules: nn.Module) -> Iterator[None]:
    """Give all buffers back their values: batch normalisation moves its statistics at every pass."""
    before = [buffer.clone() for buffer in modules.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(modules.buffers(), before, strict=True):
                buffer.copy_(value)


def build(settings: Settings, class_counts: Tensor) -> Gradients:
    """The observer for class counts (C,)."""
    return Gradients(settings, class_counts)
