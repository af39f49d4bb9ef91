"""What is published: tables, figures, models, sweeps."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from longtail.groups import FEW_BELOW, MANY_ABOVE
from longtail.settings.base import Neutral, Settings
from longtail.settings.names import Line, Paragraph

LICENCE = r"^[a-z0-9][a-z0-9.+_-]{0,79}$"  # as model hubs name them


class MethodRow(Settings):
    """A method of the tables: a stage-one recipe and a stage-two classifier, by their names."""

    stage_one: str  # a recipe
    stage_two: str  # a classifier


class Groups(Settings):
    """Many, medium and few-shot classes by their number of training images."""

    # training images above which a class is many-shot
    many_above: int = Field(MANY_ABOVE, ge=0, le=1_000_000_000)
    # training images below which a class is few-shot
    few_below: int = Field(FEW_BELOW, ge=0, le=1_000_000_001)

    @model_validator(mode="after")
    def _in_order(self) -> "Groups":
        if self.few_below > self.many_above + 1:
            raise ValueError("few_below must not exceed many_above + 1, or a class would be few and many")
        return self


def _swept_key(value: Any) -> Any:
    if (
        not isinstance(value, str)
        or len(value) > 200
        or not re.fullmatch(r"stage_(one|two)(\.[a-z0-9_-]+)+", value)
    ):
        raise ValueError("a key of a grid begins with stage_one. or stage_two., e.g. stage_one.loss.gamma.b")
    return value


SweptKey = Annotated[str, BeforeValidator(_swept_key)]


class Row(Settings):
    """A row of a table: a method of ours, a printed row, or both."""

    section: Line  # the heading that rows share
    label: Line  # what the row is called
    method: str | None = None  # an entry of methods; null: nothing of ours
    linear: str | None = None  # the method whose accuracy is the column `linear`
    printed: bool = True  # whether the printed row of this label stands beside it
    values: dict[str, str] = Field({})  # columns of the CSV that tell the rows apart, e.g. of a sweep


PREVIOUS = "previous"  # of `against`: the row before
Column = Literal["accuracy", "many", "medium", "few", "linear", "forgetting", "validation"]


class Table(Settings):
    """A table as data: its rows and columns, and the printed numbers that stand beside ours."""

    caption: Paragraph  # over the table
    printed: str | None = None  # a file of src/longtail/printed
    # of imbalance.ratios; null: all
    ratios: list[Annotated[float, Field(ge=1)]] | None = Field(None, min_length=1)
    # what stands under each imbalance; null: accuracy, and the groups in a block of their own
    columns: list[Column] | None = Field(None, min_length=1)
    # label of the row to which the others' differences are given, in each section its own if it has one;
    # previous: each row's are given to the row before it, where no row has that label
    against: str | None = None
    notes: list[str] = Field([])  # what else stands under the table
    rows: list[Row] = Field(min_length=1, max_length=1000)  # in the order of the table

    @model_validator(mode="after")
    def _linear_has_a_column(self) -> "Table":
        for index, row in enumerate(self.rows):
            if row.linear is not None and not self.has_linear:
                raise ValueError(f"rows[{index}].linear needs the column linear, e.g. columns: [linear]")
        for name, items in (("ratios", self.ratios or []), ("columns", self.columns or [])):
            if len(set(items)) != len(items):
                raise ValueError(f"{name} {', '.join(map(str, items))} name one twice")
        return self

    @property
    def has_linear(self) -> bool:
        """Whether a column is for a second method a row, the linear classifier on the whole data."""
        return "linear" in (self.columns or [])

    @property
    def against_previous(self) -> bool:
        """Whether each row is compared with the row before it."""
        return self.against == PREVIOUS and all(row.label != PREVIOUS for row in self.rows)

    @property
    def methods(self) -> list[str]:
        """Every method that the table needs, once, in the order of its rows."""
        named = (name for row in self.rows for name in (row.method, row.linear))
        return list(dict.fromkeys(name for name in named if name is not None))

    def name_of(self, row: Row) -> str:
        """What a row is called where sections do not stand beside it: its label, if no other row has it."""
        alone = sum(other.label == row.label for other in self.rows) == 1
        return row.label if alone else f"{row.section}: {row.label}"

    def shows(self, ratio: float | None) -> bool:
        """Whether the table has columns for an imbalance."""
        return self.ratios is None or ratio in self.ratios


class Model(Settings):
    """A model to take home: that of a method, or of a table's best method by validation images."""

    table: str | None = None  # the best method of this table, by validation images
    method: str | None = None  # or this method
    # under which it is given away, as model hubs name licences, e.g. cc-by-4.0; null: the card names none
    license: Annotated[Annotated[str, Field(pattern=LICENCE)] | None, Neutral(None)] = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "Model":
        if (self.table is None) == (self.method is None):
            raise ValueError("needs table (its best method by validation images) or method, one of them")
        return self


class LabelIssuesBlock(Settings):
    """Likely wrong labels, by the features of a method; best those of a pretrained trunk left as it was."""

    method: str  # whose features are looked at


class Sweep(Settings):
    """A grid over keys of a method's entries (longtail.orchestration.sweeps)."""

    method: str  # whose entries are changed
    # values by key, e.g. stage_one.loss.gamma.b or stage_two.k: of the method's recipe or classifier
    grid: dict[SweptKey, Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)
    ratio: float | None = None  # null: 100 if it is there, else the first
    caption: Paragraph = ""  # over the table; empty: from the keys
