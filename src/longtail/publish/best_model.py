"""Models to take home, by the workflow: of a method, or of a table's best one by validation images.

Test images choose nothing. Which method it was, and by what, stands in choice.csv beside the model.
"""

import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from longtail.errors import UserError
from longtail.export.write import write_model
from longtail.publish.job import Cell
from longtail.runs.lookup import complete
from longtail.settings.published import Groups


def compute(name: str, methods: Sequence[str], cells: Sequence[Cell], folder: Path, groups: Groups) -> None:
    """Export the first run of the method with the best validation score.

    Args:
        name: of the model, for what is said.
        methods: to choose among, in the order of their table.
        cells: theirs, with finished runs.
        folder: where the four files of an exported model go, and choice.csv.
        groups: where many ends and few begins, for the model card.

    Raises:
        UserError: if there is more than one method, and no validation score to choose by.
    """
    own = {method: [cell for cell in cells if cell.method == method] for method in methods}
    first = cells[0]
    own = {
        method: [c for c in found if (c.imbalance, c.subset_seed) == (first.imbalance, first.subset_seed)]
        for method, found in own.items()
    }
    scores = {method: mean(_score(cell) for cell in found) for method, found in own.items()}
    if len(scores) > 1 and (blind := [method for method, score in scores.items() if math.isnan(score)]):
        raise UserError(
            f"models.{name}: {blind[0]} has no accuracy on validation images to be chosen by; name a method"
        )
    best = max(scores, key=lambda method: scores[method]) if len(scores) > 1 else next(iter(scores))
    cell = own[best][0]
    with (folder / "choice.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "validation_mean_class_accuracy", "seeds", "chosen"])
        for method, score in scores.items():
            shown = "" if math.isnan(score) else f"{score:.4f}"
            writer.writerow([method, shown, len(own[method]), "yes" if method == best else ""])
    if len(scores) > 1:
        said = f"{best}, the best of {len(scores)} by validation images ({scores[best]:.1%}, mean of classes)"
        print(f"models/{name}: {said}", file=sys.stderr, flush=True)
    write_model(complete(cell.runs["stage_two"]), folder, groups)


def _score(cell: Cell) -> float:
    """Mean class accuracy on validation images; nan without any."""
    measured = json.loads((cell.runs["stage_two"] / "metrics.json").read_text("utf-8"))
    return float(measured.get("validation", {}).get("selection_accuracy", math.nan))
