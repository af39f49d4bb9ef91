"""Differences of a table's rows to its reference row, with intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail.publish import bootstrap
from longtail.publish.job import Cell, PublishedJob
from longtail.publish.tables.check import reference_row
from longtail.settings.published import Row, Table

COMPARED = ["against", "versus", "low", "high", "over"]


def main_quantity(table: Table) -> str:
    """What the differences to a reference row are of: accuracy, or linear in a table of nothing else."""
    return "linear" if table.columns and set(table.columns) == {"linear"} else "accuracy"


def versus(job: PublishedJob, row: Row, imbalance: str) -> dict[str, Any]:
    """A row's accuracy minus that of the reference row, in points, both on the same images.

    Returns:
        against: label of the reference row. versus: the difference. low, high: bounds of its 95 % interval
        (`longtail.publish.bootstrap`). over: what the interval resamples. Nothing for the reference row
        itself, and where one of the two is not built.
    """
    reference = reference_row(job.name, job.settings, row.section)
    if reference is None or reference == row:
        return {}
    linear = main_quantity(job.settings) == "linear"
    names = [item.linear if linear else item.method for item in (row, reference)]
    first, second = (
        [cell for cell in job.cells if (cell.method, cell.imbalance_words) == (name, imbalance)]
        for name in names
    )
    if not first or not second:
        return {}
    differences = _correct(first) - _correct(second)
    subsets = len({cell.subset_seed for cell in first})
    low, high = bootstrap.interval(differences.reshape(subsets, -1, differences.shape[1]))
    resampled = ["subsets"] * (subsets > 1) + ["seeds"] * (len(first) > subsets) + ["test images"]
    return {
        "against": reference.label,
        "versus": 100 * float(differences.mean()),
        "low": 100 * low,
        "high": 100 * high,
        "over": " and ".join(resampled),
    }


def _correct(cells: Sequence[Cell]) -> npt.NDArray[np.int8]:
    """Whether each test image is classified rightly, a row a run, the images in one order."""
    rows = []
    for cell in cells:  # one after the other: logits may be large
        found = cell.predictions()
        right = found["logits"].argmax(1) == found["labels"]
        rows.append(right[found["samples"].argsort(kind="stable")])
    return np.stack(rows).astype(np.int8)
