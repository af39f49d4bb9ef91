"""The report of a check: report.md, tables that a person reads, and report.csv, a row a finding."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from longtail.data.held_out import validation_words
from longtail.data.lists import some
from longtail.data.manifest import Entry, write_table
from longtail.groups import group
from longtail.own_pictures.problems import KINDS, Finding
from longtail.rendering import environment
from longtail.runs.store import write_text
from longtail.settings.data import FileData, FolderData, ListData

if TYPE_CHECKING:
    from longtail.own_pictures.checked import Checked

COLUMNS = ("kind", "path", "part", "class", "what", "same_as")
ROWS = 20  # findings of a kind in report.md
CLASSES = 200  # classes in report.md; of more the largest and the smallest
MODES = {
    "RGB": "RGB",
    "L": "grey",
    "1": "black and white",
    "LA": "grey with alpha",
    "La": "grey with alpha",
    "RGBA": "RGB with alpha",
    "RGBa": "RGB with alpha",
    "RGBX": "RGB",
    "P": "palette",
    "PA": "palette with alpha",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
    "LAB": "Lab",
    "HSV": "HSV",
    "I": "32 bits",
    "F": "floating point",
}


def write(checked: "Checked", folder: Path) -> None:
    """Write report.md and report.csv into a folder that is there."""
    rows = [
        (one.kind, one.path, one.part, one.label, one.what, one.same_as or "") for one in checked.findings
    ]
    write_table(folder / "report.csv", COLUMNS, rows)
    text = environment("own_pictures/templates").get_template("report.md").render(_view(checked))
    write_text(folder / "report.md", text.rstrip() + "\n")


def _cells(row: Iterable[str]) -> list[str]:
    return [_escaped(text) for text in row]


def _escaped(text: str) -> str:
    """Text of one line that Markdown prints as it is; names may hold anything."""
    text = text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text.replace("<", "&lt;").replace("|", "\\|")


def _view(checked: "Checked") -> dict[str, Any]:
    counts = Counter(one.kind for one in checked.findings)
    kinds = []
    for kind, (what, advice) in KINDS.items():
        if not counts[kind]:
            continue
        own = [one for one in checked.findings if one.kind == kind]
        kinds.append(
            {
                "number": f"{counts[kind]:,}",
                "what": what,
                "title": what[0].upper() + what[1:],
                "advice": advice,
                **_table(own),
                "left": f"{len(own) - ROWS:,}" if len(own) > ROWS else "",
            }
        )
    return {
        "dataset": checked.dataset,
        "totals": [_cells(row) for row in _totals(checked)],
        "kinds": kinds,
        **_classes(checked),
    }


def _table(findings: Sequence[Finding]) -> dict[str, Any]:
    """Only the columns that say something."""
    columns = {
        "set": [str(one.same_as or "") for one in findings],
        "path": [one.path for one in findings],
        "part": [one.part for one in findings],
        "class": [one.label for one in findings],
        "what": [one.what for one in findings],
    }
    shown = {head: texts for head, texts in columns.items() if any(texts)}
    rows = zip(*(texts[:ROWS] for texts in shown.values()), strict=True)
    return {"heads": list(shown), "rows": [_cells(row) for row in rows]}


def _totals(checked: "Checked") -> list[tuple[str, str]]:
    data = checked.demands.data
    where = {path for rows in checked.parts.values() for path, _ in rows}
    used = [entry for entry in checked.entries if entry.path in where and entry.path not in checked.broken]
    parts = ", ".join(f"{part} {len(rows):,}" for part, rows in checked.parts.items())
    rows = [
        ("pictures", f"{sum(map(len, checked.parts.values())):,} ({parts}); usable {len(used):,}"),
        ("classes", f"{len({name for _, name in checked.parts['train']}):,}"),
        ("from", _source(data)),
        ("bytes", f"{sum(entry.bytes for entry in checked.entries) / 1e6:,.1f} million"),
    ]
    if used:
        widths, heights = [entry.width for entry in used], [entry.height for entry in used]
        shorter = sorted(min(entry.width, entry.height) for entry in used)
        rows += [
            ("size", f"median {median(widths):g} x {median(heights):g} pixels (width x height)"),
            ("shorter side", f"{shorter[0]:,} to {shorter[-1]:,} pixels, median {median(shorter):g}"),
            ("formats", _counted(entry.format for entry in used)),
            ("colours", _counted(mode_words(entry) for entry in used) + _fine(used)),
        ]
    return rows


def _source(data: FileData) -> str:
    if isinstance(data, FolderData):
        return f"folders of {data.root}; a class is " + (
            "a folder of the first level" if data.classes == "top" else "every folder that holds pictures"
        )
    return f"{'lists' if isinstance(data, ListData) else 'a table'}, pictures below {data.root}"


def _fine(used: Sequence[Entry]) -> str:
    return (
        "; all are read as RGB or grey, as data.images.channels says"
        if any(e.mode != "RGB" for e in used)
        else ""
    )


def mode_words(entry: Entry) -> str:
    """A mode as a reader is told it, e.g. `grey`, `grey, 16 bits`."""
    name, _, bits = entry.mode.partition(";")
    if bits.startswith("16"):
        return f"{'grey' if name in ('I', 'L') else MODES.get(name, name)}, 16 bits"
    return MODES.get(entry.mode, entry.mode)


def _counted(words: Any) -> str:
    return ", ".join(f"{word} {number:,}" for word, number in Counter(words).most_common())


def _classes(checked: "Checked") -> dict[str, Any]:
    demands = checked.demands
    held = None if "test" in checked.parts else demands.data.held_out
    all_of = Counter(name for _, name in checked.parts["train"])
    usable = Counter(name for path, name in checked.parts["train"] if path not in checked.broken)
    others = [part for part in checked.parts if part != "train"]
    counts = {part: Counter(name for _, name in checked.parts[part]) for part in others}
    heads = ["pictures", *(["usable"] if all_of != usable else []), *(["test"] if held else []), *others]
    heads += ["to train on", "group"] if demands.natural else []
    rows = []
    counted = checked.held_and_left()
    for name in sorted(all_of, key=lambda name: (-all_of[name], name)):
        out, left = counted[name]
        row = [name, f"{all_of[name]:,}"]
        row += [f"{usable[name]:,}"] if all_of != usable else []
        row += [f"{out:,}"] if held else []
        row += [f"{counts[part][name]:,}" for part in others]
        row += (
            [f"{left:,}", group(left, demands.groups.many_above, demands.groups.few_below)]
            if demands.natural
            else []
        )
        rows.append(_cells(row))
    cut = len(rows) > CLASSES
    return {
        "class_heads": heads,
        "classes": rows[: CLASSES // 2] + rows[-CLASSES // 2 :] if cut else rows,
        "classes_left": f"{len(rows) - CLASSES:,}" if cut else "",
        "class_note": "Largest first. "
        + (
            f"To train on is what is left after the test images and {validation_words(demands.validation)}."
            if demands.natural
            else f"{some(len(rows), 'class')}; how many are trained on, imbalance decides."
        ),
    }
