"""What a plan holds and what feeds what, for the figure that draws it (`longtail.publish.figures.overview`).

Runs that differ in imbalance, subset or seed alone are one node; so are the runs that only a sweep adds. A
run that several entries share has the name of the first of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from longtail.orchestration.plan import Plan
from longtail.orchestration.published import PlannedCell
from longtail.orchestration.run import Run
from longtail.settings.finished_runs import FinishedRuns
from longtail.settings.method_blocks import blocks_in
from longtail.settings.params import Params
from longtail.settings.phase import PhaseSettings
from longtail.settings.recipe import Recipe

COLUMNS = ("acquire", "split", "stage_one", "features", "stage_two", "tables", "figures")
Place = tuple[str, str]  # column and name of a node


@dataclass
class _Graph:
    """Nodes by the runs in them, edges by the pairs of runs in them; both in the order of their making."""

    nodes: dict[Place, set[str]] = field(default_factory=dict)
    edges: dict[tuple[Place, Place], set[tuple[str, str]]] = field(default_factory=dict)
    of: dict[tuple[str, str], Place] = field(default_factory=dict)  # of each run by step and name
    recipes: dict[int, tuple[Recipe, list[PhaseSettings]]] = field(default_factory=dict)

    def phases(self, recipe: Recipe) -> list[PhaseSettings]:
        """The phases of a recipe, made once, though it is trained by many runs."""
        if id(recipe) not in self.recipes:  # with the recipe, which keeps the place in memory taken
            self.recipes[id(recipe)] = recipe, recipe.phases
        return self.recipes[id(recipe)][1]

    def run(self, run: Run, name: str) -> Place:
        """The node of a run: the one that it stands in already, else that of this name."""
        place = self.of.setdefault((run.step, run.name), (run.step, name))
        self.nodes.setdefault(place, set()).add(run.name)
        return place

    def feed(self, source: Place, target: Place, pair: tuple[str, str]) -> None:
        """Note that one feeds the other."""
        self.edges.setdefault((source, target), set()).add(pair)


def overview(plan: Plan, parts: Iterable[tuple[Params, list[PlannedCell]]]) -> dict[str, Any]:
    """The graph as JSON data.

    Args:
        plan: with every run, table and figure but those that draw the plan.
        parts: the settings file, then each of its sweeps, with the cells of their tables.

    Returns:
        - columns: one of each of COLUMNS, `name`, `runs` (how many in all) and `nodes`, each with `name` and
          `runs`; tables and figures count as one run each.
        - edges: `from` and `to`, [column, node] by their numbers, and `runs`: how many pairs of runs.
    """
    graph = _Graph()
    for number, (params, cells) in enumerate(parts):
        if not number:
            main = params
        sweep = "" if not number else next(iter(params.tables))
        shown = {entry: set(table.methods) for entry, table in params.tables.items()}
        for cell in cells:
            fitted = _add_cell(graph, cell, params, main, sweep)
            for entry, table in params.tables.items():
                if cell.method in shown[entry] and table.shows(cell.ratio):
                    graph.nodes.setdefault(("tables", entry), set()).add(entry)
                    graph.feed(fitted, ("tables", entry), (cell.runs["stage_two"].name, entry))
        for entry, figure in params.figures.items():
            if entry in plan.figures:
                graph.nodes.setdefault(("figures", entry), set()).add(entry)
                for cell in plan.figures[entry].cells:
                    if cell.method not in params.methods:
                        _add_reference(graph, cell, entry)
                if (read := getattr(figure.options, "table", None)) is not None:
                    graph.feed(("tables", read), ("figures", entry), (read, entry))
    names = {column: [name for found, name in graph.nodes if found == column] for column in COLUMNS}
    return {
        "columns": [
            {
                "name": column,
                "runs": len(set().union(*(graph.nodes[column, name] for name in names[column]))),
                "nodes": [{"name": name, "runs": len(graph.nodes[column, name])} for name in names[column]],
            }
            for column in COLUMNS
        ],
        "edges": [
            {"from": _numbers(source, names), "to": _numbers(target, names), "runs": len(pairs)}
            for (source, target), pairs in graph.edges.items()
        ],
    }


def _numbers(place: Place, names: dict[str, list[str]]) -> list[int]:
    column, name = place
    return [COLUMNS.index(column), names[column].index(name)]


def _add_cell(graph: _Graph, cell: PlannedCell, params: Params, main: Params, sweep: str) -> Place:
    """The runs of a cell, from raw images on; the node of its classifier."""
    row, runs = params.methods[cell.method], cell.runs
    raw = graph.run(runs["acquire"], runs["acquire"].name)
    split = graph.run(runs["split"], cell.imbalance)
    graph.feed(raw, split, (runs["acquire"].name, runs["split"].name))
    recipe = row.stage_one if row.stage_one in main.stage_one else sweep
    phases = graph.phases(params.stage_one[row.stage_one])
    trained = _add_phases(graph, runs["stage_one"], phases, recipe, split, params)
    features = graph.run(runs["features"], _features_words(runs["features"].settings))
    graph.feed(trained, features, (runs["stage_one"].name, runs["features"].name))
    fitted = graph.run(runs["stage_two"], row.stage_two if row.stage_two in main.stage_two else sweep)
    graph.feed(features, fitted, (runs["features"].name, runs["stage_two"].name))
    return fitted


def _add_reference(graph: _Graph, cell: PlannedCell, figure: str) -> None:
    """The runs of stage one that a figure alone asks for."""
    runs = cell.runs
    raw = graph.run(runs["acquire"], runs["acquire"].name)
    split = graph.run(runs["split"], cell.imbalance)
    graph.feed(raw, split, (runs["acquire"].name, runs["split"].name))
    trained = graph.run(runs["stage_one"], cell.method)
    graph.feed(split, trained, (runs["split"].name, runs["stage_one"].name))
    graph.feed(trained, ("figures", figure), (runs["stage_one"].name, figure))


def _add_phases(
    graph: _Graph, last: Run, phases: list[PhaseSettings], recipe: str, split: Place, params: Params
) -> Place:
    """The runs of a recipe's phases, each built on the one before; the node of the last."""
    chain = [last]
    while before := [run for run in chain[0].inputs if run.step == "stage_one"]:
        chain.insert(0, before[0])
    place, former = split, next(run for run in last.inputs if run.step == "split")
    for run, phase in zip(chain, phases, strict=True):
        node = graph.run(run, recipe if run is last else f"{recipe}.{phase.name}")
        graph.feed(place, node, (former.name, run.name))
        _add_further(graph, run, phase, split, params)
        place, former = node, run
    return place


def _add_further(graph: _Graph, run: Run, phase: PhaseSettings, split: Place, params: Params) -> None:
    """What the step of a phase names: the finished runs of other recipes, and what these are built on."""
    assert phase.step is not None
    for key, block in blocks_in(phase.step.options, FinishedRuns):
        recipe = graph.phases(params.stage_one[block.stage_one])
        for name, other in run.further.items():
            if not name.startswith(f"{key}."):
                continue
            if other.step == "stage_one":
                source = _add_phases(graph, other, recipe, block.stage_one, split, params)
            else:
                features = next(found for found in other.inputs if found.step == "features")
                trained = next(found for found in features.inputs if found.step == "stage_one")
                below = _add_phases(graph, trained, recipe, block.stage_one, split, params)
                middle = graph.run(features, _features_words(features.settings))
                graph.feed(below, middle, (trained.name, features.name))
                source = graph.run(other, str(block.stage_two))
                graph.feed(middle, source, (features.name, other.name))
            graph.feed(source, graph.of["stage_one", run.name], (other.name, run.name))


def _features_words(settings: Any) -> str:
    """What kind of features a run makes."""
    if settings.whole:
        return "of all images"
    words = f"{settings.views} views" if settings.views else "clean"
    return words if settings.batchnorm == "eval" else f"{words}, batch statistics"
