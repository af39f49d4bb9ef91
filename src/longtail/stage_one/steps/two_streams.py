"""BBN's step (Zhou et al. 2020): images as they come and images sampled otherwise, through two branches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from longtail.settings.base import Settings as BaseSettings
from longtail.settings.method_blocks import Sampler
from longtail.settings.schedules import Gamma, Power
from longtail.stage_one.batch import Batch
from longtail.stage_one.step import Outcome, Step, Stream
from longtail.stage_one.step_context import StepContext, sampler_of

if TYPE_CHECKING:
    from longtail.settings.recipe import Recipe


class Settings(BaseSettings):
    """The second stream, and how its weight grows."""

    takes: ClassVar = ("shards",)

    second: Sampler = Field({"name": "reversed"}, validate_default=True)  # [paper] of the second stream
    # 1 - alpha over the phase [paper]: a parabola, 0 in the first epoch
    weight: Gamma = Power(a=1.0, b=2.0)

    @field_validator("weight")
    @classmethod
    def _convex(cls, weight: Gamma) -> Gamma:
        if weight.a > 1:
            raise ValueError(f"a {weight.a:g} is more than 1, so that alpha would be negative")
        return weight

    def refusal(self, recipe: "Recipe") -> str | None:
        """What of a recipe the step cannot have; None where there is nothing such."""
        if recipe.network.name != "bbn":
            return f"network {recipe.network.name} has no two branches; take network: {{name: bbn}}"
        return None


class TwoStreams(Step):
    """Zhou et al. 2020, sections 4.2 and 4.3, with alpha = 1 - weight(t):

        z = W [2 alpha f_c(x_a) ; 2 (1 - alpha) f_r(x_b)] + b
        loss = alpha L(z, y_a) + (1 - alpha) L(z, y_b)

    f_c and f_r are what the conventional and the rebalancing branch make of the same trunk. The batches go
    through it one after the other, so that batch normalisation never mixes them. In evaluation both branches
    see the image and the factors 2 alpha and 2 (1 - alpha) are 1, as with alpha = 1/2.

    Args:
        second: the sampler of x_b.
        weight: of progress, 0-d.
    """

    cast_together = True

    def __init__(self, second: Stream, weight: Gamma) -> None:
        self._second, self._weight = second, weight

    def streams(self, own: Stream) -> Sequence[Stream]:
        """The recipe's, and the second one; each is augmented on its own."""
        return [own, self._second]

    def logits(self, modules: nn.ModuleDict, batches: Sequence[Batch], alpha: Tensor) -> Tensor:
        """z (B, C) of a batch of either stream."""
        network = modules["network"]
        branches = (
            (batches[0], "conventional", 2 * alpha),
            (batches[1], "rebalancing", 2 * (1 - alpha)),
        )
        found = [
            factor * network.branch(network.trunk_maps(batch.images), network.get_submodule(name))  # type: ignore[operator]
            for batch, name, factor in branches
        ]
        logits: Tensor = network.get_submodule("head")(torch.cat(found, dim=1))
        return logits.float()

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """The loss of a batch of either stream; right is what the first one's label says."""
        alpha = 1 - self._weight(progress)
        logits, loss = self.logits(modules, batches, alpha), modules["loss"]
        value = alpha * loss(logits, batches[0].labels, progress)
        value = value + (1 - alpha) * loss(logits, batches[1].labels, progress)
        return Outcome(value, (logits.detach().argmax(dim=1) == batches[0].labels).sum())


def build(settings: Settings, context: StepContext) -> TwoStreams:
    """The step of a network of two branches."""
    return TwoStreams(Stream(sampler=sampler_of(settings.second)), settings.weight)
