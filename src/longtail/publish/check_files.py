"""The CSV files that a check of pictures writes, as pages read them."""

import csv
from pathlib import Path

from longtail.errors import UserError

AGAIN = "delete it, or check the pictures again"


def read(file: Path, columns: tuple[str, ...]) -> list[dict[str, str]] | None:
    """The rows of a file, whatever bytes names of pictures have; None where there is none.

    Raises:
        UserError: if it is not a CSV file, or a column is missing.
    """
    try:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            reader = csv.DictReader(lines, restval="")
            heads = reader.fieldnames or []
            rows = [{name: row[name] for name in heads} for row in reader]
    except FileNotFoundError:
        return None
    except csv.Error as error:
        raise UserError(f"{file}: is not a CSV file ({error}); {AGAIN}") from None
    if absent := [name for name in columns if name not in heads]:
        raise UserError(f"{file}: has no column {absent[0]}, needs {', '.join(columns)}; {AGAIN}")
    return rows
