"""Which finished runs the steps of recipes name, and whether they can be had."""

from collections.abc import Iterable, Iterator, Mapping

from longtail.errors import shown
from longtail.settings.classifier import Classifier
from longtail.settings.finished_runs import FinishedRuns
from longtail.settings.frozen_features import FROZEN
from longtail.settings.method_blocks import blocks_in
from longtail.settings.recipe import Recipe

LEARNS = "learns from validation images, which could not judge what is built on it"


def references(recipe: Recipe) -> Iterator[tuple[str, FinishedRuns]]:
    """What the steps of a recipe name, with the key of each below the recipe, e.g. `step.teacher`."""
    places = [("step", recipe.step), *((f"then.{phase.name}.step", phase.step) for phase in recipe.then)]
    for place, step in places:
        if step is not None:
            for key, block in blocks_in(step.options, FinishedRuns):
                yield f"{place}.{key}", block


def with_references(names: Iterable[str], recipes: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Recipes of these names and those that they need, as far as they are there."""
    found: dict[str, Recipe] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in recipes and name not in found:
            found[name] = recipes[name]
            waiting += [block.stage_one for _, block in references(recipes[name])]
    return found


def wrong_reference(
    recipes: Mapping[str, Recipe], classifiers: Mapping[str, Classifier]
) -> tuple[str, str] | None:
    """The key of a reference that means nothing, and what is wrong with it; None where all are right."""
    for name, recipe in recipes.items():
        for key, block in references(recipe):
            where = f"stage_one.{name}.{key}"
            if block.stage_one not in recipes:
                there = f"is not an entry of stage_one: {', '.join(recipes)}"
                return f"{where}.stage_one", f"{shown(block.stage_one)} {there}"
            if recipes[block.stage_one].learns_from_validation:
                return f"{where}.stage_one", f"{shown(block.stage_one)} {LEARNS}; name another recipe"
            if block.stage_two is None and recipes[block.stage_one].freeze == FROZEN:
                trained = "is trained on frozen features, by stage two"
                return (
                    where,
                    f"the head of {shown(block.stage_one)} {trained}; name stage_two too, e.g. joint",
                )
            if block.stage_two is None:
                continue
            if block.stage_two not in classifiers:
                there = f"is not an entry of stage_two: {', '.join(classifiers)}"
                return f"{where}.stage_two", f"{shown(block.stage_two)} {there}"
            if classifiers[block.stage_two].reads_whole:
                return f"{where}.stage_two", f"{shown(block.stage_two)} {LEARNS}; name another classifier"
            if classifiers[block.stage_two].batchnorm == "train":
                moved = "moves batch normalisation and keeps no copy of the network (batchnorm: train)"
                return f"{where}.stage_two", f"{shown(block.stage_two)} {moved}; name another classifier"
    for name in recipes:
        if circle := _circle(name, recipes, ()):
            chain = " needs ".join(circle)
            return f"stage_one.{name}", f"{chain}: no run can be built on itself; name another recipe"
    return None


def _circle(name: str, recipes: Mapping[str, Recipe], above: tuple[str, ...]) -> tuple[str, ...]:
    """The names of recipes that need one another in a circle, beginning and ending alike; () without one."""
    if name in above:
        return (*above[above.index(name) :], name)
    for _, block in references(recipes[name]):
        if found := _circle(block.stage_one, recipes, (*above, name)):
            return found
    return ()
