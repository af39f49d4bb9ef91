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

SUSPECTS = ("label_issues.csv", "near_duplicates.csv")  # of a check of picture files, where it was made


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
    files = _suspects(first)
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
            "templates": files_digest(sorted((PACKAGE / "publish/page/templates").glob("*"))),
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
            "files": files,
            "suspects": files_digest(map(Path, files)),
        },
        suffixes=("html",),
        built_on=(*result.figures.values(), *result.models.values()),
    )


def _suspects(params: Params) -> list[str]:
    """Where a check of the dataset's picture files writes what it suspects; nothing for other datasets."""
    if isinstance(params.data, PublishedData):
        return []
    folder = manifest.file_of(params.dataset).parent
    return [str(folder / name) for name in SUSPECTS]
