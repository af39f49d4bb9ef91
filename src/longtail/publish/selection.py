"""Which method of a table is the best one by validation images. Test images choose nothing."""

import math
from collections.abc import Sequence
from statistics import mean

import pandas as pd

from longtail.publish.job import Cell

SCORE = "validation_mean_class_accuracy"


def at_first_place(cells: Sequence[Cell]) -> list[Cell]:
    """The cells at the first imbalance, on its first subset: where a table's best one is chosen."""
    place = (cells[0].imbalance, cells[0].subset_seed)
    return [cell for cell in cells if (cell.imbalance, cell.subset_seed) == place]


def scores(methods: Sequence[str], cells: Sequence[Cell]) -> pd.DataFrame:
    """What validation images say of each method, in the order given.

    Returns:
        A row a method: SCORE, the mean over its runs of the classes' mean accuracy on validation images, a
        share; nan where a run has none. seeds: the number of its runs.
    """
    runs = pd.DataFrame({"method": [cell.method for cell in cells], SCORE: [_score(cell) for cell in cells]})
    of_method = runs.groupby("method")[SCORE]
    return pd.DataFrame({SCORE: of_method.agg(mean), "seeds": of_method.size()}).reindex(list(methods))


def best(found: pd.DataFrame) -> str:
    """The method with the highest score, of equals the first; "" where none has one."""
    return "" if found[SCORE].isna().all() else str(found[SCORE].idxmax())


def _score(cell: Cell) -> float:
    score = cell.validation()
    return math.nan if score is None else score
