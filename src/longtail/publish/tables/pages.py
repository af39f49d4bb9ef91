"""Tables as pages: .md, .tex (to be read with \\input) and .html (self-contained), in the paper's layout."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from jinja2 import Environment
from markupsafe import Markup

from longtail.groups import GROUPS
from longtail.publish.bootstrap import RESAMPLES
from longtail.publish.job import Cell, PublishedJob
from longtail.publish.tables.frame import COMPLETE
from longtail.publish.tables.rows import Difference, TableRow, fact, main_quantity
from longtail.publish.tables.words import NOT_APPLICABLE, augmentation, length, number
from longtail.rendering import environment
from longtail.settings.published import Table
from longtail.settings.recipe import Recipe

SAME_IN_A_TABLE = ("precision", "device", "torch version")
HEADS = {"accuracy": "all", "linear": "linear on all data"}
VERSUS = "versus"  # the column of differences to the reference row


@dataclass(frozen=True)
class Column:
    """A column: what stands over it, and whether the numbers are a paper's."""

    imbalance: str
    quantity: str
    head: str
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


def rendered(job: PublishedJob, lines: Sequence[TableRow]) -> dict[str, str]:
    """The table in the paper's layout, by suffix: md, tex (to be \\input), html (self-contained)."""
    view = {
        "name": job.name,
        "caption": job.settings.caption,
        "dataset": job.dataset,
        "blocks": _blocks(job, lines),
        "notes": notes(job, lines),
        "warnings": warnings(lines),
    }
    return {
        suffix: _environment(escape).get_template(f"table.{suffix}").render(view).rstrip() + "\n"
        for suffix, escape in (("md", _escape_md), ("tex", _escape_tex), ("html", None))
    }


def _blocks(job: PublishedJob, lines: Sequence[TableRow]) -> list[Block]:
    table: Table = job.settings
    words = ", ".join(job.group_words().values())
    with_groups = [line for line in lines if line.ours or any(name in line.printed for name in GROUPS)]
    title = "Top-1 accuracy in percent"
    if table.columns is not None:
        by_group = any(name in table.columns for name in GROUPS)
        blocks = [_block(f"{title}; {words}" if by_group else title, table.columns, lines)]
    else:
        blocks = [_block(title, ("accuracy",), lines)]
        if with_groups:
            blocks.append(_block(f"The same by training images a class: {words}", GROUPS, with_groups))
    if compared := [line for line in lines if line.versus]:
        what = HEADS["linear"] if main_quantity(table) == "linear" else "accuracy"
        blocks.append(
            _block(f"Difference of {what} to {table.against} in points [95 % interval]", (VERSUS,), compared)
        )
    return blocks


def _environment(escape: Callable[[str], str] | None) -> Environment:
    pages = environment("publish/templates", escaping=escape is None)
    if escape is not None:
        pages.finalize = partial(_finalize, escape)
    return pages


def _finalize(escape: Callable[[str], str], value: object) -> object:
    return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _block(title: str, quantities: Sequence[str], lines: Sequence[TableRow]) -> Block:
    imbalances = list(dict.fromkeys(line.imbalance for line in lines))
    columns = []
    for imbalance in imbalances:
        for quantity in quantities:
            head = "ours" if len(quantities) == 1 else HEADS.get(quantity, quantity)
            columns.append(Column(imbalance, quantity, head, printed=False))
            if any(quantity in line.printed for line in lines):
                columns.append(Column(imbalance, quantity, head, printed=True))
    sections: dict[str, dict[str, list[TableRow]]] = {}
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


def _text(lines: Sequence[TableRow], column: Column) -> str:
    for line in lines:
        if line.imbalance == column.imbalance:
            if column.printed:
                return line.printed[column.quantity].text if column.quantity in line.printed else ""
            if column.quantity == VERSUS:
                return _versus_text(line.versus) if line.versus else ""
            return _our_text(line, column.quantity) if line.is_built(column.quantity) else ""
    return ""


def _versus_text(versus: Difference) -> str:
    return f"{_signed(versus.mean)} [{_signed(versus.low)}, {_signed(versus.high)}]"


def _signed(points: float) -> str:
    text = number(points, 1)
    return f"+{text}" if float(text) > 0 else text


def _our_text(line: TableRow, quantity: str) -> str:
    seeds = line.value(quantity)
    if seeds is None:
        return NOT_APPLICABLE
    spread = "" if seeds.spread is None else f" ± {number(seeds.spread, 1)}"
    runs = "" if quantity in (*GROUPS, "forgetting") else f" ({len(seeds.values)})"
    return f"{number(seeds.mean, 1)}{spread}{runs}"


def notes(job: PublishedJob, lines: Sequence[TableRow]) -> list[str]:
    """What a reader has to know to compare the numbers."""
    built = [(line.row.label, ours) for line in lines for ours in line.built]
    given = [number for line in lines for number in line.printed.values()]
    result = []
    if built:
        chosen = _by_value((label, ours.selected) for label, ours in built if ours.selected)
        result += [
            "Ours: top-1 accuracy on the test set in percent, after the last epoch; mean ± sample standard "
            "deviation over runs (number of runs). No ± where there is one run.",
            _runs([cell for _, ours in built for cell in ours.cells]),
            *_intervals(lines),
            f"Selection split: {job.validation}; it chose {chosen}; nothing in the other rows."
            if chosen
            else "Selection split: none; no row chose anything by validation images.",
            *_whole(lines),
            f"Schedule of stage one: {_by_value((label, _schedule(ours.recipe)) for label, ours in built)}.",
            f"Augmentation: {_by_value((label, augmentation(ours.recipe)) for label, ours in built)}.",
            *_groups(job, lines),
            *_forgetting(job.settings),
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
    absent = (line.row.label for line in lines if not (line.row.method or line.row.linear))
    if missing := list(dict.fromkeys(absent)):
        result.append(f"Not run by us: {', '.join(missing)}.")
    return [*result, *job.settings.notes]


def _runs(cells: Sequence[Cell]) -> str:
    seeds = sorted({cell.seed for cell in cells})
    subsets = sorted({cell.subset_seed for cell in cells})
    where = "each of the subsets" if len(subsets) > 1 else "the subset"
    return f"Runs: training {_seeds_words(seeds)} on {where} of {_seeds_words(subsets)}."


def _seeds_words(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _intervals(lines: Sequence[TableRow]) -> list[str]:
    over = dict.fromkeys(line.versus.over for line in lines if line.versus)
    return [
        f"Intervals: paired bootstrap over {'; '.join(over)} ({RESAMPLES} resamples, percentiles)"
        + (", on the narrow side with few seeds." if any("seeds" in words for words in over) else ".")
        for _ in range(bool(over))
    ]


def _whole(lines: Sequence[TableRow]) -> list[str]:
    """The rows, and the column, whose classifiers learnt from more than the long-tailed training set."""
    labels = dict.fromkeys(line.row.label for line in lines if line.ours and line.ours.whole)
    column = any(line.linear and line.linear.whole for line in lines)
    names = [*labels, *[f"the column {HEADS['linear']}"] * column]
    if not names:
        return []
    return [
        f"Not a long-tailed result: {', '.join(names)} trained a classifier on the {COMPLETE}, "
        "images that the imbalance left out included; the features did not see these."
    ]


def _schedule(recipe: Recipe) -> str:
    return f"{length(recipe)} at batch size {recipe.batch_size}"


def _groups(job: PublishedJob, lines: Sequence[TableRow]) -> list[str]:
    numbers: dict[str, str] = {}
    for line in lines:
        if line.built and line.imbalance not in numbers:
            groups = [job.group(count) for count in line.built[0].cells[0].class_counts()]
            numbers[line.imbalance] = "/".join(str(groups.count(name)) for name in GROUPS)
    listed = ", ".join(f"{imbalance}: {number}" for imbalance, number in numbers.items())
    return [
        f"Groups by training images a class: {', '.join(job.group_words().values())}; "
        f"number of classes in each: {listed}. {NOT_APPLICABLE}: no class in the group."
    ]


def _forgetting(table: Table) -> list[str]:
    if "forgetting" not in (table.columns or []):
        return []
    return [
        "Forgetting: accuracy on test images of the data-rich classes, told apart among these alone, after "
        "the first phase of stage one minus after the last, in points; negative where it rose. What they "
        f"lose to data-poor classes shows in {GROUPS[0]}. {NOT_APPLICABLE}: no two phases that tell."
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


def warnings(lines: Sequence[TableRow]) -> list[str]:
    """One line for each of precision, device and torch version in which runs of one step differ."""
    cells = [cell for line in lines for ours in line.built for cell in ours.cells]
    result = []
    for what in SAME_IN_A_TABLE:
        for step in ("stage_one", "stage_two"):
            values = sorted({fact(cell, step, what) for cell in cells})
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
