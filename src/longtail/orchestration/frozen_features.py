"""How a recipe of `freeze: features` is planned: a trunk and features to share, a head of its own."""

from typing import TYPE_CHECKING

from longtail.orchestration.run import Run
from longtail.runs.steps import MODULES
from longtail.settings.classifier import Classifier, StageTwoSettings
from longtail.settings.frozen_features import FROZEN, SEED, PublishedTrunk, head_of
from longtail.settings.method_blocks import Method, blocks_in
from longtail.settings.methods import module_name
from longtail.settings.params import Params
from longtail.settings.recipe import Recipe, StageOneSettings

if TYPE_CHECKING:
    from longtail.orchestration.planner import Planner
    from longtail.settings.data import Pictures


UNSEEN = 128  # the batch size of features that do not depend on it


def is_frozen(recipe: Recipe) -> bool:
    """Whether a recipe trains a head on features that are made once."""
    return recipe.freeze == FROZEN


def batch_size(recipe: Recipe, classifier: Classifier) -> int:
    """That of features; frozen ones are the same for all heads, unless batches move statistics."""
    return UNSEEN if is_frozen(recipe) and classifier.batchnorm == "eval" else recipe.batch_size


def classifier_modules(method: Method) -> tuple[str, ...]:
    """The modules that fit a method of stage two: the step's, its own, those of methods that it names."""
    named = (module_name(inner.kind, inner.name) for _, inner in blocks_in(method.options, Method))
    return MODULES["stage_two"], module_name("stage_two", method.name), *named


def plan_trunk(
    planner: "Planner", params: Params, images: "Pictures | None", split: Run, recipe: Recipe, label: str
) -> Run:
    """The run of stage one in which nothing is trained: the recipe's network with its published weights.

    Args:
        images: what is seen of picture files.
        label: the dataset and its imbalance, as in names of runs.
    """
    network = recipe.network
    architecture = getattr(network.options, "architecture", network.name)
    settings = StageOneSettings(
        dataset=params.dataset,
        images=images,
        recipe=PublishedTrunk(network=network),
        seed=SEED,
        precision=params.precision,
    )
    modules = (MODULES["stage_one"], *planner.decoding, module_name("networks", network.name))
    return planner.add(
        "stage_one", f"{label}-{architecture}-published", settings, (*split.inputs, split), modules
    )


def plan_head(planner: "Planner", split: Run, features: Run, recipe: Recipe, seed: int, label: str) -> Run:
    """The run of stage two that trains a recipe's head on features.

    Args:
        label: the recipe's name and what comes before it in a run's.
    """
    method = head_of(recipe)
    settings = StageTwoSettings(method=method, seed=seed)
    modules = classifier_modules(method)
    return planner.add("stage_two", f"{label}-head-seed{seed}", settings, (features, split), modules)
