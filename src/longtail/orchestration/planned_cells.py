"""How the runs of a method are planned: a cell for each imbalance, subset and seed, and what it needs."""

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from longtail.errors import UserError
from longtail.orchestration.frozen_features import (
    batch_size,
    classifier_modules,
    is_frozen,
    plan_head,
    plan_trunk,
)
from longtail.orchestration.preprocessing import pictures_of, seen_otherwise
from longtail.orchestration.published import PlannedCell
from longtail.orchestration.run import Run
from longtail.runs.steps import MODULES
from longtail.settings.classifier import Classifier, FeaturesSettings, StageTwoSettings
from longtail.settings.data import Pictures, PublishedData
from longtail.settings.finished_runs import FinishedRuns
from longtail.settings.frozen_features import SEED
from longtail.settings.method_blocks import Method
from longtail.settings.methods import module_name
from longtail.settings.params import Params
from longtail.settings.recipe import StageOneSettings
from longtail.settings.references import wrong_reference
from longtail.settings.split import Imbalance, SplitSettings

if TYPE_CHECKING:
    from longtail.orchestration.planner import Planner


class Place(NamedTuple):
    """Where runs belong: the split of their images, and how their names begin."""

    split: Run
    label: str


class Cells:
    """Plans the runs of settings; what several methods share is planned once.

    Args:
        planner: whose plan they go into.
        params: the settings.
        raw: the run of acquisition.

    Raises:
        UserError: if a recipe is to be built on runs that cannot be had.
    """

    def __init__(self, planner: "Planner", params: Params, raw: Run) -> None:
        self.planner, self.params, self.raw = planner, params, raw
        self._known: dict[tuple[object, ...], Run] = {}
        self._modules = {entry: classifier_modules(item.method) for entry, item in params.stage_two.items()}
        if misplaced := wrong_reference(params.stage_one, params.stage_two):
            raise UserError(f"{planner.plan.source}: {': '.join(misplaced)}")

    def of(self, method: str) -> Iterator[PlannedCell]:
        """The cells of a method at the imbalances at which a table shows it."""
        params = self.params
        row = params.methods[method]
        tables = [table for table in params.tables.values() if method in table.methods]
        for imbalance, subset in product(params.imbalance.profiles(), params.subset_seed):
            ratio = getattr(imbalance, "ratio", None)
            if not any(table.shows(ratio) for table in tables):
                continue
            label = f"{params.dataset}-{imbalance.label}" + f"-subset{subset}" * (subset != 0)
            place = Place(self._split(imbalance, subset), label)
            for seed in params.seeds:
                stage_one = self._stage_one(place, row.stage_one, seed)
                features, stage_two = self._classified(place, row.stage_one, row.stage_two, seed)
                runs = {run.step: run for run in (self.raw, place.split, stage_one, features, stage_two)}
                yield PlannedCell(method, imbalance.label, ratio, subset, seed, runs)

    def stage_one_alone(self, method: str, entry: str, imbalance: Imbalance) -> Iterator[PlannedCell]:
        """Runs of a recipe at an imbalance that no table shows, as cells without features or classifier.

        Args:
            method: what the cells are called.
            entry: of `stage_one`.
            imbalance: of the split.
        """
        for subset, seed in product(self.params.subset_seed, self.params.seeds):
            label = f"{self.params.dataset}-{imbalance.label}" + f"-subset{subset}" * (subset != 0)
            place = Place(self._split(imbalance, subset), label)
            runs = {run.step: run for run in (self.raw, place.split, self._stage_one(place, entry, seed))}
            yield PlannedCell(method, imbalance.label, None, subset, seed, runs)

    def _split(self, imbalance: Imbalance, subset: int) -> Run:
        params = self.params
        published = getattr(imbalance, "counts", None)
        counts = (f"longtail.data:counts/{published}.csv",) if published else ()
        return self.planner.add(
            "split",
            f"{params.dataset}-{imbalance.label}-{params.validation.source}-subset{subset}",
            SplitSettings(
                dataset=params.dataset,
                imbalance=imbalance,
                subset_seed=subset,
                validation=params.validation,
            ),
            (self.raw,),
            (MODULES["split"], *counts),
        )

    def _stage_one(self, place: Place, entry: str, seed: int) -> Run:
        """The run of a recipe: of its last phase, built on that of the phase before, and on what steps name.

        A recipe that ends with an earlier phase is the same run as that phase, under whichever name comes
        first.
        """
        key = (place.split.identity, entry, seed)
        if key in self._known:
            return self._known[key]
        split, params = place.split, self.params
        recipe = params.stage_one[entry]
        look = pictures_of(params, recipe)
        if is_frozen(recipe):
            self._known[key] = plan_trunk(self.planner, params, look, split, recipe, place.label)
            return self._known[key]
        inputs: tuple[Run, ...] = (*split.inputs, split)
        for phase in self.planner.phases(recipe):
            settings = StageOneSettings(
                dataset=params.dataset,
                images=look,
                recipe=phase.recipe,
                seed=seed,
                precision=params.precision,
            )
            further, modules = self._further(place, entry, phase.builds_on, seed)
            run = self.planner.add(
                "stage_one",
                f"{place.label}-{entry}{phase.suffix}-seed{seed}",
                settings,
                inputs,
                (*phase.modules, *(name for name in modules if name not in phase.modules)),
                further,
            )
            inputs = (*split.inputs, split, run)
        self._known[key] = run
        return run

    def _further(
        self, place: Place, entry: str, named: list[tuple[str, FinishedRuns]], seed: int
    ) -> tuple[dict[str, Run], dict[str, None]]:
        """What the step of a phase names: runs by key, and the modules of their networks.

        Raises:
            UserError: if one would be shown pictures otherwise than it has learnt to see them.
        """
        runs: dict[str, Run] = {}
        modules: dict[str, None] = {}
        for key, block in named:
            recipe = self.params.stage_one[block.stage_one]
            if differ := seen_otherwise(self.params, self.params.stage_one[entry], recipe):
                both = f"stage_one.{entry} and its {key}, {block.stage_one},"
                raise UserError(
                    f"{self.planner.plan.source}: {both} see pictures with another "
                    f"{', '.join(differ)} each, by their weights; set these in data.images, for both"
                )
            modules[module_name("networks", recipe.network.name)] = None
            for number, own in enumerate(block.of(seed, self.params.seeds)):
                runs[f"{key}.{number}.stage_one"] = self._stage_one(place, block.stage_one, own)
                if block.stage_two is not None:
                    _, classifier = self._classified(place, block.stage_one, block.stage_two, own)
                    runs[f"{key}.{number}.stage_two"] = classifier
        return runs, modules

    def _classified(self, place: Place, entry: str, classifier: str, seed: int) -> tuple[Run, Run]:
        """Features of a recipe's run as a classifier reads them, and the classifier over them."""
        settings = self.params.stage_two[classifier]
        key = (place.split.identity, entry, seed, settings.batchnorm, settings.reads_whole)
        if key not in self._known:
            self._known[key] = self._features(place, entry, settings, seed)
        features = self._known[key]
        inputs: tuple[Run, ...] = (features, place.split)
        if is_frozen(recipe := self.params.stage_one[entry]):
            head = plan_head(self.planner, place.split, features, recipe, seed, f"{place.label}-{entry}")
            inputs = (*inputs, head)
        return features, self.planner.add(
            "stage_two",
            f"{place.label}-{entry}-{classifier}-seed{seed}",
            StageTwoSettings(method=settings.method, seed=seed),
            inputs,
            self._modules[classifier],
        )

    def _features(self, place: Place, entry: str, classifier: Classifier, seed: int) -> Run:
        """The features that a classifier reads; its settings may say `reads: whole`, all training images.

        Such a classifier reads clean features only, so that no view is made for it.
        """
        params, split = self.params, place.split
        recipe, stage_one = params.stage_one[entry], self._stage_one(place, entry, seed)
        whole = classifier.reads_whole
        settings = FeaturesSettings(
            dataset=params.dataset,
            images=pictures_of(params, recipe),
            views=0 if whole else params.features.views,
            batchnorm=classifier.batchnorm,
            whole=whole,
            network=_architecture(recipe.network),
            augmentation=recipe.augmentation,
            batch_size=batch_size(recipe, classifier),
            seed=SEED if is_frozen(recipe) else seed,
            precision=params.precision,
        )
        modules = (
            MODULES["features"],
            *self.planner.decoding,
            module_name("networks", recipe.network.name),
        )
        label = stage_one.name.removesuffix(f"-{stage_one.identity[:8]}")
        return self.planner.add("features", label, settings, (*split.inputs, split, stage_one), modules)


def pictures(params: Params) -> Pictures | None:
    """How picture files are looked at; None for a published dataset."""
    return None if isinstance(params.data, PublishedData) else params.data.images


def _architecture(network: Method) -> Method:
    """A network without what it began with: features are made by the weights that stage one has left."""
    options = network.options
    if not getattr(options, "pretrained", None):
        return network
    none = type(options).model_fields["pretrained"].default
    return network.model_copy(update={"options": options.model_copy(update={"pretrained": none})})
