"""Differences of a table's rows to its reference row, or to the row before, with intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail.publish import bootstrap
from longtail.publish.job import Cell, PublishedJob
from longtail.publish.tables.check import compared_method, reference_row
from longtail.settings.published import Row, Table

COMPARED = ["against", "against_name", "versus", "low", "high", "over"]


def versus(job: PublishedJob, row: Row, imbalance: str) -> dict[str, Any]:
    """A row's accuracy minus that of the row that it is compared with, in points, both on the same images.

    Returns:
        against: label of the other row. against_name: its name, as `Table.name_of` has it. versus: the
        difference. low, high: bounds of its 95 % interval (`longtail.publish.bootstrap`). over: what the
        interval resamples. Nothing for a row without another one, as the reference row itself, and where one
        of the two is not built.
    """
    reference = compared_with(job, row, imbalance)
    if reference is None or reference == row:
        return {}
    first, second = (_cells(job, item, imbalance) for item in (row, reference))
    if not first or not second:
        return {}
    differences = _correct(first) - _correct(second)
    subsets = len({cell.subset_seed for cell in first})
    low, high = bootstrap.interval(differences.reshape(subsets, -1, differences.shape[1]))
    resampled = ["subsets"] * (subsets > 1) + ["seeds"] * (len(first) > subsets) + ["test images"]
    return {
        "against": reference.label,
        "against_name": job.settings.name_of(reference),
        "versus": 100 * float(differences.mean()),
        "low": 100 * low,
        "high": 100 * high,
        "over": " and ".join(resampled),
    }


def compared_with(job: PublishedJob, row: Row, imbalance: str) -> Row | None:
    """The row to which a row's difference is; None where there is none.

    It is the table's reference row, or with `against: previous` the last row before it that has runs at the
    imbalance, in whatever section.
    """
    table: Table = job.settings
    if not table.against_previous:
        return reference_row(job.name, table, row.section)
    before = table.rows[: table.rows.index(row)]
    return next((other for other in reversed(before) if _cells(job, other, imbalance)), None)


def to_what(table: Table) -> str:
    """To what the differences of a table are, in words."""
    return "the row before" if table.against_previous else str(table.against)


def _cells(job: PublishedJob, row: Row, imbalance: str) -> list[Cell]:
    """The runs of a row by which it is compared."""
    name = compared_method(job.settings, row)
    return [cell for cell in job.cells if (cell.method, cell.imbalance_words) == (name, imbalance)]


def _correct(cells: Sequence[Cell]) -> npt.NDArray[np.int8]:
    """Whether each test image is classified rightly, a row a run, the images in one order."""
    rows = []
    for cell in cells:  # one after the other: logits may be large
        found = cell.predictions()
        right = found["logits"].argmax(1) == found["labels"]
        rows.append(right[found["samples"].argsort(kind="stable")])
    return np.stack(rows).astype(np.int8)
