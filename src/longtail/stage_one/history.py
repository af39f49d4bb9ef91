"""history.csv: a row an epoch, those of the phases before a run's own first."""

from pathlib import Path

import pandas as pd

from longtail.stage_one.phase import HistoryRow


def write_history(path: Path, history: list[HistoryRow]) -> None:
    """The rows as CSV; every float so that it reads back as itself, an empty cell where a row has none."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    rows = [[row.get(name, "") for name in columns] for row in history]
    # each number as itself: a column with empty cells would make floats of integers
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    table.to_csv(path, index=False, na_rep="nan", lineterminator="\n")


def read_history(path: Path) -> list[HistoryRow]:
    """The rows as they were written: names of phases are words, everything else numbers."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    return [
        {str(name): cell if name == "phase" else _number(cell) for name, cell in row.items() if cell}
        for row in rows
    ]


def _number(cell: str) -> int | float:
    """A cell of history.csv as the number that was written."""
    return int(cell) if cell.lstrip("-").isdigit() else float(cell)
