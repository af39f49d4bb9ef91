"""The methods that the page speaks of: those of exported models, else the best one of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from longtail.publish.job import Cell, PublishedJob
from longtail.publish.page.shown import EMPTY, Shown, share
from longtail.publish.selection import SCORE, at_first_place, best, scores
from longtail.settings.published import Table


@dataclass(frozen=True)
class ChosenMethod:
    """A method whose errors are shown.

    Attributes:
        model: name of its exported model; "" where there is none.
        folder: of the model.
        table: the table in which it was chosen; "" for a model of one method.
        method: an entry of `methods`.
        label: what the table calls it, with its section where other rows have the same label.
        cells: its runs at the first imbalance, on the first subset.
        scores: of the methods among which it was chosen: the entry, its label, the score, the number of runs.
        by_validation: whether validation images chose it.
    """

    model: str
    folder: Path | None
    table: str
    method: str
    label: str
    cells: list[Cell]
    scores: list[tuple[str, str, Shown, int]]
    by_validation: bool

    @property
    def judged(self) -> int:
        """How many methods have a score: not those that validation images trained."""
        return sum(score != EMPTY for _, _, score, _ in self.scores)


def choices(
    models: Sequence[Mapping[str, Any]], jobs: Sequence[PublishedJob], cells: Sequence[Cell]
) -> list[ChosenMethod]:
    """What was chosen: a method a model; without models the best of the first table that can tell.

    Args:
        models: of the plan: name, folder, table (or None), among (their methods).
        jobs: tables of the settings file, without sweeps.
        cells: all of the settings file's.
    """
    by_name = {job.name: job for job in jobs}
    found = []
    for model in models:
        job = by_name.get(model["table"] or "")
        own = job.cells if job else [cell for cell in cells if cell.method in model["among"]]
        labels = _labels(job.settings) if job else {}
        found.append(_chosen(model["name"], Path(model["folder"]), job, model["among"], own, labels))
    if found:
        return found
    looked = [one for job in jobs if (one := _best_of(job))]
    return [next((one for one in looked if one.by_validation), looked[0])]


def _best_of(job: PublishedJob) -> ChosenMethod | None:
    """The best of a table's own rows, without what only its column `linear` shows; None without a run."""
    own = dict.fromkeys(row.method for row in job.settings.rows if row.method)
    methods = list(own) or job.settings.methods
    cells = [cell for cell in job.cells if cell.method in methods]
    return _chosen("", None, job, methods, cells, _labels(job.settings)) if cells else None


def _chosen(
    model: str,
    folder: Path | None,
    job: PublishedJob | None,
    methods: Sequence[str],
    cells: Sequence[Cell],
    labels: Mapping[str, str],
) -> ChosenMethod:
    shown = at_first_place(cells)
    known = [method for method in methods if any(cell.method == method for cell in shown)]
    table = scores(known, shown)
    chosen = best(table) if len(known) > 1 else ""
    method = chosen or known[0]
    return ChosenMethod(
        model=model,
        folder=folder,
        table=job.name if job else "",
        method=method,
        label=labels.get(method, method),
        cells=[cell for cell in shown if cell.method == method],
        scores=[
            (str(name), labels.get(str(name), str(name)), share(score), int(seeds))
            for name, score, seeds in _rows(table)
        ],
        by_validation=bool(chosen),
    )


def _rows(table: pd.DataFrame) -> list[tuple[Any, float, int]]:
    return list(zip(table.index, table[SCORE], table["seeds"], strict=True))


def _labels(table: Table) -> dict[str, str]:
    """What a table calls a method, by its entry: the name of the first row that shows it."""
    found: dict[str, str] = {}
    for row in table.rows:
        for method in (row.method, row.linear):
            if method is not None:
                found.setdefault(method, table.name_of(row))
    return found
