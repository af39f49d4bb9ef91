"""The phases of a recipe, with everything filled in."""

from typing import TYPE_CHECKING

from longtail.settings.phase import PhaseSettings

if TYPE_CHECKING:
    from longtail.settings.recipe import Recipe

COMPUTES = True  # what a phase inherits decides what is trained


def phases(recipe: "Recipe") -> list[PhaseSettings]:
    """All phases of a recipe; the first is named train, and what is null in a later one is the recipe's."""
    shared = {"loss": recipe.loss, "transforms": recipe.transforms, "step": recipe.step}
    keys = ("sampler", "schedule", "learning_rate", "classes", "freeze", "frozen_batchnorm")
    own = {key: getattr(recipe, key) for key in keys}
    first = PhaseSettings(name="train", **own)
    return [
        phase.model_copy(update={key: value for key, value in shared.items() if getattr(phase, key) is None})
        for phase in (first, *recipe.then)
    ]
