"""Planning: every run that the tables and figures of settings need."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from longtail.data import catalogue
from longtail.errors import UserError, shown
from longtail.orchestration.plan import Plan
from longtail.orchestration.planned_cells import Cells, pictures
from longtail.orchestration.planned_frame import plan_frame
from longtail.orchestration.planned_outputs import (
    TAKEN,
    context_of,
    draws_plan,
    plan_figure,
    plan_label_issues,
    plan_model,
    plan_report,
    plan_table,
    refuse_tables_of,
)
from longtail.orchestration.planned_overview import overview
from longtail.orchestration.planned_page import plan_page
from longtail.orchestration.planned_reference import reference
from longtail.orchestration.published import PlannedCell
from longtail.orchestration.run import Run, identity_of
from longtail.orchestration.sweeps import expanded
from longtail.orchestration.weights import with_weights
from longtail.runs.code_identity import adopted, code_digest
from longtail.runs.steps import MODULES, STEPS
from longtail.settings.acquire import AcquireSettings
from longtail.settings.base import Settings, Texts
from longtail.settings.data import PublishedData
from longtail.settings.datasets import DATASETS
from longtail.settings.finished_runs import FinishedRuns
from longtail.settings.method_blocks import Figure, Method, blocks_in
from longtail.settings.methods import module_name
from longtail.settings.names import STEM, STEM_WORDS
from longtail.settings.params import Params
from longtail.settings.recipe import Recipe

RAW = "data/raw"
LONGEST = 200  # characters of a run's name: those of files that are named after it are 255 at most
MOST = 200_000  # runs of stage two


# what runs on picture files are computed by too
DECODING = ("longtail.data.picture_loader", "longtail.data.decode")


class PlannedPhase(NamedTuple):
    """A phase of a recipe: the recipe that ends with it, what its runs' names have of it, its modules.

    And the finished runs that its step names, by key.
    """

    recipe: Recipe
    suffix: str
    modules: tuple[str, ...]
    builds_on: list[tuple[str, FinishedRuns]]


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
                assert phase.step is not None
                methods += [("steps", phase.step)]
                methods += [(method.kind, method) for _, method in blocks_in(phase.step.options, Method)]
                methods += [(method.kind, method) for _, method in blocks_in(phase.companions, Method)]
                modules = dict.fromkeys(module_name(kind, method.name) for kind, method in methods)
                suffix = "" if number == len(recipe.then) else f".{phase.name}"
                step = (MODULES["stage_one"], *self.decoding, *modules)
                named = list(blocks_in(phase.step.options, FinishedRuns))
                found.append(PlannedPhase(recipe.until(number), suffix, step, named))
            self.recipes[id(recipe)] = recipe, found
        return self.recipes[id(recipe)][1]

    def code(self, modules: tuple[str, ...]) -> str:
        """The digest of code, computed once for each set of modules."""
        if modules not in self.codes:
            self.codes[modules] = adopted(code_digest(modules), self.root)
        return self.codes[modules]

    def add(
        self,
        step: str,
        label: str,
        settings: Settings,
        inputs: tuple[Run, ...],
        modules: tuple[str, ...],
        further: Mapping[str, Run] | None = None,
    ) -> Run:
        """The run of these settings; the one that is there already where it is the same."""
        code = self.code(modules)
        needs = {**{run.step: run for run in inputs}, **(further or {})}
        identity = identity_of(step, settings, needs, code, self.texts)
        if identity in self.by_identity:
            return self.by_identity[identity]
        name = f"{label}-{identity[:8]}"
        return self._keep(
            Run(
                step, name, settings, inputs, modules, code, identity, self._folder(step, name), further or {}
            )
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
                f"the run {shown(run.name)} has a name of {len(run.name):,} characters; a folder's may have "
                f"{LONGEST}: give its entries, or the values of its sweep, shorter names"
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
    if name and not STEM.fullmatch(name):
        raise UserError(f"{source}: the name of a settings file is made of {STEM_WORDS}; rename it")
    for table in TAKEN.keys() & params.tables.keys():
        raise UserError(f"{source}: tables.{table}: {TAKEN[table]}; rename it")
    results = f"results/{name}" if name else "results"
    splits = f"{results}/splits" if name else "data/splits"
    result = Plan(name, results, splits, str(source), params.tables_in or results)
    planner = Planner(result, root, DECODING if pictures(params) else ())
    raw = planner.acquire(_acquired(params))
    parts = [_publish(planner, part, raw) for part in (params, *expanded(params))]
    for entry, figure in params.figures.items():
        if draws_plan(figure):
            shown = {**context_of(parts[0][0]), "overview": overview(result, parts)}
            result.figures[entry] = plan_figure(planner, entry, figure, params, {}, shown)
    if name and params.tables_in:
        refuse_tables_of(root / "params.yaml", result)
    if result.stage_two:
        result.frame["runs"] = plan_frame(planner, parts)
        result.page["index"] = plan_page(planner, parts)
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
    planned = Cells(planner, params, raw)
    cells = {method: list(planned.of(method)) for method in params.methods}
    context = context_of(params)
    for entry, table in params.tables.items():
        planner.plan.tables[entry] = plan_table(planner, entry, table, cells, context)
    for entry, figure in params.figures.items():
        if not draws_plan(figure):
            beside = _beside(planner, params, raw, entry, figure)
            planner.plan.figures[entry] = plan_figure(planner, entry, figure, params, cells, context, beside)
    for entry, model in params.models.items():
        planner.plan.models[entry] = plan_model(planner, entry, model, params, cells, context)
    if params.label_issues is not None:
        issues = plan_label_issues(planner, params.label_issues, params.dataset, cells)
        planner.plan.label_issues[issues.name] = issues
    return params, list(chain.from_iterable(cells.values()))


def _beside(
    planner: Planner, params: Params, raw: Run, entry: str, figure: Figure
) -> tuple[PlannedCell, ...]:
    """The runs on balanced data that a figure shows beside those of its table."""
    if (wanted := reference(entry, figure, params)) is None:
        return ()
    recipes = {**params.stage_one, wanted.name: wanted.recipe}
    cells = Cells(planner, params.model_copy(update={"stage_one": recipes}), raw)
    return tuple(cells.stage_one_alone(wanted.method, wanted.name, wanted.imbalance))
