"""How the frame of all results, runs.csv, is planned, with the curves and numbers beside it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from longtail.orchestration.published import PlannedCell, Published
from longtail.settings.params import Params

if TYPE_CHECKING:
    from longtail.orchestration.planner import Planner


def plan_frame(planner: "Planner", parts: Iterable[tuple[Params, list[PlannedCell]]]) -> Published:
    """The frame of every run of stage two, once each, with the settings of its recipe and classifier.

    Args:
        planner: whose plan it belongs to.
        parts: the settings file, then each of its sweeps, with the cells of their tables. What a sweep adds
            has its name before its own (`sweeps/gamma_b/graloss-b1`): two sweeps may give one name to
            different settings.
    """
    cells: dict[str, PlannedCell] = {}
    context: dict[str, dict[str, Any]] = {"recipes": {}, "classifiers": {}, "methods": {}}
    for number, (params, shown) in enumerate(parts):
        sweep = f"{next(iter(params.tables))}/" if number else ""
        for cell in shown:
            if cell.runs["stage_two"].name in cells:
                continue
            row = params.methods[cell.method]
            method, recipe, classifier = (
                f"{sweep}{name}" for name in (cell.method, row.stage_one, row.stage_two)
            )
            cells[cell.runs["stage_two"].name] = replace(cell, method=method)
            context["recipes"][recipe] = params.stage_one[row.stage_one]
            context["classifiers"][classifier] = params.stage_two[row.stage_two]
            context["methods"][method] = {"stage_one": recipe, "stage_two": classifier}
    modules = ("longtail.publish.frame",)
    return Published(
        kind="frame",
        name="runs",
        folder=planner.plan.results,
        settings={},
        modules=modules,
        code=planner.code(modules),
        cells=tuple(cells.values()),
        reads=("split", "stage_one", "stage_two"),
        context={
            **context,
            "dataset": params.dataset,
            "groups": params.groups,
            "validation": params.validation,
        },
        suffixes=(),
        names=("runs.csv", "curves.csv", "metrics.json"),
    )
