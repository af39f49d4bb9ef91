"""The run on balanced data that a figure of gradients asks for: which recipe, and which data."""

from typing import NamedTuple

from longtail.errors import UserError, shown
from longtail.settings.method_blocks import Figure, Method
from longtail.settings.params import Params
from longtail.settings.recipe import Recipe
from longtail.settings.rich_classes import Rich
from longtail.settings.split import ExponentialImbalance, Imbalance, ParetoImbalance


class Reference(NamedTuple):
    """A recipe on balanced data.

    Attributes:
        method: what its cells are called, no entry of `methods`.
        name: the entry of `stage_one` that the recipe is, but for which classes count as data-rich.
    """

    method: str
    name: str
    recipe: Recipe
    imbalance: Imbalance


def reference(entry: str, figure: Figure, params: Params) -> Reference | None:
    """What a figure's `balanced` asks for; None where it asks for nothing.

    Classes of equal size are told apart by their labels: the first ones, which are the largest of an
    exponential profile, stand for the data-rich ones.

    Raises:
        UserError: if the method is unknown, or its recipe measures no gradients or has phases of its own.
    """
    wanted = getattr(figure.options, "balanced", None)
    if wanted is None:
        return None
    where = f"figures.{entry}.balanced.method"
    if wanted.method not in params.methods:
        known = ", ".join(params.methods)
        raise UserError(f"{where}: {shown(wanted.method)} is not an entry of methods: {known}")
    name = params.methods[wanted.method].stage_one
    recipe = params.stage_one[name]
    if not any(observer.name == "gradients" for observer in recipe.observers):
        raise UserError(
            f"{where}: the gradients of {wanted.method!r} are not measured; give stage_one.{name} "
            "`observers: [gradients]`"
        )
    if any(phase.classes != "all" for phase in recipe.phases):
        raise UserError(
            f"{where}: a phase of stage_one.{name} sees data-rich or data-poor classes alone; "
            "balanced data have none: name a method whose phases see all classes"
        )
    rich = Rich(share=wanted.rich_share)
    observers = [
        Method(name=observer.name, options=observer.options.model_copy(update={"rich": rich}))
        if observer.name == "gradients"
        else observer
        for observer in recipe.observers
    ]
    number = wanted.per_class
    imbalance: Imbalance = (
        ExponentialImbalance(ratio=1) if number is None else ParetoImbalance(largest=number, smallest=number)
    )
    return Reference(
        f"{wanted.method}, balanced", name, recipe.model_copy(update={"observers": observers}), imbalance
    )
