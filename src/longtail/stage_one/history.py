"""history.csv: a row an epoch, those of the phases before a run's own first."""

import csv
from pathlib import Path

from longtail.stage_one.phase import HistoryRow


def write_history(path: Path, history: list[HistoryRow]) -> None:
    """The rows as CSV; every float so that it reads back as itself, an empty cell where a row has none."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def read_history(path: Path) -> list[HistoryRow]:
    """The rows as they were written: names of phases are words, everything else numbers."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: cell if name == "phase" else _number(cell) for name, cell in row.items() if cell}
            for row in csv.DictReader(file)
        ]


def _number(cell: str) -> int | float:
    """A cell of history.csv as the number that was written."""
    return int(cell) if cell.lstrip("-").isdigit() else float(cell)
