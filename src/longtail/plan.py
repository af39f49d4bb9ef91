"""The plan: every run that the tables and figures need, with its settings and what it is built on.

    acquire -> split -> stage_one -> features -> stage_two -> tables, figures -> report

The Snakefile and every command are thin on top of it. `write` puts each wanted run's resolved settings
into `.longtail/plan`, from where its command reads them: edits of params.yaml made while jobs wait
reach no job.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import product
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any, NamedTuple

from longtail import members
from longtail.datasets import DATASETS
from longtail.digests import remembered_digest
from longtail.errors import UserError
from longtail.identity import PACKAGE, adopted, canonical, code_digest, composed, digest, hashed
from longtail.params import (
    AcquireSettings,
    Classifier,
    FeaturesSettings,
    Figure,
    Imbalance,
    Method,
    Model,
    Params,
    Recipe,
    SplitSettings,
    StageOneSettings,
    StageTwoSettings,
    Table,
    table_names,
)
from longtail.settings import Settings, Texts, plain
from longtail.sources import Pictures, PublishedData
from longtail.store import PLANNED, write_json, write_text
from longtail.sweeps import expanded
from longtail.tables import check
from longtail.weight_file import WeightFile

PUBLISHED = ("tables", "figures", "models", "report")
STEPS = ("acquire", "split", "stage_one", "features", "stage_two")
RAW = "data/raw"
DECODERS = 8  # cores a device that decode pictures; one decodes about 900 a second (docs/scale.md)
MEMORY_MB, PICTURES_MB = 4000, 16_000  # that a run asks a cluster for
DECODING = ("longtail.picture_files", "longtail.pictures")  # what runs on picture files are computed by too


@dataclass(frozen=True, eq=False)
class Run:
    """One run of one step: what it is (identity), what it reads, where it stands."""

    step: str
    name: str
    settings: Settings
    inputs: "tuple[Run, ...]"
    modules: tuple[str, ...]
    code: str
    identity: str
    folder: str

    @property
    def record(self) -> str:
        """The file that is written last."""
        return f"{self.folder}/run.json"

    @property
    def devices(self) -> int:
        """On how many devices it is computed, at most."""
        settings = self.settings
        return settings.recipe.devices if isinstance(settings, StageOneSettings) else 1

    @property
    def cpus(self) -> int:
        """Cores that keep its devices busy: pictures are decoded on them."""
        decodes = getattr(self.settings, "images", None) is not None
        return self.devices * (DECODERS if decodes else 1)

    @property
    def memory(self) -> int:
        """Main memory that it asks a cluster for, in MB; a second attempt asks for twice as much."""
        settings = [self.settings, *(run.settings for run in self.inputs)]
        large = any(getattr(block, "images", None) is not None for block in settings)
        return self.devices * (PICTURES_MB if large else MEMORY_MB)

    def planned(self, texts: Texts) -> str:
        """What the run's command is told, as JSON."""
        known = {
            "step": self.step,
            "run": self.name,
            "identity": self.identity,
            "code": self.code,
            "modules": self.modules,
            "folder": self.folder,
            "inputs": {run.step: reference(run) for run in self.inputs},
        }
        return composed(
            {"settings": texts.of(self.settings)} | {key: json.dumps(known[key]) for key in known}
        )


def identity_of(step: str, settings: Settings, inputs: Iterable[Run], code: str, texts: Texts) -> str:
    """SHA-256 of what a run reads, of what it is built on, and of the code that computes it."""
    known = {
        "step": quoted(step),
        "settings": texts.of(settings),
        "inputs": composed({run.step: quoted(run.identity) for run in inputs}),
        "code": quoted(code),
    }
    return hashed(composed(known))


def reference(run: Run) -> dict[str, str]:
    """A run as others name it."""
    return {"run": run.name, "identity": run.identity, "folder": run.folder}


@dataclass(frozen=True)
class Cell:
    """One method at one imbalance with one subset and one seed, and the runs that make it."""

    method: str
    imbalance: str
    ratio: float | None
    subset_seed: int
    seed: int
    runs: dict[str, Run]

    def planned(self, reads: Iterable[str]) -> dict[str, Any]:
        """The cell as JSON data, its runs by their names."""
        return {
            "method": self.method,
            "imbalance": self.imbalance,
            "ratio": self.ratio,
            "subset_seed": self.subset_seed,
            "seed": self.seed,
            "runs": {step: self.runs[step].name for step in reads},
        }

    def hashed(self, reads: Iterable[str]) -> str:
        """The text of it that is hashed: its runs by their identities, keys in alphabetical order."""
        runs = ",".join(f'"{step}":"{self.runs[step].identity}"' for step in sorted(reads))
        return f'{{{self._place},"runs":{{{runs}}},"seed":{self.seed},"subset_seed":{self.subset_seed}}}'

    @cached_property
    def _place(self) -> str:
        known = {"imbalance": self.imbalance, "method": self.method, "ratio": self.ratio}
        return canonical(known)[1:-1]


@dataclass(frozen=True)
class Published:
    """A table, a figure, a model or the report: files of stable names, with their identity beside them."""

    kind: str
    name: str
    folder: str
    settings: Settings | dict[str, Any]
    modules: tuple[str, ...]
    code: str
    cells: tuple[Cell, ...]
    reads: tuple[str, ...]
    context: dict[str, Any]
    suffixes: tuple[str, ...]
    built_on: "tuple[Published, ...]" = ()
    names: tuple[str, ...] = ()  # of its files, where they are not its own name and a suffix

    @property
    def outputs(self) -> list[str]:
        """The files that are published, without the record."""
        if self.names:
            return [f"{self.folder}/{name}" for name in self.names]
        return [f"{self.folder}/{self.name}.{suffix}" for suffix in self.suffixes]

    @property
    def record(self) -> str:
        """The file that says of which runs the outputs are."""
        if self.names:
            return f"{self.folder}/{Path(self.names[0]).stem}.identity.json"
        return f"{self.folder}/{self.name}.identity.json"

    @property
    def benchmark(self) -> str:
        """What Snakemake measured of the job; it counts the file's time among those of the outputs."""
        return f"logs/{self.kind}/{self.name}.benchmark.tsv"

    @property
    def caption(self) -> str:
        """What to see in a figure, for the report: workflow/report/KIND.rst, empty for a kind without one."""
        file = Path(f"workflow/report/{plain(self.settings).get('name')}.rst")
        return file.read_text("utf-8") if file.is_file() else ""

    @cached_property
    def runs(self) -> dict[str, dict[str, Run]]:
        """Every run that is read, by step and name."""
        return {step: {cell.runs[step].name: cell.runs[step] for cell in self.cells} for step in self.reads}

    @cached_property
    def inputs(self) -> list[str]:
        """What Snakemake has to have made before, and what the command is told: new with every identity."""
        told = str(PLANNED / self.kind / f"{self.name}-{self.identity[:16]}.json")
        records = (run.record for runs in self.runs.values() for run in runs.values())
        return [told, *records, *(item.outputs[0] for item in self.built_on)]

    @property
    def planned(self) -> dict[str, Any]:
        """What the command is told, beside the identity."""
        return {
            **self._known(),
            "cells": [cell.planned(self.reads) for cell in self.cells],
            "runs": {
                step: {name: reference(run) for name, run in runs.items()} for step, runs in self.runs.items()
            },
        }

    @cached_property
    def identity(self) -> str:
        """Hash of everything that the outputs depend on, and of where they are published."""
        parts = {key: canonical(value) for key, value in self._known(hashed=True).items()}
        cells = ",".join(cell.hashed(self.reads) for cell in self.cells)
        return hashed(composed({**parts, "cells": f"[{cells}]"}))

    def _known(self, hashed: bool = False) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "folder": self.folder,
            "settings": plain(self.settings, hashed),
            "modules": list(self.modules),
            "code": self.code,
            "reads": list(self.reads),
            "context": plain(self.context, hashed),
            "outputs": self.outputs,
            "built_on": [
                {"record": item.record, "identity": item.identity, "outputs": item.outputs}
                for item in self.built_on
            ],
        }


@dataclass
class Plan:
    """All runs by step and name, and what is published of them."""

    name: str  # "" for params.yaml; the stem of any other settings file
    results: str
    splits: str
    source: str
    tables_in: str  # the folder of tables: results, or that of a settings file that asks for no other
    acquire: dict[str, Run] = field(default_factory=dict)
    split: dict[str, Run] = field(default_factory=dict)
    stage_one: dict[str, Run] = field(default_factory=dict)
    features: dict[str, Run] = field(default_factory=dict)
    stage_two: dict[str, Run] = field(default_factory=dict)
    tables: dict[str, Published] = field(default_factory=dict)
    figures: dict[str, Published] = field(default_factory=dict)
    models: dict[str, Published] = field(default_factory=dict)
    report: dict[str, Published] = field(default_factory=dict)

    def runs(self, step: str) -> dict[str, Run]:
        """The runs of a step by name."""
        return dict(getattr(self, step))

    def everything(self) -> Iterator[Run]:
        """Every run, what is built on comes first."""
        for step in STEPS:
            yield from self.runs(step).values()

    def published(self) -> list[Published]:
        """Tables, then figures, then models, then the report."""
        return [item for kind in PUBLISHED for item in getattr(self, kind).values()]

    @property
    def files(self) -> list[str]:
        """The first file of everything published: the workflow's targets."""
        return [item.outputs[0] for item in self.published()]

    @cached_property
    def digest(self) -> str:
        """Names the list of runs that a layer's check goes through."""
        return digest(self._listing())[:16]

    def _listing(self) -> dict[str, Any]:
        runs = {step: [reference(run) for run in self.runs(step).values()] for step in STEPS}
        published: dict[str, Any] = {kind: [] for kind in PUBLISHED}
        for item in self.published():
            published[item.kind].append(
                {"record": item.record, "identity": item.identity, "outputs": item.outputs}
            )
        return {**runs, **published}

    def write(self, folder: Path = PLANNED) -> None:
        """Write what every command will be told; what is there already is the same by its name."""
        texts = Texts(hashed=False)
        for step in STEPS:
            there = _names(folder / step)
            for run in self.runs(step).values():
                name = f"{run.name}.json"
                if name not in there or _says_more(run):
                    write_text(folder / step / name, run.planned(texts))
        for item in self.published():
            told = folder / item.kind / f"{item.name}-{item.identity[:16]}.json"
            if not told.exists():
                write_json(told, {**item.planned, "identity": item.identity}, indent=None)
        layers = folder / "layers" / f"{self.digest}.json"
        if not layers.exists():
            write_json(layers, self._listing(), indent=None)


def _says_more(run: Run) -> bool:
    """Whether a run's command is told something that its name does not say.

    A name says what a dataset is, or weights to begin with, but not where the files lie; and not on how many
    devices a run is trained.
    """
    settings = run.settings
    sharded = isinstance(settings, StageOneSettings) and settings.recipe.shards > 1
    return run.step == "acquire" or sharded or _weight_file(settings) is not None


def _weight_file(settings: Settings) -> WeightFile | None:
    """The file of weights that a run of stage one begins with."""
    if not isinstance(settings, StageOneSettings):
        return None
    found = getattr(settings.recipe.network.options, "pretrained", None)
    return found if isinstance(found, WeightFile) else None


def _names(folder: Path) -> set[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return set(os.listdir(folder))


class _Phase(NamedTuple):
    """A phase of a recipe: the recipe that ends with it, what its runs' names have of it, its modules."""

    recipe: Recipe
    suffix: str
    modules: tuple[str, ...]


class _Planner:
    """Builds runs so that equal ones are one, and different ones never share a name."""

    def __init__(self, plan: Plan, root: Path, decoding: tuple[str, ...] = ()) -> None:
        self.plan, self.root, self.decoding = plan, root, decoding
        self.texts = Texts(hashed=True)
        self.by_identity: dict[str, Run] = {}
        self.codes: dict[tuple[str, ...], str] = {}
        # by the recipe's place in memory, with the recipe, which keeps the place taken
        self.recipes: dict[int, tuple[Recipe, list[_Phase]]] = {}

    def with_weights(self, params: Params) -> Params:
        """The settings, with the digest of every file of weights that the runs of a table begin with.

        Raises:
            UserError: if one is not there, or not what the settings say of it.
        """
        shown = {method for table in params.tables.values() for method in table.methods}
        found = {
            name: self._with_weights(f"stage_one.{name}.network.pretrained", params.stage_one[name])
            for name in {params.methods[method].stage_one for method in shown}
        }
        if all(recipe is params.stage_one[name] for name, recipe in found.items()):
            return params
        recipes = {name: found.get(name, recipe) for name, recipe in params.stage_one.items()}
        return params.model_copy(update={"stage_one": recipes})

    def _with_weights(self, key: str, recipe: Recipe) -> Recipe:
        options = recipe.network.options
        source = getattr(options, "pretrained", None)
        if not isinstance(source, WeightFile):
            return recipe
        file = Path(source.file).expanduser()
        try:
            digest = remembered_digest(file)
        except OSError as error:
            raise UserError(f"{key}: {file}: {error.strerror}; it should name a file of weights") from None
        if source.sha256 not in (None, digest):
            raise UserError(f"{key}: {file}: has SHA-256 {digest}, and sha256 there says {source.sha256}")
        known = options.model_copy(update={"pretrained": source.model_copy(update={"sha256": digest})})
        network = recipe.network.model_copy(update={"options": known})
        return recipe.model_copy(update={"network": network})

    def phases(self, recipe: Recipe) -> list[_Phase]:
        """The phases of a recipe, made once, though they stand in many runs."""
        if id(recipe) not in self.recipes:
            found = []
            for number, phase in enumerate(recipe.phases):
                methods = [("networks", recipe.network), *(("observers", item) for item in recipe.observers)]
                methods += [("losses", phase.loss or recipe.loss), ("samplers", phase.sampler)]
                methods += [("transforms", transform) for transform in phase.transforms or []]
                methods += [("exemplars", phase.bank.choice)] if phase.bank else []
                methods += [("retention", phase.retention)] if phase.retention else []
                modules = dict.fromkeys(f"longtail.{kind}.{method.name}" for kind, method in methods)
                suffix = "" if number == len(recipe.then) else f".{phase.name}"
                step = ("longtail.stage_one", *self.decoding, *modules)
                found.append(_Phase(recipe.until(number), suffix, step))
            self.recipes[id(recipe)] = recipe, found
        return self.recipes[id(recipe)][1]

    def code(self, modules: tuple[str, ...]) -> str:
        if modules not in self.codes:
            self.codes[modules] = adopted(code_digest(modules), self.root)
        return self.codes[modules]

    def add(
        self, step: str, label: str, settings: Settings, inputs: tuple[Run, ...], modules: tuple[str, ...]
    ) -> Run:
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
            identity = members.identity(settings.dataset, settings.files)
        if identity in self.by_identity:
            return self.by_identity[identity]
        folder = f"{RAW}/{settings.dataset}"
        modules = ("longtail.acquire",)
        return self._keep(
            Run("acquire", settings.dataset, settings, (), modules, self.code(modules), identity, folder)
        )

    def _keep(self, run: Run) -> Run:
        named = getattr(self.plan, run.step)
        if run.name in named:
            raise UserError(f"two different runs would be named {run.name}: rename one of their entries")
        named[run.name] = self.by_identity[run.identity] = run
        return run

    def _folder(self, step: str, name: str) -> str:
        return f"{self.plan.splits}/{name}" if step == "split" else f"{self.plan.results}/{step}/{name}"


def settings_name(source: Path) -> str:
    """Under which name a settings file publishes: "" for params.yaml, which publishes in results/ itself."""
    return "" if source.name == "params.yaml" else source.stem


def plan(params: Params, source: str | Path = "params.yaml", root: Path = Path()) -> Plan:
    """Plan every run that the tables and figures of the settings need.

    Args:
        params: the settings.
        source: the file they came from; it decides where results are published.
        root: the project's folder, which has workflow/adopted.csv.
    """
    name = settings_name(Path(source))
    if name in (*STEPS, "figures", "models", "splits", "sweeps", "report"):
        raise UserError(f"{source}: its runs would stand in results/{name}, which has another use; rename it")
    if "report" in params.tables:
        raise UserError(f"{source}: tables.report: results/report.html is the workflow's report; rename it")
    results = f"results/{name}" if name else "results"
    splits = f"{results}/splits" if name else "data/splits"
    result = Plan(name, results, splits, str(source), params.tables_in or results)
    planner = _Planner(result, root, DECODING if _pictures(params) else ())
    raw = planner.acquire(_acquired(params))
    for part in (params, *expanded(params)):
        _publish(planner, part, raw)
    if name and params.tables_in:
        _refuse_tables_of(root / "params.yaml", result)
    if result.published():
        result.report["report"] = _report(planner, result)
    return result


def _refuse_tables_of(main: Path, result: Plan) -> None:
    """Refuse a table of another settings file that would stand in the place of one of params.yaml."""
    taken = table_names(main) & set(result.tables) if main.is_file() else set()
    if taken:
        raise UserError(
            f"{result.source}: tables_in: {result.tables_in}: {', '.join(sorted(taken))} is a table of "
            f"{main.name} too; rename it, or leave tables_in out to publish in {result.results}/"
        )


def _acquired(params: Params) -> AcquireSettings:
    data = params.data
    if isinstance(data, PublishedData):
        return AcquireSettings(dataset=params.dataset, root=data.root or RAW, download=data.download)
    return AcquireSettings(dataset=params.dataset, files=data)


def _pictures(params: Params) -> Pictures | None:
    return None if isinstance(params.data, PublishedData) else params.data.images


def _publish(planner: _Planner, params: Params, raw: Run) -> None:
    """The tables and figures of settings, and the runs that they need."""
    params = planner.with_weights(params)
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
        planner.plan.tables[entry] = _table(planner, entry, table, cells, context)
    for entry, figure in params.figures.items():
        planner.plan.figures[entry] = _figure(planner, entry, figure, params, cells, context)
    for entry, model in params.models.items():
        planner.plan.models[entry] = _model(planner, entry, model, params, cells, context)


def _cells(
    planner: _Planner, params: Params, raw: Run, method: str, known: dict[tuple[Any, ...], Run]
) -> Iterator[Cell]:
    """The cells of a method at the imbalances at which a table shows it.

    Args:
        known: what methods of these settings share, by its label; other settings may mean another run by it.
    """
    row = params.methods[method]
    tables = [table for table in params.tables.values() if method in table.methods]
    recipe, classifier = params.stage_one[row.stage_one], params.stage_two[row.stage_two]
    modules = ("longtail.stage_two", f"longtail.stage_two.{classifier.method.name}")
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
                known[key] = _stage_one(planner, params, split, recipe, seed, f"{label}-{row.stage_one}")
            stage_one = known[key]
            key = (trained, classifier.batchnorm, _reads_whole(classifier))
            if key not in known:
                known[key] = _features(planner, params, recipe, classifier, split, stage_one, seed)
            features = known[key]
            stage_two = planner.add(
                "stage_two",
                f"{label}-{row.stage_one}-{row.stage_two}-seed{seed}",
                StageTwoSettings(method=classifier.method, seed=seed),
                (features, split),
                modules,
            )
            runs = {run.step: run for run in (raw, split, stage_one, features, stage_two)}
            yield Cell(method, imbalance.label, ratio, subset, seed, runs)


def _split(planner: _Planner, params: Params, raw: Run, imbalance: Imbalance, subset: int) -> Run:
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
        ("longtail.split",),
    )


def _stage_one(planner: _Planner, params: Params, split: Run, recipe: Recipe, seed: int, label: str) -> Run:
    """The run of a recipe: of its last phase, built on that of the phase before.

    A recipe that ends with an earlier phase is the same run as that phase, under whichever name comes first.

    Args:
        label: the recipe's name and what comes before it in a run's.
    """
    inputs: tuple[Run, ...] = (*split.inputs, split)
    for phase in planner.phases(recipe):
        settings = StageOneSettings(
            dataset=params.dataset,
            images=_pictures(params),
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
    planner: _Planner,
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
    label = stage_one.name.removesuffix(f"-{stage_one.identity[:8]}")
    settings = FeaturesSettings(
        dataset=params.dataset,
        images=_pictures(params),
        views=0 if whole else params.features.views,
        batchnorm=classifier.batchnorm,
        whole=whole,
        network=_architecture(recipe.network),
        augmentation=recipe.augmentation,
        batch_size=recipe.batch_size,
        seed=seed,
        precision=params.precision,
    )
    modules = ("longtail.features", *planner.decoding, f"longtail.networks.{recipe.network.name}")
    return planner.add("features", label, settings, (*split.inputs, split, stage_one), modules)


def _architecture(network: Method) -> Method:
    """A network without what it began with: features are made by the weights that stage one has left."""
    options = network.options
    if not getattr(options, "pretrained", None):
        return network
    none = type(options).model_fields["pretrained"].default
    return network.model_copy(update={"options": options.model_copy(update={"pretrained": none})})


def _table(
    planner: _Planner, entry: str, table: Table, cells: dict[str, list[Cell]], context: dict[str, Any]
) -> Published:
    check(entry, table)
    modules = ("longtail.tables",)
    return Published(
        kind="tables",
        name=entry,
        folder=planner.plan.tables_in,
        settings=table,
        modules=modules,
        code=planner.code(modules),
        cells=_shown(table, cells),
        reads=("split", "stage_one", "features", "stage_two"),
        context={
            **context,
            "data": _files_digest([*_printed(table), *sorted((PACKAGE / "templates").glob("*"))]),
        },
        suffixes=("csv", "md", "tex", "html"),
    )


def _shown(table: Table, cells: dict[str, list[Cell]]) -> tuple[Cell, ...]:
    return tuple(cell for method in table.methods for cell in cells[method] if table.shows(cell.ratio))


def _printed(table: Table) -> list[Path]:
    return [PACKAGE / "printed" / f"{table.printed}.csv"] if table.printed else []


def _files_digest(files: Iterable[Path]) -> str:
    result = sha256()
    for file in files:
        if file.is_file():
            result.update(file.read_bytes())
    return result.hexdigest()


def _figure(
    planner: _Planner,
    entry: str,
    figure: Figure,
    params: Params,
    cells: dict[str, list[Cell]],
    context: dict[str, Any],
) -> Published:
    table = getattr(figure.options, "table", None)
    modules = ("longtail.figures", f"longtail.figures.{figure.name}")
    return Published(
        kind="figures",
        name=entry,
        folder=f"{planner.plan.results}/figures",
        settings=figure,
        modules=modules,
        code=planner.code(modules),
        cells=_shown(params.tables[table], cells) if table else (),
        reads=getattr(figure.options, "reads", ()),
        context=context,
        suffixes=("png", "svg", "pdf"),
    )


def _model(
    planner: _Planner,
    entry: str,
    model: Model,
    params: Params,
    cells: dict[str, list[Cell]],
    context: dict[str, Any],
) -> Published:
    if model.table:
        methods, shown = params.tables[model.table].methods, _shown(params.tables[model.table], cells)
    else:
        methods = [str(model.method)]
        shown = tuple(cells[methods[0]])
    modules = ("longtail.models",)
    return Published(
        kind="models",
        name=entry,
        folder=f"{planner.plan.results}/models/{entry}",
        settings=model,
        modules=modules,
        code=planner.code(modules),
        cells=shown,
        reads=STEPS,
        context={
            **context,
            "among": methods,
            "card": _files_digest(sorted((PACKAGE / "templates" / "export").glob("*"))),
        },
        suffixes=(),
        names=("model.safetensors", "model.onnx", "model.json", "README.md", "choice.csv"),
    )


def _report(planner: _Planner, result: Plan) -> Published:
    shown = (*result.tables.values(), *result.figures.values())
    return Published(
        kind="report",
        name="report",
        folder=result.results,
        settings={"source": result.source},
        modules=("longtail.publish",),
        code="",
        cells=(),
        reads=(),
        context={
            "captions": _files_digest(sorted(planner.root.glob("workflow/report/*.rst"))),
            "targets": [item.outputs[0] for item in shown],
        },
        suffixes=("html",),
        built_on=shown,
    )
