"""Models to take home, by the workflow: of a method, or of a table's best one by validation images.

Test images choose nothing. Which method it was, and by what, stands in choice.csv beside the model.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import pandas as pd

from longtail.errors import UserError
from longtail.export.write import write_model
from longtail.publish.job import Cell
from longtail.runs.lookup import complete
from longtail.settings.published import Groups

SCORE = "validation_mean_class_accuracy"


def compute(
    name: str,
    methods: Sequence[str],
    cells: Sequence[Cell],
    folder: Path,
    groups: Groups,
    licence: str | None = None,
) -> None:
    """Export the first run of the method with the best validation score.

    Args:
        name: of the model, for what is said.
        methods: to choose among, in the order of their table.
        cells: theirs, with finished runs.
        folder: where the four files of an exported model go, and choice.csv.
        groups: where many ends and few begins, for the model card.
        licence: of the model, for the same.

    Raises:
        UserError: if there is more than one method, and no validation score to choose by.
    """
    place = (cells[0].imbalance, cells[0].subset_seed)
    shown = [cell for cell in cells if (cell.imbalance, cell.subset_seed) == place]
    runs = pd.DataFrame({"method": [cell.method for cell in shown], SCORE: [_score(cell) for cell in shown]})
    of_method = runs.groupby("method")[SCORE]
    scores = pd.DataFrame({SCORE: of_method.agg(mean), "seeds": of_method.size()}).reindex(list(methods))
    if len(scores) > 1 and len(blind := scores.index[scores[SCORE].isna()]):
        raise UserError(
            f"models.{name}: {blind[0]} has no accuracy on validation images to be chosen by; name a method"
        )
    best = str(scores[SCORE].idxmax()) if len(scores) > 1 else methods[0]  # of equals the first
    choice = scores.reset_index().assign(chosen=["yes" if method == best else "" for method in methods])
    choice.to_csv(folder / "choice.csv", index=False, float_format="%.4f", lineterminator="\n")
    if len(scores) > 1:
        score = float(scores[SCORE].max())
        said = f"{best}, the best of {len(scores)} by validation images ({score:.1%}, mean of classes)"
        print(f"models/{name}: {said}", file=sys.stderr, flush=True)
    cell = next(cell for cell in shown if cell.method == best)
    write_model(complete(cell.runs["stage_two"]), folder, groups, licence)


def _score(cell: Cell) -> float:
    """Mean class accuracy on validation images; nan without any."""
    measured = json.loads((cell.runs["stage_two"] / "metrics.json").read_text("utf-8"))
    return float(measured.get("validation", {}).get("selection_accuracy", math.nan))
