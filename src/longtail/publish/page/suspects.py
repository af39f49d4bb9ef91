"""Pictures whose labels a check suspects, and near-duplicates, out of the CSV files that it writes."""

from collections import Counter
from pathlib import Path
from typing import Any

from longtail.errors import UserError
from longtail.publish.check_files import read
from longtail.publish.page.pictures import Gallery
from longtail.publish.page.shown import share

ISSUES = 24  # pictures that are shown
OF_A_CLASS = 4  # of them
GROUPS, ALIKE = 8, 4  # near-duplicates that are shown: groups, and pictures of one


def label_issues(file: Path, gallery: Gallery) -> dict[str, Any] | None:
    """The most suspect labels, a few of a class at most; None where no check was made.

    Args:
        file: label_issues.csv: file, class (the given one), suggested (the more likely one) and
            self_confidence, the probability in [0, 1] that a model which has not seen the picture gives to
            the given class.

    Raises:
        UserError: if the file has other columns, or a probability that is none.
    """
    columns = ("file", "class", "suggested", "self_confidence")
    rows = read(file, columns)
    if rows is None:
        return None
    known = sorted((_probability(file, row["self_confidence"]), row["file"], row) for row in rows)
    taken: Counter[str] = Counter()
    shown: list[dict[str, Any]] = []
    for confidence, path, row in known:
        taken[row["class"]] += 1
        if taken[row["class"]] <= OF_A_CLASS and len(shown) < ISSUES:
            shown.append(
                {
                    "file": path,
                    "given": row["class"],
                    "suggested": row["suggested"],
                    "confidence": share(confidence),
                    "image": gallery.of_path(path),
                }
            )
    return {"file": str(file), "number": len(rows), "shown": shown, "left": len(rows) - len(shown)}


def near_duplicates(file: Path, gallery: Gallery) -> dict[str, Any] | None:
    """Groups of pictures that are nearly the same, in the file's order; None without a check.

    Args:
        file: near_duplicates.csv, a row a picture: group (its number), crosses (in several of what the group
            stands: parts, classes, both or nothing), file, part, class.

    Raises:
        UserError: if the file has other columns.
    """
    rows = read(file, ("group", "crosses", "file", "part", "class"))
    if rows is None:
        return None
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    crossing = [members[0]["crosses"] for members in groups.values()]
    shown = [
        {
            "crosses": members[0]["crosses"],
            "pictures": [
                {**row, "image": gallery.of_path(row["file"]), "label": row["class"]}
                for row in members[:ALIKE]
            ],
            "left": max(0, len(members) - ALIKE),
        }
        for members in list(groups.values())[:GROUPS]
    ]
    return {
        "file": str(file),
        "number": len(groups),
        "parts": sum("parts" in words for words in crossing),
        "classes": sum("classes" in words for words in crossing),
        "shown": shown,
        "left": len(groups) - len(shown),
    }


def _probability(file: Path, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"{file}: self_confidence {text!r} is no probability between 0 and 1")
    return value
