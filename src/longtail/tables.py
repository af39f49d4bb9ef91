"""Tables: our numbers with seeds and spread, beside the printed ones, as .csv, .md, .tex and .html.

A table holds nothing that changes from one making to the next, such as a date or a duration: the same
runs give the same bytes.
"""

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from longtail import printed
from longtail.errors import UserError
from longtail.params import Recipe, Row, Table
from longtail.printed import Printed
from longtail.published_job import Cell, PublishedJob
from longtail.settings import settings_of

GROUPS = ("many", "medium", "few")
NOT_APPLICABLE = "n/a"
COMPLETE = "complete training set"  # what a classifier learnt from that reads all training images
SAME_IN_A_TABLE = ("precision", "device", "torch version")


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
    """A method at one imbalance, over its seeds.

    Attributes:
        groups: accuracy by group of classes; None where a group has no class.
        calibration_error: expected calibration error, None where there was no image to measure it on.
        selected: what the validation images chose, "" if they chose nothing.
        whole: whether stage two learnt from the complete, balanced training set.
    """

    accuracy: Seeds
    groups: dict[str, Seeds | None]
    calibration_error: Seeds | None
    selected: str
    whole: bool
    recipe: Recipe
    cells: tuple[Cell, ...]

    def facts(self, what: str) -> list[str]:
        """What stage one's run.json says of precision, device or torch version, each value once."""
        return sorted({_fact(cell, "stage_one", what) for cell in self.cells})


@dataclass(frozen=True)
class Line:
    """A row of a table at one imbalance.

    Attributes:
        imbalance: as tables say it, e.g. `ratio 100`.
        ours: None where the row is not built.
        printed: what the paper prints, by quantity; empty where it prints nothing for this dataset.
    """

    row: Row
    imbalance: str
    ours: Ours | None
    printed: dict[str, Printed]


def compute(job: PublishedJob) -> None:
    """Write NAME.csv, NAME.md, NAME.tex and NAME.html.

    Raises:
        UserError: as `check` does.
    """
    lines = rows(job)
    (job.folder / f"{job.name}.csv").write_text(tidy(lines, job.validation), "utf-8", newline="\n")
    for suffix, text in rendered(job, lines).items():
        (job.folder / f"{job.name}.{suffix}").write_text(text, "utf-8", newline="\n")


def check(name: str, table: Table) -> None:
    """Check that no row stands twice, and that every row has a method or a printed number.

    Raises:
        UserError: naming the row, and the labels that the paper has.
    """
    known = {(line.section, line.label) for line in _printed(table)}
    named = [(row.section, row.label) for row in table.rows]
    for index, (row, place) in enumerate(zip(table.rows, named, strict=True)):
        if place in named[:index]:
            raise UserError(f"tables.{name}.rows[{index}]: {': '.join(place)} stands in the table already")
        if row.method is None and not (row.printed and place in known):
            labels = ", ".join(sorted(": ".join(pair) for pair in known)) or "no label"
            raise UserError(
                f"tables.{name}.rows[{index}]: {': '.join(place)} has no method and is not printed in "
                f"{table.printed or 'a paper'}, which has {labels}"
            )


def _printed(table: Table) -> list[Printed]:
    return printed.read(table.printed) if table.printed else []


def rows(job: PublishedJob) -> list[Line]:
    """Every row at every imbalance, rows in the order of the table.

    Raises:
        UserError: as `check` does.
    """
    table: Table = job.settings
    check(job.name, table)
    numbers = [line for line in _printed(table) if line.dataset == job.dataset]
    imbalances = {cell.imbalance_words: cell.ratio for cell in job.cells}
    if not imbalances:  # no row is built yet
        imbalances = {f"ratio {line.ratio:g}": line.ratio for line in numbers}
    result = []
    for row in table.rows:
        own = [
            line for line in numbers if row.printed and (line.section, line.label) == (row.section, row.label)
        ]
        for imbalance, ratio in imbalances.items():
            cells = [
                cell for cell in job.cells if (cell.method, cell.imbalance_words) == (row.method, imbalance)
            ]
            result.append(
                Line(
                    row=row,
                    imbalance=imbalance,
                    ours=_ours(job, cells) if cells else None,
                    printed={line.quantity: line for line in own if line.ratio == ratio},
                )
            )
    return result


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
        selected=str(_said(cells[0], "selects")),
        whole=_said(cells[0], "reads") == "whole",
        recipe=job.recipes[job.methods[cells[0].method]["stage_one"]],
        cells=tuple(cells),
    )


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


def _fact(cell: Cell, step: str, what: str) -> str:
    return cell.package(step, "torch") if what == "torch version" else cell.fact(step, what)


def difference(line: Line) -> float | None:
    """Ours minus printed, in points; None where one of them is missing."""
    value = line.printed["accuracy"].value if "accuracy" in line.printed else None
    return None if value is None or line.ours is None else line.ours.accuracy.mean - value


def length(recipe: Recipe) -> str:
    """How long stage one trains, e.g. `200 epochs`; phases one after another as `200 epochs + 30 epochs`."""
    schedules = [phase.schedule for phase in recipe.phases]
    return " + ".join(
        f"{schedule.epochs} epochs" if schedule.epochs else f"{schedule.iterations} iterations"
        for schedule in schedules
    )


def augmentation(recipe: Recipe) -> str:
    """What happens to a training image, e.g. `crop 4 + flip + AutoAugment + Cutout 16`."""
    settings = recipe.augmentation
    steps = {
        f"crop {settings.crop}": settings.crop,
        "flip": settings.flip,
        "AutoAugment": settings.autoaugment != "none",
        f"Cutout {settings.cutout}": settings.cutout,
        **{transform.name: True for phase in recipe.phases for transform in phase.transforms or []},
    }
    return " + ".join(step for step, on in steps.items() if on) or "none"


# --- the tidy table ---------------------------------------------------------------------------------------


def tidy(lines: Sequence[Line], validation: str) -> str:
    """The table as CSV, a line a row and imbalance; accuracies and errors in percent, two decimals.

    Where the paper prints accuracies by group, columns with these stand at the end; where a classifier
    learnt from the complete training set, a column that says so of each row.
    """
    by_group = [name for name in GROUPS if any(name in line.printed for line in lines)]
    records = [_record(line, validation) | _printed_groups(line, by_group) for line in lines]
    if any(line.ours and line.ours.whole for line in lines):
        for line, record in zip(lines, records, strict=True):
            data = COMPLETE if line.ours and line.ours.whole else "long-tailed training set"
            record["classifier_data"] = data if line.ours else ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _record(line: Line, validation: str) -> dict[str, str]:
    ours, accuracy = line.ours, line.printed.get("accuracy")
    return {
        "section": line.row.section,
        "method": line.row.label,
        "imbalance_ratio": line.imbalance.removeprefix("ratio "),
        "mean": _number(ours.accuracy.mean) if ours else "",
        "standard_deviation": _number(ours.accuracy.spread) if ours else "",
        "seeds": str(len(ours.cells)) if ours else "0",
        "printed": accuracy.text if accuracy and accuracy.value is not None else "",
        "difference": _number(difference(line)),
        "selection_split": _selection(ours, validation) if ours else "",
        **{name: _mean(ours.groups[name]) if ours else "" for name in GROUPS},
        "expected_calibration_error": _mean(ours.calibration_error) if ours else "",
        "augmentation": augmentation(ours.recipe) if ours else "",
        "stage_one_length": length(ours.recipe) if ours else "",
        "precision": " + ".join(ours.facts("precision")) if ours else "",
        "hardware": " + ".join(ours.facts("device")) if ours else "",
    }


def _printed_groups(line: Line, names: Iterable[str]) -> dict[str, str]:
    return {f"printed_{name}": line.printed[name].text if name in line.printed else "" for name in names}


def _selection(ours: Ours, validation: str) -> str:
    return f"{validation}: {ours.selected}" if ours.selected else "none"


def _number(value: float | None, decimals: int = 2) -> str:
    return "" if value is None else f"{round(value, decimals) + 0.0:.{decimals}f}"


def _mean(seeds: Seeds | None, decimals: int = 2) -> str:
    return NOT_APPLICABLE if seeds is None else _number(seeds.mean, decimals)


# --- the rendered tables ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column: what stands over it, and whether the numbers are a paper's."""

    imbalance: str
    quantity: str
    printed: bool


@dataclass(frozen=True)
class Block:
    """A part of the table with its own head.

    Attributes:
        spans: imbalances with the number of columns that they stand over.
        sections: (section, [(label, a text a column)]).
    """

    title: str
    columns: list[Column]
    spans: list[tuple[str, int]]
    sections: list[tuple[str, list[tuple[str, list[str]]]]]


def rendered(job: PublishedJob, lines: Sequence[Line]) -> dict[str, str]:
    """The table in the paper's layout, by suffix: md, tex (to be \\input), html (self-contained)."""
    blocks = [_block("Top-1 accuracy in percent", ("accuracy",), lines)]
    with_groups = [line for line in lines if line.ours or any(name in line.printed for name in GROUPS)]
    if with_groups:
        title = f"The same by training images a class: {', '.join(job.group_words().values())}"
        blocks.append(_block(title, GROUPS, with_groups))
    view = {
        "name": job.name,
        "caption": job.settings.caption,
        "dataset": job.dataset,
        "blocks": blocks,
        "notes": notes(job, lines),
        "warnings": warnings(lines),
    }
    return {
        suffix: _environment(escape).get_template(f"table.{suffix}").render(view).rstrip() + "\n"
        for suffix, escape in (("md", _escape_md), ("tex", _escape_tex), ("html", None))
    }


def _environment(escape: Callable[[str], str] | None) -> Environment:
    environment = Environment(
        loader=PackageLoader("longtail"),
        autoescape=escape is None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # delimiters that LaTeX leaves alone, for all three
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        finalize=None if escape is None else partial(_finalize, escape),
    )
    return environment


def _finalize(escape: Callable[[str], str], value: object) -> object:
    return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _block(title: str, quantities: Sequence[str], lines: Sequence[Line]) -> Block:
    imbalances = list(dict.fromkeys(line.imbalance for line in lines))
    columns = []
    for imbalance in imbalances:
        for quantity in quantities:
            columns.append(Column(imbalance, quantity, printed=False))
            if any(quantity in line.printed for line in lines):
                columns.append(Column(imbalance, quantity, printed=True))
    sections: dict[str, dict[str, list[Line]]] = {}
    for line in lines:
        sections.setdefault(line.row.section, {}).setdefault(line.row.label, []).append(line)
    return Block(
        title=title,
        columns=columns,
        spans=[(name, sum(column.imbalance == name for column in columns)) for name in imbalances],
        sections=[
            (section, [(label, [_text(own, column) for column in columns]) for label, own in labels.items()])
            for section, labels in sections.items()
        ],
    )


def _text(lines: Sequence[Line], column: Column) -> str:
    for line in lines:
        if line.imbalance == column.imbalance:
            if column.printed:
                return line.printed[column.quantity].text if column.quantity in line.printed else ""
            return _our_text(line.ours, column.quantity) if line.ours else ""
    return ""


def _our_text(ours: Ours, quantity: str) -> str:
    if quantity != "accuracy":
        return _mean(ours.groups[quantity], 1)
    spread = "" if ours.accuracy.spread is None else f" ± {_number(ours.accuracy.spread, 1)}"
    return f"{_number(ours.accuracy.mean, 1)}{spread} ({len(ours.accuracy.values)})"


def notes(job: PublishedJob, lines: Sequence[Line]) -> list[str]:
    """What a reader has to know to compare the numbers."""
    built = [(line.row.label, line.ours) for line in lines if line.ours]
    given = [number for line in lines for number in line.printed.values()]
    result = []
    if built:
        seeds = sorted({cell.seed for _, ours in built for cell in ours.cells})
        whole = dict.fromkeys(label for label, ours in built if ours.whole)
        chosen = _by_value((label, ours.selected) for label, ours in built if ours.selected)
        result += [
            "Ours: top-1 accuracy on the test set in percent, after the last epoch; mean ± sample standard "
            "deviation over seeds (number of seeds). No ± where there is one seed.",
            f"Seeds: {', '.join(str(seed) for seed in seeds)}.",
            f"Selection split: {job.validation}; it chose {chosen}; nothing in the other rows."
            if chosen
            else "Selection split: none; no row chose anything by validation images.",
            *(
                [
                    f"Not a long-tailed result: {', '.join(whole)} trained a classifier on the {COMPLETE}, "
                    "images that the imbalance left out included; the features did not see these."
                ]
                if whole
                else []
            ),
            f"Schedule of stage one: {_by_value((label, _schedule(ours.recipe)) for label, ours in built)}.",
            f"Augmentation: {_by_value((label, augmentation(ours.recipe)) for label, ours in built)}.",
            *_groups(job, lines),
            f"Hardware: {_by_value((label, ' + '.join(ours.facts('device'))) for label, ours in built)}; "
            f"precision {_by_value((label, ' + '.join(ours.facts('precision'))) for label, ours in built)}; "
            f"torch {_by_value((label, ' + '.join(ours.facts('torch version'))) for label, ours in built)}.",
        ]
    if given:
        sources = dict.fromkeys(number.source for number in given)
        result.append(
            f"Printed, in italics: {'; '.join(sources)}; - where the paper gives no number. "
            "The difference (in the CSV) is ours - printed; it compares methods only at the same schedule "
            "and augmentation."
        )
        shown = {line.row.label for line in lines if line.printed}
        own = [label for label in dict.fromkeys(label for label, _ in built) if label not in shown]
        if own:
            result.append(f"Not in the paper's table: {', '.join(own)}.")
    missing = list(dict.fromkeys(line.row.label for line in lines if line.row.method is None))
    if missing:
        result.append(f"Not run by us: {', '.join(missing)}.")
    return result


def _schedule(recipe: Recipe) -> str:
    return f"{length(recipe)} at batch size {recipe.batch_size}"


def _groups(job: PublishedJob, lines: Sequence[Line]) -> list[str]:
    numbers: dict[str, str] = {}
    for line in lines:
        if line.ours and line.imbalance not in numbers:
            groups = [job.group(count) for count in line.ours.cells[0].class_counts()]
            numbers[line.imbalance] = "/".join(str(groups.count(name)) for name in GROUPS)
    listed = ", ".join(f"{imbalance}: {number}" for imbalance, number in numbers.items())
    return [
        f"Groups by training images a class: {', '.join(job.group_words().values())}; "
        f"number of classes in each: {listed}. {NOT_APPLICABLE}: no class in the group."
    ]


def _by_value(items: Iterable[tuple[str, str]]) -> str:
    """`VALUE` where all labels share it, else `VALUE (LABEL, LABEL); VALUE (LABEL)`."""
    labels: dict[str, list[str]] = {}
    for label, value in items:
        known = labels.setdefault(value, [])
        if label not in known:
            known.append(label)
    if len(labels) == 1 and not any("," in value for value in labels):
        return next(iter(labels))
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in labels.items())


def warnings(lines: Sequence[Line]) -> list[str]:
    """One line for each of precision, device and torch version in which runs of one step differ."""
    cells = [cell for line in lines if line.ours for cell in line.ours.cells]
    result = []
    for what in SAME_IN_A_TABLE:
        for step in ("stage_one", "stage_two"):
            values = sorted({_fact(cell, step, what) for cell in cells})
            if len(values) > 1:
                where = step.replace("_", " ")
                result.append(f"The runs of this table differ in {what} ({where}): {', '.join(values)}.")
                break
    return result


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
}


def _escape_tex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_TEX.get(character, character) for character in text)


def _escape_md(text: str) -> str:
    """Text that Markdown prints as it is; `n/a` and numbers stay readable."""
    return "".join(f"\\{character}" if character in "\\`*_|<>[]" else character for character in text)
