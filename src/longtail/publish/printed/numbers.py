"""The numbers that papers print, kept apart from ours: a CSV file a table, each number with its source.

Columns: section, label, dataset, imbalance_ratio, quantity, printed, source. `quantity` is accuracy,
many, medium or few (top-1, percent), or linear (top-1 of a linear classifier that was retrained on the
whole, balanced training set over frozen features). `printed` is the text of the paper; `-` is the
paper's own mark for a number that it does not give. No imbalance_ratio is a dataset that is as it is (profile
natural). GLAG's tables 3 and 4 are lost: what stands under their names is what others print of the same
datasets, each with its own source, and nothing of GLAG's; so does places_lt, a table that GLAG has not, and
imagenet_lt_samplers, which is Decoupling's.
"""

import csv  # planning reads these numbers: pandas alone takes half a second to import
from dataclasses import dataclass
from pathlib import Path

from longtail.errors import UserError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Printed:
    """One number of a paper's table.

    Attributes:
        ratio: largest class / smallest class; None where the dataset is as it is.
        quantity: accuracy, many, medium, few or linear.
        text: the number as the paper prints it, in percent; `-` where the paper gives none.
        source: paper, table, arXiv id.
    """

    section: str
    label: str
    dataset: str
    ratio: float | None
    quantity: str
    text: str
    source: str

    @property
    def value(self) -> float | None:
        """The number in percent, None where the paper gives none."""
        return None if self.text == "-" else float(self.text)


def names() -> list[str]:
    """The tables whose printed numbers are here."""
    return sorted(file.stem for file in FOLDER.glob("*.csv"))


def read(name: str) -> list[Printed]:
    """The printed numbers of a table, in the paper's order.

    Raises:
        UserError: if there is no such table.
    """
    file = FOLDER / f"{name}.csv"
    if name not in names():
        raise UserError(f"printed: there is no {name!r}; there are {', '.join(names())}")
    with file.open(newline="", encoding="utf-8") as lines:
        return [
            Printed(
                section=line["section"],
                label=line["label"],
                dataset=line["dataset"],
                ratio=float(line["imbalance_ratio"]) if line["imbalance_ratio"] else None,
                quantity=line["quantity"],
                text=line["printed"],
                source=line["source"],
            )
            for line in csv.DictReader(lines)
        ]
