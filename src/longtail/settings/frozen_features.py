"""Recipes of `freeze: features`: a trunk as it was published, its features made once, a head trained on them.

Such a recipe is three runs in place of one of stage one and one of features:

    the published trunk (stage one, nothing is trained) -> features -> the head (stage two: linear_probe)

Trunk and features know nothing of the recipe but its network and its augmentation, so that recipes that
differ in loss, sampler, schedule or seed share them. Classifiers of stage two then build on the head as they
do on that of any stage one.
"""

from typing import TYPE_CHECKING

from longtail.settings.base import Settings
from longtail.settings.method_blocks import Method, Network
from longtail.settings.methods import settings_of

if TYPE_CHECKING:
    from longtail.settings.recipe import Recipe

FROZEN = "features"  # of the key `freeze`
HEAD = "linear_probe"  # the method of stage two that trains the head
SEED = 0  # of trunk and views, which all seeds of a head share


class PublishedTrunk(Settings):
    """What stage one reads where nothing is trained: a network that keeps its published weights."""

    network: Network
    # As of a recipe: how many devices share a training, and the parts of its batches.
    devices: int = 1
    shards: int = 1

    def kept(self, hashed: bool = False) -> dict[str, object]:
        """The network alone."""
        return {"network": self.network}


def refusal(recipe: "Recipe") -> str | None:
    """What a recipe says that a head on frozen features cannot have; None where there is nothing such."""
    if any(phase.freeze == FROZEN for phase in recipe.then):
        return "freeze: features is for a whole recipe; a phase of `then` may take freeze: trunk"
    if recipe.freeze != FROZEN:
        return None
    network = recipe.network.options
    wrong = {
        "needs published weights: give the network `pretrained`": not getattr(network, "pretrained", None),
        "trains a linear head; leave network.head out": getattr(network, "head", "linear") != "linear",
        "leaves no adapter to train; take freeze: all_but_adapters": bool(getattr(network, "adapters", None)),
        "is all there is of a recipe; leave `then` out": bool(recipe.then),
        "sees all classes; leave `classes` out": recipe.classes != "all",
        "has no batch statistics to take; leave frozen_batchnorm out": recipe.frozen_batchnorm != "eval",
        f"takes no step {recipe.step.name}": recipe.step.name != "supervised",
        "mixes no images; leave `transforms` out": bool(recipe.transforms),
        "averages no weights; leave `weight_average` out": recipe.weight_average is not None,
        "has no observers": bool(recipe.observers),
        "needs a schedule in epochs": recipe.schedule.epochs is None,
        "trains by plain momentum; leave optimiser.nesterov out": recipe.optimiser.nesterov,
        "has no trunk to train; leave optimiser.trunk_rate out": recipe.optimiser.trunk_rate != 1,
        "trains in one process; leave shards and devices out": (recipe.shards, recipe.devices) != (1, 1),
    }
    said = next((words for words, is_so in wrong.items() if is_so), None)
    return said and f"freeze: features {said}"


def head_of(recipe: "Recipe") -> Method:
    """The method of stage two that trains the head of a recipe of `freeze: features`, as the recipe says."""
    options = settings_of("stage_two", HEAD).model_validate(
        {
            "loss": recipe.loss,
            "sampler": recipe.sampler,
            "epochs": recipe.schedule.epochs,
            "progress": recipe.progress,
            "batch_size": recipe.batch_size,
            "learning_rate": recipe.learning_rate.resolved(),
            "momentum": recipe.optimiser.momentum,
            "weight_decay": recipe.optimiser.weight_decay,
        }
    )
    return Method(kind="stage_two", name=HEAD, options=options)
