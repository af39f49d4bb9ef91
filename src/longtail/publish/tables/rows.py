"""The rows of a table: ours with seeds and spread, beside the printed numbers."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longtail.errors import UserError
from longtail.groups import GROUPS
from longtail.publish.job import Cell, PublishedJob
from longtail.publish.printed.numbers import Printed
from longtail.settings.methods import settings_of
from longtail.settings.published import Row, Table
from longtail.settings.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
from longtail.publish.tables.check import check, printed_numbers, reference_row


@dataclass(frozen=True)
class Seeds:
    """One quantity over seeds, in percent."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation (n - 1) over seeds; None with one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Measured:
    """A method at one imbalance, over its subsets and seeds.

    Attributes:
        groups: accuracy by group of classes; None where a group has no class.
        calibration_error: expected calibration error, None where there was no image to measure it on.
        validation: mean accuracy of the classes on validation images, None without any.
        selected: what the validation images chose, "" if they chose nothing.
        whole: whether stage two learnt from the complete, balanced training set.
        rich: accuracy on data-rich classes, among these alone, after the first phase of stage one and after
            the last; None where stage one has no such phases.
    """

    accuracy: Seeds
    groups: dict[str, Seeds | None]
    calibration_error: Seeds | None
    validation: Seeds | None
    selected: str
    whole: bool
    rich: tuple[Seeds, Seeds] | None
    recipe: Recipe
    cells: tuple[Cell, ...]

    @property
    def forgetting(self) -> Seeds | None:
        """Points that stage one's later phases cost the data-rich classes; negative where they gained."""
        if self.rich is None:
            return None
        return Seeds(tuple(a - b for a, b in zip(*(seeds.values for seeds in self.rich), strict=True)))

    def facts(self, what: str) -> list[str]:
        """What stage one's run.json says of precision, device or torch version, each value once."""
        return sorted({fact(cell, "stage_one", what) for cell in self.cells})


@dataclass(frozen=True)
class Difference:
    """A row's accuracy minus that of the table's reference row, in points.

    Attributes:
        low, high: bounds of its 95 % interval (`longtail.publish.bootstrap`).
        over: what the interval resamples.
    """

    reference: str
    mean: float
    low: float
    high: float
    over: str


@dataclass(frozen=True)
class TableRow:
    """A row of a table at one imbalance.

    Attributes:
        imbalance: as tables say it, e.g. `ratio 100`.
        ours: None where the row is not built.
        linear: the row's second method, whose accuracy is the column `linear`; None where it has none.
        printed: what the paper prints, by quantity; empty where it prints nothing for this dataset.
        versus: None for the reference row itself, and where one of the two is not built.
    """

    row: Row
    imbalance: str
    ours: Measured | None
    linear: Measured | None
    printed: dict[str, Printed]
    versus: Difference | None = None

    @property
    def built(self) -> list[Measured]:
        """Both of our numbers, as far as they are there."""
        return [ours for ours in (self.ours, self.linear) if ours]

    def value(self, quantity: str) -> Seeds | None:
        """Our number of a column; None where it is not built or not applicable."""
        if quantity == "linear":
            return self.linear.accuracy if self.linear else None
        if self.ours is None:
            return None
        if quantity == "forgetting":
            return self.ours.forgetting
        return self.ours.accuracy if quantity == "accuracy" else self.ours.groups[quantity]

    def is_built(self, quantity: str) -> bool:
        """Whether the method of a column is built."""
        return (self.linear if quantity == "linear" else self.ours) is not None


def rows(job: PublishedJob) -> list[TableRow]:
    """Every row at every imbalance, rows in the order of the table.

    Raises:
        UserError: as `check` does.
    """
    table: Table = job.settings
    check(job.name, table)
    numbers = [
        line for line in printed_numbers(table) if line.dataset == job.dataset and table.shows(line.ratio)
    ]
    imbalances = {cell.imbalance_words: cell.ratio for cell in job.cells}
    if not imbalances:  # no row is built yet
        imbalances = {
            "natural" if line.ratio is None else f"ratio {line.ratio:g}": line.ratio for line in numbers
        }
    measured: dict[tuple[str, str], list[Cell]] = {}
    for cell in job.cells:
        measured.setdefault((cell.method, cell.imbalance_words), []).append(cell)
    ours = {key: _ours(job, cells) for key, cells in measured.items()}
    result = []
    for row in table.rows:
        own = [
            line for line in numbers if row.printed and (line.section, line.label) == (row.section, row.label)
        ]
        for imbalance, ratio in imbalances.items():
            result.append(
                TableRow(
                    row=row,
                    imbalance=imbalance,
                    ours=ours.get((row.method or "", imbalance)),
                    linear=ours.get((row.linear or "", imbalance)),
                    printed={line.quantity: line for line in own if line.ratio == ratio},
                    versus=_versus(job, row, imbalance, measured),
                )
            )
    return result


def main_quantity(table: Table) -> str:
    """What the differences to a reference row are of: accuracy, or linear in a table of nothing else."""
    return "linear" if table.columns and set(table.columns) == {"linear"} else "accuracy"


def _versus(
    job: PublishedJob, row: Row, imbalance: str, measured: dict[tuple[str, str], list[Cell]]
) -> Difference | None:
    from longtail.publish import bootstrap  # imports numpy

    table: Table = job.settings
    reference = reference_row(job.name, table, row.section)
    if reference is None or reference == row:
        return None
    linear = main_quantity(table) == "linear"
    names = [(item.linear if linear else item.method) or "" for item in (row, reference)]
    first, second = ((measured.get((name, imbalance))) for name in names)
    if not first or not second:
        return None
    differences = _correct(first) - _correct(second)
    subsets = len({cell.subset_seed for cell in first})
    low, high = bootstrap.interval(differences.reshape(subsets, -1, differences.shape[1]))
    resampled = ["subsets"] * (subsets > 1) + ["seeds"] * (len(first) > subsets) + ["test images"]
    return Difference(
        reference=reference.label,
        mean=100 * float(differences.mean()),
        low=100 * low,
        high=100 * high,
        over=" and ".join(resampled),
    )


def _correct(cells: Sequence[Cell]) -> "npt.NDArray[np.int8]":
    """Whether each test image is classified rightly, a row a run, the images in one order."""
    import numpy as np

    rows = []
    for cell in cells:  # one after the other: logits may be large
        found = cell.predictions()
        right = found["logits"].argmax(1) == found["labels"]
        rows.append(right[found["samples"].argsort(kind="stable")])
    return np.stack(rows).astype(np.int8)


def _ours(job: PublishedJob, cells: list[Cell]) -> Measured:
    from longtail.metrics import group_accuracy  # imports torch

    measured = [cell.metrics()["test"] for cell in cells]
    groups = [
        group_accuracy(
            found["per_class"],
            found["per_class_n"],
            cell.class_counts(),
            many_above=job.groups.many_above,
            few_below=job.groups.few_below,
        )
        for cell, found in zip(cells, measured, strict=True)
    ]
    accuracy = _seeds(found["accuracy"] for found in measured)
    if accuracy is None:
        raise UserError(f"{cells[0].runs['stage_two']}: no test image was measured")
    return Measured(
        accuracy=accuracy,
        groups={name: _seeds(found[name] for found in groups) for name in GROUPS},
        calibration_error=_seeds(found["expected_calibration_error"] for found in measured),
        validation=_seeds(cell.validation() for cell in cells),
        selected=str(_declared(cells[0], "selects")),
        whole=_declared(cells[0], "reads") == "whole",
        rich=_rich(cells),
        recipe=job.recipes[job.methods[cells[0].method]["stage_one"]],
        cells=tuple(cells),
    )


def _rich(cells: Sequence[Cell]) -> tuple[Seeds, Seeds] | None:
    phases = [cell.rich() for cell in cells]
    if any(len(found) < 2 for found in phases):
        return None
    first, last = (_seeds(found[place] for found in phases) for place in (0, -1))
    return (first, last) if first and last else None


def _seeds(shares: Iterable[float | None]) -> Seeds | None:
    values = tuple(100 * share for share in shares if share is not None)
    return Seeds(values) if values else None


def _declared(cell: Cell, what: str) -> Any:
    """What a classifier's settings say of it, "" where they say nothing.

    `selects`: what it chooses by validation images. `reads`: "whole" if it learns from all training images.
    """
    method = dict(cell.info["stage_two"]["settings"]["method"])
    settings = settings_of("stage_two", method.pop("name")).model_validate(method)
    return getattr(settings, what, "")


def fact(cell: Cell, step: str, what: str) -> str:
    """What run.json of a step says of precision, device or torch version."""
    return cell.package(step, "torch") if what == "torch version" else cell.fact(step, what)


def difference(line: TableRow, quantity: str = "accuracy") -> float | None:
    """Measured minus printed, in points; None where one of them is missing."""
    value = line.printed[quantity].value if quantity in line.printed else None
    ours = line.value(quantity)
    return None if value is None or ours is None else ours.mean - value
