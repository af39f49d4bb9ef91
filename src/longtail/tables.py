"""Tables: our numbers with seeds and spread, beside the printed ones, as .csv, .md, .tex and .html.

A table holds nothing that changes from one making to the next, such as a date or a duration: the same
runs give the same bytes.
"""

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longtail import printed
from longtail.errors import UserError
from longtail.params import Recipe, Row, Table
from longtail.printed import Printed
from longtail.published_job import Cell, PublishedJob
from longtail.settings import settings_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

GROUPS = ("many", "medium", "few")
NOT_APPLICABLE = "n/a"
COMPLETE = "complete training set"  # what a classifier learnt from that reads all training images


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
class Ours:
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
        low, high: bounds of its 95 % interval (`longtail.bootstrap`).
        over: what the interval resamples.
    """

    reference: str
    mean: float
    low: float
    high: float
    over: str


@dataclass(frozen=True)
class Line:
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
    ours: Ours | None
    linear: Ours | None
    printed: dict[str, Printed]
    versus: Difference | None = None

    @property
    def built(self) -> list[Ours]:
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


def compute(job: PublishedJob) -> None:
    """Write NAME.csv, NAME.md, NAME.tex and NAME.html.

    Raises:
        UserError: as `check` does.
    """
    from longtail.table_pages import rendered  # imports this module

    lines = rows(job)
    stem = job.name.rpartition("/")[2]
    (job.folder / f"{stem}.csv").write_text(tidy(lines, job.validation), "utf-8", newline="\n")
    for suffix, text in rendered(job, lines).items():
        (job.folder / f"{stem}.{suffix}").write_text(text, "utf-8", newline="\n")


def check(name: str, table: Table) -> None:
    """Check that no row stands twice, that every row has something to show, and that `against` is a row.

    Raises:
        UserError: naming the row, and the labels that the paper has.
    """
    known = {(line.section, line.label) for line in _printed(table)}
    named = [(row.section, row.label) for row in table.rows]
    for index, (row, place) in enumerate(zip(table.rows, named, strict=True)):
        if place in named[:index]:
            raise UserError(f"tables.{name}.rows[{index}]: {': '.join(place)} stands in the table already")
        if row.method is None and row.linear is None and not (row.printed and place in known):
            labels = ", ".join(sorted(": ".join(pair) for pair in known)) or "no label"
            raise UserError(
                f"tables.{name}.rows[{index}]: {': '.join(place)} has no method and is not printed in "
                f"{table.printed or 'a paper'}, which has {labels}"
            )
    if table.against is not None and table.against not in (row.label for row in table.rows):
        labels = ", ".join(dict.fromkeys(row.label for row in table.rows))
        raise UserError(f"tables.{name}.against: {table.against!r} is not the label of a row: {labels}")
    for section in dict.fromkeys(row.section for row in table.rows):
        _reference(name, table, section)


def _reference(name: str, table: Table, section: str) -> Row | None:
    """The row that `against` means in a section: its own of that label, else the only one of the table."""
    found = [row for row in table.rows if row.label == table.against]
    own = [row for row in found if row.section == section]
    if len(own or found) > 1:
        sections = ", ".join(row.section for row in found)
        raise UserError(f"tables.{name}.against: {table.against!r} stands in {sections}, not in {section}")
    return next(iter(own or found), None)


def _printed(table: Table) -> list[Printed]:
    return printed.read(table.printed) if table.printed else []


def rows(job: PublishedJob) -> list[Line]:
    """Every row at every imbalance, rows in the order of the table.

    Raises:
        UserError: as `check` does.
    """
    table: Table = job.settings
    check(job.name, table)
    numbers = [line for line in _printed(table) if line.dataset == job.dataset and table.shows(line.ratio)]
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
                Line(
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
    from longtail import bootstrap  # imports numpy

    table: Table = job.settings
    reference = _reference(job.name, table, row.section)
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


def _ours(job: PublishedJob, cells: list[Cell]) -> Ours:
    from longtail.evaluation import group_accuracy  # imports torch

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
    return Ours(
        accuracy=accuracy,
        groups={name: _seeds(found[name] for found in groups) for name in GROUPS},
        calibration_error=_seeds(found["expected_calibration_error"] for found in measured),
        validation=_seeds(cell.validation() for cell in cells),
        selected=str(_said(cells[0], "selects")),
        whole=_said(cells[0], "reads") == "whole",
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


def _said(cell: Cell, what: str) -> Any:
    """What a classifier's settings say of it, "" where they say nothing.

    `selects`: what it chooses by validation images. `reads`: "whole" if it learns from all training images.
    """
    method = dict(cell.info["stage_two"]["settings"]["method"])
    settings = settings_of("stage_two", method.pop("name")).model_validate(method)
    return getattr(settings, what, "")


def fact(cell: Cell, step: str, what: str) -> str:
    """What run.json of a step says of precision, device or torch version."""
    return cell.package(step, "torch") if what == "torch version" else cell.fact(step, what)


def difference(line: Line, quantity: str = "accuracy") -> float | None:
    """Ours minus printed, in points; None where one of them is missing."""
    value = line.printed[quantity].value if quantity in line.printed else None
    ours = line.value(quantity)
    return None if value is None or ours is None else ours.mean - value


def length(recipe: Recipe) -> str:
    """How long stage one trains, e.g. `200 epochs`; phases one after another as `200 epochs + 30 epochs`."""
    return " + ".join(phase.schedule.words for phase in recipe.phases)


def augmentation(recipe: Recipe) -> str:
    """What happens to a training image, e.g. `crop 4 + flip + AutoAugment + Cutout 16`."""
    settings = recipe.augmentation
    steps = {
        "resized crop": settings.resized_crop is not None,
        f"crop {settings.crop}": settings.crop,
        "flip": settings.flip,
        "colour jitter": settings.jitter is not None,
        "RandAugment": settings.randaugment is not None,
        "AutoAugment": settings.autoaugment != "none",
        f"Cutout {settings.cutout}": settings.cutout,
        **{transform.name: True for phase in recipe.phases for transform in phase.transforms or []},
    }
    return " + ".join(step for step, on in steps.items() if on) or "none"


def tidy(lines: Sequence[Line], validation: str) -> str:
    """The table as CSV, a line a row and imbalance; accuracies and errors in percent, two decimals.

    Columns of what only some tables have (values of a sweep, a linear column, a reference row, printed
    groups) stand at the end.
    """
    by_group = [name for name in GROUPS if any(name in line.printed for line in lines)]
    linear = any(line.row.linear or "linear" in line.printed for line in lines)
    against = any(line.versus for line in lines)
    forgetting = any(line.ours and line.ours.rich for line in lines)
    keys = dict.fromkeys(key for line in lines for key in line.row.values)
    whole = any(line.ours and line.ours.whole for line in lines)
    records = [
        {
            **_record(line, validation),
            **{key: line.row.values.get(key, "") for key in keys},
            **({"classifier_data": _data(line)} if whole else {}),
            **(_linear(line) if linear else {}),
            **(_forgetting(line.ours) if forgetting else {}),
            **(_against(line.versus) if against else {}),
            **{f"printed_{name}": _text(line.printed.get(name)) for name in by_group},
        }
        for line in lines
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _record(line: Line, validation: str) -> dict[str, str]:
    ours, built = line.ours, line.built
    cells = built[0].cells if built else ()
    return {
        "section": line.row.section,
        "method": line.row.label,
        "imbalance_ratio": line.imbalance.removeprefix("ratio "),
        "mean": number(ours.accuracy.mean) if ours else "",
        "standard_deviation": number(ours.accuracy.spread) if ours else "",
        "seeds": str(len({cell.seed for cell in cells})),
        "printed": _text(line.printed.get("accuracy")),
        "difference": number(difference(line)),
        "selection_split": selection(line, validation),
        **{name: mean(ours.groups[name]) if ours else "" for name in GROUPS},
        **{f"standard_deviation_{name}": _spread(ours.groups[name]) if ours else "" for name in GROUPS},
        "expected_calibration_error": mean(ours.calibration_error) if ours else "",
        "validation": mean(ours.validation) if ours else "",
        "standard_deviation_validation": _spread(ours.validation) if ours else "",
        "subset_seeds": str(len({cell.subset_seed for cell in cells})),
        "augmentation": augmentation(built[0].recipe) if built else "",
        "stage_one_length": length(built[0].recipe) if built else "",
        "precision": " + ".join(built[0].facts("precision")) if built else "",
        "hardware": " + ".join(built[0].facts("device")) if built else "",
    }


def _data(line: Line) -> str:
    """What the classifier of the accuracy columns learnt from."""
    if line.ours is None:
        return ""
    return COMPLETE if line.ours.whole else "long-tailed training set"


def _linear(line: Line) -> dict[str, str]:
    return {
        "linear": number(line.linear.accuracy.mean) if line.linear else "",
        "standard_deviation_linear": number(line.linear.accuracy.spread) if line.linear else "",
        "printed_linear": _text(line.printed.get("linear")),
        "difference_linear": number(difference(line, "linear")),
    }


def _forgetting(ours: Ours | None) -> dict[str, str]:
    first, last = ours.rich if ours and ours.rich else (None, None)
    forgetting = ours.forgetting if ours else None
    return {
        "data_rich_after_first_phase": number(first.mean) if first else "",
        "data_rich_after_last_phase": number(last.mean) if last else "",
        "forgetting": number(forgetting.mean) if forgetting else "",
        "standard_deviation_forgetting": number(forgetting.spread) if forgetting else "",
    }


def _against(versus: Difference | None) -> dict[str, str]:
    return {
        "against": versus.reference if versus else "",
        "difference_to_it": number(versus.mean) if versus else "",
        "interval_low": number(versus.low) if versus else "",
        "interval_high": number(versus.high) if versus else "",
        "interval_over": versus.over if versus else "",
    }


def _text(found: Printed | None) -> str:
    return found.text if found and found.value is not None else ""


def selection(line: Line, validation: str) -> str:
    """By which images something was selected, and what; none where nothing was."""
    if not line.built:
        return ""
    chosen = list(dict.fromkeys(ours.selected for ours in line.built if ours.selected))
    return f"{validation}: {', '.join(chosen)}" if chosen else "none"


def number(value: float | None, decimals: int = 2) -> str:
    """A number as a table prints it, without -0; "" for none."""
    return "" if value is None else f"{round(value, decimals) + 0.0:.{decimals}f}"


def mean(seeds: Seeds | None, decimals: int = 2) -> str:
    """The mean, or that there is nothing to have one of."""
    return NOT_APPLICABLE if seeds is None else number(seeds.mean, decimals)


def _spread(seeds: Seeds | None) -> str:
    return NOT_APPLICABLE if seeds is None else number(seeds.spread)
