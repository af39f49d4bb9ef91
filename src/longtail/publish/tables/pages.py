"""Tables as pages: .md, .tex (to be read with \\input) and .html (self-contained), in the paper's layout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from longtail.groups import GROUPS
from longtail.publish.job import PublishedJob
from longtail.publish.tables.check import main_quantity
from longtail.publish.tables.differences import to_what
from longtail.publish.tables.notes import notes, warnings
from longtail.publish.tables.words import HEADS, NOT_APPLICABLE, number
from longtail.rendering import environment
from longtail.settings.published import Table

VERSUS = "versus"  # the column of differences to the reference row, or to the row before
ROW = ["section", "label"]
COLUMN = ["imbalance", "quantity", "printed"]


@dataclass(frozen=True)
class PageColumn:
    """A column: what stands over it, and whether the numbers are a paper's."""

    imbalance: str
    quantity: str
    printed: bool
    head: str


@dataclass(frozen=True)
class Block:
    """A part of the table with its own head.

    Attributes:
        spans: imbalances with the number of columns that they stand over.
        sections: (section, [(label, a text a column)]).
    """

    title: str
    columns: list[PageColumn]
    spans: list[tuple[str, int]]
    sections: list[tuple[str, list[tuple[str, list[str]]]]]


def rendered(job: PublishedJob, rows: pd.DataFrame, results: pd.DataFrame) -> dict[str, str]:
    """The table in the paper's layout, by suffix: md, tex (to be \\input), html (self-contained).

    Args:
        job: the table.
        rows: of it, as `table_rows` gives them.
        results: of its runs, as `shown_results` gives them.
    """
    view = {
        "name": job.name,
        "key": Markup(job.name),  # a label of LaTeX, in which an escaped underscore is an error
        "caption": job.settings.caption,
        "dataset": job.dataset,
        "blocks": _blocks(job, rows),
        "notes": notes(job, rows, results),
        "warnings": warnings(results),
    }
    return {
        suffix: _environment(escape).get_template(f"table.{suffix}").render(view).rstrip() + "\n"
        for suffix, escape in (("md", _escape_md), ("tex", _escape_tex), ("html", None))
    }


def _blocks(job: PublishedJob, rows: pd.DataFrame) -> list[Block]:
    table: Table = job.settings
    words = ", ".join(job.group_words().values())
    title = "Top-1 accuracy in percent"
    if table.columns is not None:
        by_group = any(name in table.columns for name in GROUPS)
        blocks = [_block(f"{title}; {words}" if by_group else title, table.columns, rows)]
    else:
        blocks = [_block(title, ("accuracy",), rows)]
        printed = rows[[f"printed_{name}" for name in GROUPS]].notna().any(axis=1)
        if len(with_groups := rows[rows["built"] | printed]):
            blocks.append(_block(f"The same by training images a class: {words}", GROUPS, with_groups))
    if len(compared := rows[rows["against"].notna()]):
        what = HEADS["linear"] if main_quantity(table) == "linear" else "accuracy"
        title = f"Difference of {what} to {to_what(table)} in points [95 % interval]"
        blocks.append(_block(title, (VERSUS,), compared))
    return blocks


def _block(title: str, quantities: Sequence[str], rows: pd.DataFrame) -> Block:
    """Rows of the table down, imbalances and in each the quantities across, ours and then the printed."""
    imbalances = rows["imbalance"].unique().tolist()
    columns = []
    for imbalance, quantity in product(imbalances, quantities):
        alone = len(quantities) == 1 and quantity != "validation"
        head = "ours" if alone else HEADS.get(quantity, quantity)
        columns.append(PageColumn(imbalance, quantity, printed=False, head=head))
        if quantity != VERSUS and rows[f"printed_{quantity}"].notna().any():
            columns.append(PageColumn(imbalance, quantity, printed=True, head=head))
    texts = pd.concat([_texts(rows, quantity) for quantity in quantities])
    wide = texts.pivot(index=ROW, columns=COLUMN, values="text")
    down = pd.MultiIndex.from_frame(rows[ROW].drop_duplicates())
    across = pd.MultiIndex.from_frame(pd.DataFrame(columns, columns=[*COLUMN, "head"])[COLUMN])
    wide = wide.reindex(index=down, columns=across).fillna("")
    return Block(
        title=title,
        columns=columns,
        spans=[(name, sum(column.imbalance == name for column in columns)) for name in imbalances],
        sections=[
            (str(section), [(label, texts) for (_, label), *texts in own.itertuples(name=None)])
            for section, own in wide.groupby("section", sort=False)
        ],
    )


def _texts(rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """What a page shows of a quantity, a row a text: section, label, imbalance, quantity, printed, text."""
    place = rows[[*ROW, "imbalance"]].assign(quantity=quantity)
    ours = place.assign(printed=False, text=_ours(rows, quantity))
    if quantity == VERSUS:
        return ours
    return pd.concat([ours, place.assign(printed=True, text=rows[f"printed_{quantity}"])])


def _ours(rows: pd.DataFrame, quantity: str) -> "pd.Series[str]":
    """Mean, spread and number of runs; n/a where the method is built and no run has the quantity."""
    if quantity == VERSUS:
        low, high = rows["low"].map(_signed), rows["high"].map(_signed)
        return rows[VERSUS].map(_signed) + " [" + low + ", " + high + "]"
    mean, spread, runs = (rows[f"{name}_{quantity}"] for name in ("mean", "spread", "runs"))
    text = mean.map(_point) + spread.map(lambda value: f" ± {_point(value)}").mask(spread.isna(), "")
    if quantity not in (*GROUPS, "forgetting", "validation"):
        text += runs.map(lambda value: f" ({value:.0f})")
    text = text.mask(runs.isna(), NOT_APPLICABLE)
    return text.where(rows["built_linear" if quantity == "linear" else "built"], "")


def _point(value: float) -> str:
    return number(value, 1)


def _signed(points: float) -> str:
    text = _point(points)
    return f"+{text}" if text and float(text) > 0 else text


def _environment(escape: Callable[[str], str] | None) -> Environment:
    pages = environment("publish/templates", escaping=escape is None)
    if escape is not None:
        pages.finalize = partial(_finalize, escape)
    return pages


def _finalize(escape: Callable[[str], str], value: object) -> object:
    return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value


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
