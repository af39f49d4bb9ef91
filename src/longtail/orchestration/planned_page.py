"""How the page that a person opens first, index.html, is planned."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from longtail.data import manifest
from longtail.orchestration.planned_outputs import files_digest
from longtail.orchestration.published import PlannedCell, Published
from longtail.runs.identity import PACKAGE
from longtail.settings.data import PublishedData
from longtail.settings.params import Params

if TYPE_CHECKING:
    from longtail.orchestration.planner import Planner

LABELS, NEAR = "label_issues.csv", "near_duplicates.csv"  # what is suspected of picture files


def plan_page(planner: "Planner", parts: Iterable[tuple[Params, list[PlannedCell]]]) -> Published:
    """The page on all tables, figures, models and runs of a settings file.

    Args:
        planner: whose plan it belongs to.
        parts: the settings file, then each of its sweeps, with the cells of their tables.
    """
    cells: list[PlannedCell] = []
    shown = []
    parts = list(parts)
    for params, own in parts:
        shown.append(
            {
                "cells": [len(cells), len(cells) + len(own)],
                "tables": params.tables,
                "dataset": params.dataset,
                "groups": params.groups,
                "validation": params.validation,
                "recipes": params.stage_one,
                "methods": params.methods,
            }
        )
        cells += own
    result, first = planner.plan, parts[0][0]
    modules = ("longtail.publish.page.make",)
    # by which of the plan suspect labels are found, where it is asked for
    checks = [item for item in result.published() if any(Path(name).name == LABELS for name in item.outputs)]
    pictures = not isinstance(first.data, PublishedData)
    near = manifest.file_of(first.dataset).with_name(NEAR)
    # suspect labels that nothing here makes are of other settings, or of older ones
    labels = f"{result.results}/{LABELS}" if checks else None
    suspects = {"issues": labels, "pairs": str(near)} if pictures else {}
    templates = tuple(sorted((PACKAGE / "publish/page/templates").glob("*")))
    return Published(
        kind="page",
        name="index",
        folder=result.results,
        settings={"source": result.source},
        modules=modules,
        code=planner.code(modules),
        cells=tuple(cells),
        reads=("acquire", "split", "stage_one", "features", "stage_two"),
        context={
            "parts": shown,
            "templates": files_digest(templates),
            "figures": [
                {"name": name, "file": item.outputs[0], "caption": item.caption}
                for name, item in result.figures.items()
            ],
            "models": [
                {
                    "name": name,
                    "folder": item.folder,
                    "table": getattr(item.settings, "table", None),
                    "among": item.context["among"],
                }
                for name, item in result.models.items()
            ],
            "suspects": suspects,
            "files": [file for file in suspects.values() if file],
            "near": files_digest([planner.root / near] if pictures else []),
        },
        suffixes=("html",),
        built_on=(*result.figures.values(), *result.models.values(), *checks),
        files=(*templates, *((planner.root / near,) if pictures else ())),
    )
