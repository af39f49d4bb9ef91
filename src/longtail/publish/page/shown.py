"""What stands in a cell of the page's tables: a text, and the number by which its column is sorted."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from longtail.publish.tables.words import number


@dataclass(frozen=True)
class Shown:
    """A text and its sorting key; None sorts behind everything else."""

    text: str
    key: float | None = None


EMPTY = Shown("")


def named_rows(frame: pd.DataFrame) -> list[Any]:
    """The rows of a frame as tuples with the columns' names; of any types, which no checker can tell."""
    return list(frame.itertuples(index=False))


def percent(value: float | None, decimals: int = 1) -> Shown:
    """A number that is in percent already."""
    return EMPTY if value is None or pd.isna(value) else Shown(number(value, decimals), float(value))


def share(value: float | None) -> Shown:
    """A share in [0, 1], in percent."""
    return EMPTY if value is None or pd.isna(value) else percent(100 * value)


def count(value: int) -> Shown:
    """A number of things."""
    return Shown(f"{value:,}", float(value))


def signed(points: float) -> str:
    """A difference, with its sign."""
    text = number(points, 1)
    return f"+{text}" if float(text) > 0 else text.replace("-", "\N{MINUS SIGN}")


def bounds(low: float, high: float) -> str:
    """An interval of differences."""
    return f"[{signed(low)}, {signed(high)}]"
