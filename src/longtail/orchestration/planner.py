"""Planning: every run that the tables and figures of settings need."""

from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple

from longtail.data import catalogue
from longtail.errors import UserError, shown
from longtail.orchestration.frozen_features import classifier_modules, plan_head, plan_trunk
from longtail.orchestration.plan import Plan
from longtail.orchestration.planned_frame import plan_frame
from longtail.orchestration.planned_outputs import (
    TAKEN,
    plan_figure,
    plan_model,
    plan_report,
    plan_table,
    refuse_tables_of,
)
from longtail.orchestration.preprocessing import pictures_of
from longtail.orchestration.published import PlannedCell
from longtail.orchestration.run import Run, identity_of
from longtail.orchestration.sweeps import expanded
from longtail.orchestration.weights import with_weights
from longtail.runs.code_identity import adopted, code_digest
from longtail.runs.steps import MODULES, STEPS
from longtail.settings.acquire import AcquireSettings
from longtail.settings.base import Settings, Texts
from longtail.settings.classifier import Classifier, FeaturesSettings, StageTwoSettings
from longtail.settings.data import PublishedData
from longtail.settings.datasets import DATASETS
from longtail.settings.frozen_features import FROZEN, SEED
from longtail.settings.method_blocks import Method
from longtail.settings.methods import module_name
from longtail.settings.params import Params
from longtail.settings.recipe import Recipe, StageOneSettings
from longtail.settings.split import Imbalance, SplitSettings

RAW = "data/raw"
LONGEST = 200  # characters of a run's name: those of files that are named after it are 255 at most
MOST = 200_000  # runs of stage two
UNSEEN = 128  # the batch size of features that do not depend on it


# what runs on picture files are computed by too
DECODING = ("longtail.data.picture_loader", "longtail.data.decode")


class PlannedPhase(NamedTuple):
    """A phase of a recipe: the recipe that ends with it, what its runs' names have of it, its modules."""

    recipe: Recipe
    suffix: str
    modules: tuple[str, ...]


class Planner:
    """Builds runs so that equal ones are one, and different ones never share a name."""

    def __init__(self, plan: Plan, root: Path, decoding: tuple[str, ...] = ()) -> None:
        self.plan, self.root, self.decoding = plan, root, decoding
        self.texts = Texts(hashed=True)
        self.by_identity: dict[str, Run] = {}
        self.codes: dict[tuple[str, ...], str] = {}
        # by the recipe's place in memory, with the recipe, which keeps the place taken
        self.recipes: dict[int, tuple[Recipe, list[PlannedPhase]]] = {}

    def phases(self, recipe: Recipe) -> list[PlannedPhase]:
        """The phases of a recipe, made once, though they stand in many runs."""
        if id(recipe) not in self.recipes:
            found = []
            for number, phase in enumerate(recipe.phases):
                methods = [("networks", recipe.network), *(("observers", item) for item in recipe.observers)]
                methods += [("losses", phase.loss or recipe.loss), ("samplers", phase.sampler)]
                methods += [("transforms", transform) for transform in phase.transforms or []]
                methods += [("exemplars", phase.bank.choice)] if phase.bank else []
                methods += [("retention", phase.retention)] if phase.retention else []
                modules = dict.fromkeys(module_name(kind, method.name) for kind, method in methods)
                suffix = "" if number == len(recipe.then) else f".{phase.name}"
                step = (MODULES["stage_one"], *self.decoding, *modules)
                found.append(PlannedPhase(recipe.until(number), suffix, step))
            self.recipes[id(recipe)] = recipe, found
        return self.recipes[id(recipe)][1]

    def code(self, modules: tuple[str, ...]) -> str:
        """The digest of code, computed once for each set of modules."""
        if modules not in self.codes:
            self.codes[modules] = adopted(code_digest(modules), self.root)
        return self.codes[modules]

    def add(
        self, step: str, label: str, settings: Settings, inputs: tuple[Run, ...], modules: tuple[str, ...]
    ) -> Run:
        """The run of these settings; the one that is there already where it is the same."""
        code = self.code(modules)
        identity = identity_of(step, settings, inputs, code, self.texts)
        if identity in self.by_identity:
            return self.by_identity[identity]
        name = f"{label}-{identity[:8]}"
        return self._keep(
            Run(step, name, settings, inputs, modules, code, identity, self._folder(step, name))
        )

    def acquire(self, settings: AcquireSettings) -> Run:
        """A dataset is its published checksums, or what a check found of its files, wherever they lie."""
        if settings.files is None:
            identity = DATASETS[settings.dataset].identity
        else:
            identity = catalogue.identity(settings.dataset, settings.files, self.plan.source)
        if identity in self.by_identity:
            return self.by_identity[identity]
        folder = f"{RAW}/{settings.dataset}"
        modules = (MODULES["acquire"],)
        return self._keep(
            Run("acquire", settings.dataset, settings, (), modules, self.code(modules), identity, folder)
        )

    def _keep(self, run: Run) -> Run:
        if len(run.name) > LONGEST:
            raise UserError(
                f"the run {shown(run.name)} would have a name of {len(run.name):,} characters; {LONGEST} are "
                "the most of a folder's: give its entries, or the values of its sweep, shorter names"
            )
        named = getattr(self.plan, run.step)
        if run.name in named:
            raise UserError(f"two different runs would be named {run.name}: rename one of their entries")
        named[run.name] = self.by_identity[run.identity] = run
        return run

    def _folder(self, step: str, name: str) -> str:
        return f"{self.plan.splits}/{name}" if step == "split" else f"{self.plan.results}/{step}/{name}"


def settings_name(source: Path, root: Path = Path()) -> str:
    """Under which name a settings file publishes: "" for params.yaml, which publishes in results/ itself.

    A file of that name in another folder is another file.
    """
    return "" if (root / source).resolve() == (root / "params.yaml").resolve() else source.stem


def plan(params: Params, source: str | Path = "params.yaml", root: Path = Path()) -> Plan:
    """Plan every run that the tables and figures of the settings need.

    Args:
        params: the settings.
        source: the file they came from; it decides where results are published.
        root: the project's folder, which has workflow/adopted.csv.
    """
    name = settings_name(Path(source), root)
    if name in (*STEPS, "figures", "models", "splits", "sweeps", "report"):
        raise UserError(f"{source}: its runs would stand in results/{name}, which has another use; rename it")
    for table in TAKEN.keys() & params.tables.keys():
        raise UserError(f"{source}: tables.{table}: {TAKEN[table]}; rename it")
    results = f"results/{name}" if name else "results"
    splits = f"{results}/splits" if name else "data/splits"
    result = Plan(name, results, splits, str(source), params.tables_in or results)
    planner = Planner(result, root, () if isinstance(params.data, PublishedData) else DECODING)
    raw = planner.acquire(_acquired(params))
    parts = [_publish(planner, part, raw) for part in (params, *expanded(params))]
    if name and params.tables_in:
        refuse_tables_of(root / "params.yaml", result)
    if result.stage_two:
        result.frame["runs"] = plan_frame(planner, parts)
    if result.published():
        result.report["report"] = plan_report(planner, result)
    return result


def _acquired(params: Params) -> AcquireSettings:
    data = params.data
    if isinstance(data, PublishedData):
        return AcquireSettings(dataset=params.dataset, root=data.root or RAW, download=data.download)
    return AcquireSettings(dataset=params.dataset, files=data)


def _publish(planner: Planner, params: Params, raw: Run) -> tuple[Params, list[PlannedCell]]:
    """The tables and figures of settings, and the runs that they need; the settings, and these cells."""
    params = with_weights(params)
    counted = len(params.imbalance.profiles()) * len(params.subset_seed) * len(params.seeds)
    if (number := counted * len(params.methods)) > MOST:
        what = f"imbalances, seeds and methods make {number:,} runs of stage two"
        raise UserError(f"{planner.plan.source}: {what}; {MOST:,} are the most")
    known: dict[tuple[Any, ...], Run] = {}
    cells = {method: list(_cells(planner, params, raw, method, known)) for method in params.methods}
    context = {
        "dataset": params.dataset,
        "groups": params.groups,
        "validation": params.validation,
        "recipes": params.stage_one,
        "methods": params.methods,
    }
    for entry, table in params.tables.items():
        planner.plan.tables[entry] = plan_table(planner, entry, table, cells, context)
    for entry, figure in params.figures.items():
        planner.plan.figures[entry] = plan_figure(planner, entry, figure, params, cells, context)
    for entry, model in params.models.items():
        planner.plan.models[entry] = plan_model(planner, entry, model, params, cells, context)
    return params, list(chain.from_iterable(cells.values()))


def _cells(
    planner: Planner, params: Params, raw: Run, method: str, known: dict[tuple[Any, ...], Run]
) -> Iterator[PlannedCell]:
    """The cells of a method at the imbalances at which a table shows it.

    Args:
        known: what methods of these settings share, by its label; other settings may mean another run by it.
    """
    row = params.methods[method]
    tables = [table for table in params.tables.values() if method in table.methods]
    recipe, classifier = params.stage_one[row.stage_one], params.stage_two[row.stage_two]
    modules = classifier_modules(classifier.method)
    frozen = recipe.freeze == FROZEN
    for imbalance, subset in product(params.imbalance.profiles(), params.subset_seed):
        ratio = getattr(imbalance, "ratio", None)
        if not any(table.shows(ratio) for table in tables):
            continue
        split = _split(planner, params, raw, imbalance, subset)
        label = f"{params.dataset}-{imbalance.label}" + f"-subset{subset}" * (subset != 0)
        for seed in params.seeds:
            trained = f"{label}-{row.stage_one}-seed{seed}"
            key: tuple[Any, ...] = (trained,)
            if key not in known:
                known[key] = (
                    plan_trunk(planner, params, pictures_of(params, recipe), split, recipe, label)
                    if frozen
                    else _stage_one(planner, params, split, recipe, seed, f"{label}-{row.stage_one}")
                )
            stage_one = known[key]
            key = (trained, classifier.batchnorm, _reads_whole(classifier))
            if key not in known:
                known[key] = _features(planner, params, recipe, classifier, split, stage_one, seed)
            features = known[key]
            inputs: tuple[Run, ...] = (features, split)
            if frozen:
                head = plan_head(planner, split, features, recipe, seed, f"{label}-{row.stage_one}")
                inputs = (*inputs, head)
            stage_two = planner.add(
                "stage_two",
                f"{label}-{row.stage_one}-{row.stage_two}-seed{seed}",
                StageTwoSettings(method=classifier.method, seed=seed),
                inputs,
                modules,
            )
            runs = {run.step: run for run in (raw, split, stage_one, features, stage_two)}
            yield PlannedCell(method, imbalance.label, ratio, subset, seed, runs)


def _split(planner: Planner, params: Params, raw: Run, imbalance: Imbalance, subset: int) -> Run:
    published = getattr(imbalance, "counts", None)
    counts = (f"longtail.data:counts/{published}.csv",) if published else ()
    return planner.add(
        "split",
        f"{params.dataset}-{imbalance.label}-{params.validation.source}-subset{subset}",
        SplitSettings(
            dataset=params.dataset,
            imbalance=imbalance,
            subset_seed=subset,
            validation=params.validation,
        ),
        (raw,),
        (MODULES["split"], *counts),
    )


def _stage_one(planner: Planner, params: Params, split: Run, recipe: Recipe, seed: int, label: str) -> Run:
    """The run of a recipe: of its last phase, built on that of the phase before.

    A recipe that ends with an earlier phase is the same run as that phase, under whichever name comes first.

    Args:
        label: the recipe's name and what comes before it in a run's.
    """
    inputs: tuple[Run, ...] = (*split.inputs, split)
    for phase in planner.phases(recipe):
        settings = StageOneSettings(
            dataset=params.dataset,
            images=pictures_of(params, recipe),
            recipe=phase.recipe,
            seed=seed,
            precision=params.precision,
        )
        name = f"{label}{phase.suffix}-seed{seed}"
        run = planner.add("stage_one", name, settings, inputs, phase.modules)
        inputs = (*split.inputs, split, run)
    return run


def _reads_whole(classifier: Classifier) -> bool:
    return getattr(classifier.method.options, "reads", "") == "whole"


def _features(
    planner: Planner,
    params: Params,
    recipe: Recipe,
    classifier: Classifier,
    split: Run,
    stage_one: Run,
    seed: int,
) -> Run:
    """The features that a classifier reads: its settings may say `reads`, "whole" for all training images.

    Such a classifier reads clean features only, so that no view is made for it.
    """
    whole = _reads_whole(classifier)
    frozen = recipe.freeze == FROZEN
    label = stage_one.name.removesuffix(f"-{stage_one.identity[:8]}")
    settings = FeaturesSettings(
        dataset=params.dataset,
        images=pictures_of(params, recipe),
        views=0 if whole else params.features.views,
        batchnorm=classifier.batchnorm,
        whole=whole,
        network=_architecture(recipe.network),
        augmentation=recipe.augmentation,
        # frozen features know nothing of how a head is trained; batch normalisation alone sees batches
        batch_size=UNSEEN if frozen and classifier.batchnorm == "eval" else recipe.batch_size,
        seed=SEED if frozen else seed,
        precision=params.precision,
    )
    modules = (
        MODULES["features"],
        *planner.decoding,
        module_name("networks", recipe.network.name),
    )
    return planner.add("features", label, settings, (*split.inputs, split, stage_one), modules)


def _architecture(network: Method) -> Method:
    """A network without what it began with: features are made by the weights that stage one has left."""
    options = network.options
    if not getattr(options, "pretrained", None):
        return network
    none = type(options).model_fields["pretrained"].default
    return network.model_copy(update={"options": options.model_copy(update={"pretrained": none})})
