"""data_problems.html: near-duplicates and likely wrong labels with thumbnails, one file."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from longtail.data.lists import some
from longtail.data.manifest import file_of
from longtail.errors import UserError, shown
from longtail.publish.check_files import AGAIN, read
from longtail.publish.label_issues import LabelIssues
from longtail.publish.thumbnails import small, written
from longtail.rendering import environment
from longtail.runs.store import write_text

FILE = "data_problems.html"
NEAR_FILE = "near_duplicates.csv"
NEAR_COLUMNS = ("group", "crosses", "file", "part", "class", "bits", "width", "height", "same_content")
GROUPS, MEMBERS = 24, 8  # groups of near-duplicates that are shown of a kind, and pictures of a group
SUSPECTS, ALL_SUSPECTS = 8, 240  # suspects that are shown of a class, and in all
THUMBNAIL = (160, 120)  # pixels, at most
# What a group crosses, as near_duplicates.csv says it, and the heading over such groups, worst first.
HEADINGS = {
    "parts and classes": "In two parts and in two classes",
    "parts": "In two parts: what is trained on is tested",
    "classes": "In two classes: one of the labels may be wrong",
    "": "In one class of one part",
}


def near_file(dataset: str) -> Path:
    """Where a check of a dataset writes its near-duplicates."""
    return file_of(dataset).with_name(NEAR_FILE)


def write(dataset: str, root: Path | None, issues: LabelIssues | None, folder: Path) -> None:
    """Write the page.

    Args:
        dataset: its name; its near-duplicates are those of the last check.
        root: folder of the picture files; None where there is none on this machine.
        issues: likely wrong labels; None where they were not looked for.
        folder: where the page goes.

    Raises:
        UserError: if the near-duplicates are not what a check writes.
    """
    near = read(near_file(dataset), NEAR_COLUMNS)
    for row in near or []:
        if not row["same_content"] and not re.fullmatch("[0-9]{1,4}", row["bits"]):
            wrong = f"bits {shown(row['bits'])} is no whole number"
            raise UserError(f"{near_file(dataset)}: {wrong}; {AGAIN}")
    view = {
        "dataset": _printable(dataset),
        "near": None if near is None else _near_view(near, root),
        "issues": None if issues is None else _issues_view(issues, root),
        "without": root is None,
    }
    page = environment("publish/pages", escaping=True).get_template(FILE).render(view)
    write_text(folder / FILE, page.rstrip() + "\n")


def _near_view(rows: Sequence[Mapping[str, str]], root: Path | None) -> dict[str, Any]:
    groups = [list(own) for _, own in groupby(rows, key=lambda row: row["group"])]
    kinds = []
    for crosses, heading in HEADINGS.items():
        if not (own := [group for group in groups if group[0]["crosses"] == crosses]):
            continue
        shown = [
            {
                "number": group[0]["group"],
                "pictures": [_near_picture(row, root) for row in group[:MEMBERS]],
                "left": len(group) - MEMBERS if len(group) > MEMBERS else 0,
            }
            for group in own[:GROUPS]
        ]
        left = some(len(own) - GROUPS, "group") if len(own) > GROUPS else ""
        kinds.append({"heading": heading, "number": some(len(own), "group"), "groups": shown, "left": left})
    return {"groups": some(len(groups), "group"), "pictures": some(len(rows), "picture"), "kinds": kinds}


def _near_picture(row: Mapping[str, str], root: Path | None) -> dict[str, str]:
    bits = "same content" if row["same_content"] else f"{some(int(row['bits']), 'bit')} from its nearest"
    lines = [f"{row['class']}, {row['part']}", f"{row['width']} x {row['height']}", bits]
    return _picture(row["file"], row["class"], lines, root)


def _issues_view(issues: LabelIssues, root: Path | None) -> dict[str, Any]:
    by_class = dict(list(issues.suspects.groupby("class", sort=False)))
    counted = [row for row in issues.classes.to_dict("records") if row["suspects"] or row["note"]]
    shown = []
    room = ALL_SUSPECTS
    for row in sorted(counted, key=lambda row: -row["suspects"]):
        own = by_class.get(row["class"])
        pictures = [] if own is None else list(_suspects(own.to_dict("records")[: min(SUSPECTS, room)], root))
        room -= len(pictures)
        shown.append(
            {
                "name": _printable(str(row["class"])),
                "number": f"{some(row['suspects'], 'suspect')} of {some(row['pictures'], 'picture')}",
                "note": row["note"],
                "pictures": pictures,
                "left": row["suspects"] - len(pictures),
            }
        )
    return {
        "suspects": some(len(issues.suspects), "picture"),
        "classes": shown,
        "judged": f"{issues.judged:,} of {some(len(issues.classes), 'class')}",
    }


def _suspects(rows: Sequence[Mapping[Any, Any]], root: Path | None) -> Iterator[dict[str, str]]:
    for row in rows:
        file = row["file"] or f"{row['part']} image {row['sample']}"
        lines = [
            f"rather {row['suggested']}?",
            f"{row['class']} {row['self_confidence']:.0%}",
            f"{row['suggested']} {row['suggested_confidence']:.0%}",
            row["part"],
        ]
        yield _picture(file, row["class"], lines, root if row["file"] else None)


def _picture(file: str, label: str, lines: Sequence[str], root: Path | None) -> dict[str, Any]:
    return {
        "file": _printable(file),
        "alt": _printable(f"{file}, labelled {label}"),
        "lines": [_printable(line) for line in lines],
        "image": _image(root, file),
    }


def _printable(text: str) -> str:
    """Text of one line that a page can hold, whatever a file is called."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _image(root: Path | None, file: str) -> str:
    """A thumbnail; "" where the file is not here or cannot be read."""
    found = None if root is None else small(root / file, *THUMBNAIL)
    return "" if found is None else written(found)
