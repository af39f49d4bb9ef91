"""Models to take home, by the workflow: of a method, or of a table's best one by validation images.

Test images choose nothing. Which method it was, and by what, stands in choice.csv beside the model.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from longtail.errors import UserError
from longtail.export.write import write_model
from longtail.publish.job import Cell
from longtail.publish.selection import SCORE, at_first_place, best, scores
from longtail.runs.lookup import complete
from longtail.settings.published import Groups


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
    shown = at_first_place(cells)
    found = scores(methods, shown)
    chosen = best(found) if len(found) > 1 else methods[0]
    if not chosen:
        raise UserError(f"models.{name}: no method has an accuracy on validation images; name a method")
    choice = found.reset_index().assign(chosen=["yes" if method == chosen else "" for method in methods])
    choice.to_csv(folder / "choice.csv", index=False, float_format="%.4f", lineterminator="\n")
    if len(found) > 1:
        score = float(found[SCORE].max())
        number = found[SCORE].count()
        said = f"{chosen}, the best of {number} by validation images ({score:.1%}, mean of classes)"
        if len(blind := found.index[found[SCORE].isna()]):
            said += f"; left out, as these cannot judge it: {', '.join(blind)}"
        print(f"models/{name}: {said}", file=sys.stderr, flush=True)
    cell = next(cell for cell in shown if cell.method == chosen)
    write_model(complete(cell.runs["stage_two"]), folder, groups, licence)
