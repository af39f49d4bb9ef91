"""The tables on the page: a table of ours at one imbalance, its rows as they are sorted and compared."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from longtail.publish.job import PublishedJob
from longtail.publish.page.answers import interval, over
from longtail.publish.page.shown import EMPTY, Shown, bounds, signed
from longtail.publish.tables.differences import to_what
from longtail.publish.tables.notes import notes, warnings
from longtail.publish.tables.rows import shown_results, table_rows
from longtail.publish.tables.words import NOT_APPLICABLE, number

NARROW = "\N{NO-BREAK SPACE}"  # between what is not to be parted
PRINTED = "printed in the paper"


def score_tables(job: PublishedJob, marked: Mapping[str, str]) -> dict[str, Any]:
    """A table of the settings file as the page has it, one an imbalance.

    Args:
        job: the table.
        marked: a method to mark as the best by validation images, by the imbalance in words.
    """
    results = shown_results(job)
    rows = table_rows(job, results)
    return {
        "name": job.name,
        "caption": job.settings.caption,
        "dataset": job.dataset,
        "at": [_at(job, str(name), own, marked) for name, own in rows.groupby("imbalance", sort=False)],
        "warnings": warnings(results),
        "notes": notes(job, rows, results),
    }


def _at(job: PublishedJob, imbalance: str, rows: pd.DataFrame, marked: Mapping[str, str]) -> dict[str, Any]:
    columns = {head: cells for head, cells in _columns(job, imbalance, rows) if any(c.text for c in cells)}
    resampled = {over(cells) for method in rows["method"] if (cells := _cells(job, method, imbalance))}
    resampled |= set(rows["over"].dropna())
    return {
        "imbalance": imbalance,
        "heads": list(columns),
        "sections": rows["section"].nunique() > 1,
        "over": "; ".join(sorted(resampled)),
        "rows": [
            {
                "section": row.section,
                "label": row.label,
                "best": bool(row.method) and row.method == marked.get(imbalance),
                "cells": [cells[place] for cells in columns.values()],
            }
            for place, row in enumerate(rows.itertuples())
            if any(cells[place].text for cells in columns.values())  # else not run, and nothing printed
        ],
    }


def _columns(job: PublishedJob, imbalance: str, rows: pd.DataFrame) -> Iterator[tuple[str, list[Shown]]]:
    """Heads of columns with a cell a row; empty ones are left out afterwards."""
    yield "all", _means(rows, "accuracy")
    yield "95 % interval of all", [_interval(_cells(job, method, imbalance)) for method in rows["method"]]
    for group, words in job.group_words().items():
        head, _, size = words.partition(" ")
        yield f"{head} {size.replace(' ', NARROW)}", _means(rows, group)
    for quantity in ("linear", "forgetting"):
        if quantity in (job.settings.columns or []):
            yield quantity, _means(rows, quantity)
    if rows["against"].notna().any():
        yield f"difference to {to_what(job.settings)}", _versus(rows)
    yield "validation", _means(rows, "validation")
    yield "calibration error", _means(rows, "expected_calibration_error")
    yield PRINTED, [_printed(text) for text in rows["printed_accuracy"]]


def _cells(job: PublishedJob, method: str, imbalance: str) -> list[Any]:
    return [cell for cell in job.cells if (cell.method, cell.imbalance_words) == (method, imbalance)]


def _means(rows: pd.DataFrame, quantity: str) -> list[Shown]:
    """Mean over runs ± sample standard deviation (number of runs); n/a where a run has no such quantity."""
    built = rows["built_linear" if quantity == "linear" else "built"]
    found = []
    known = zip(*(rows[f"{name}_{quantity}"] for name in ("mean", "spread", "runs")), built, strict=True)
    for mean, spread, runs, there in known:
        if not there or pd.isna(runs):
            found.append(Shown(NOT_APPLICABLE) if there else EMPTY)
            continue
        text = number(mean, 1) + ("" if pd.isna(spread) else f" ± {number(spread, 1)}")
        found.append(Shown(f"{text} ({runs:.0f})" if quantity == "accuracy" else text, float(mean)))
    return found if any(cell.key is not None for cell in found) else [EMPTY] * len(found)


def _interval(cells: list[Any]) -> Shown:
    if not cells or (found := interval(cells)) is None:
        return EMPTY
    low, high = (100 * bound for bound in found)
    return Shown(f"{number(low, 1)} to {number(high, 1)}", low)


def _versus(rows: pd.DataFrame) -> list[Shown]:
    known = zip(rows["versus"], rows["low"], rows["high"], strict=True)
    return [
        EMPTY if pd.isna(points) else Shown(f"{signed(points)} {bounds(low, high)}", float(points))
        for points, low, high in known
    ]


def _printed(text: Any) -> Shown:
    if pd.isna(text):
        return EMPTY
    try:
        return Shown(str(text), float(text))
    except ValueError:
        return Shown(str(text))
