"""Published lists, CSV tables and folders as paths with classes and parts."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from longtail.data import manifest
from longtail.errors import UserError
from longtail.settings.data import CsvData, Files, FolderData, ListData

DRIVE = re.compile(r"[A-Za-z]:[\\/]")
PARTS = ("train", "validation", "test")


Named = list[tuple[str, str]]  # path and class name


def named(data: Files, entries: Iterable[manifest.Entry]) -> dict[str, Named]:
    """Every picture of each part with the name of its class, whether it can be used or not.

    Raises:
        UserError: if a list or the table cannot be read, or a folder of a part leaves the root.
    """
    if isinstance(data, FolderData):
        return _of_folders(data, entries)
    if isinstance(data, CsvData):
        return _of_table(data)
    classes, parts = of_lists(data)
    return {part: [(path, classes[label]) for path, label in rows] for part, rows in parts.items()}


def folders(data: FolderData) -> dict[str, str]:
    """The folder of each part that the dataset has, below the root; `.` is the root itself.

    Raises:
        UserError: if one leaves the root, or two are the same.
    """
    given = {"train": data.train, "validation": data.validation, "test": data.test}
    found: dict[str, str] = {}
    for part, folder in given.items():
        if folder is None:
            continue
        if not manifest.inside(folder):
            raise UserError(f"data.{part}: {folder!r} leaves data.root; name a folder below it")
        below = str(PurePosixPath(folder))
        if below in found.values():
            raise UserError(f"data.{part}: {folder!r} is another part's folder too; each has its own")
        found[part] = below
    return found


def _of_folders(data: FolderData, entries: Iterable[manifest.Entry]) -> dict[str, Named]:
    """A picture is of the part whose folder is nearest above it: train may hold the folder of test."""
    own = {part: PurePosixPath(folder).parts for part, folder in folders(data).items()}
    nearest = sorted(own.items(), key=lambda item: -len(item[1]))
    found: dict[str, Named] = {part: [] for part in own}
    for entry in entries:
        *above, _ = entry.path.split("/")
        for part, folder in nearest:
            depth = len(folder)
            if tuple(above[:depth]) == folder:
                if below := above[depth:]:  # a picture that lies beside the class folders is of no class
                    name = below[0] if data.classes == "top" else "/".join(below)
                    found[part].append((entry.path, name))
                break
    return found


def _of_table(data: CsvData) -> dict[str, Named]:
    found: dict[str, Named] = {"train": []}
    for number, row in _rows(data.file):
        where = f"{data.file}:{number}"
        part = row.get("part") or "train"
        if part not in PARTS:
            raise UserError(f"{where}: part {part!r} is none of {', '.join(PARTS)}")
        if not row["label"]:
            raise UserError(f"{where}: has no label")
        found.setdefault(part, []).append((_checked(row["path"], where), row["label"]))
    _told_apart(found, data.file)
    return found


def _rows(file: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with the numbers of their lines."""
    try:
        with Path(file).expanduser().open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            names = reader.fieldnames or []
            if not {"path", "label"} <= set(names):
                split = len(names) == 1 and next((mark for mark in ";\t|" if mark in names[0]), "")
                raise UserError(
                    f"{file}: needs the columns path and label (and part, if you like), not "
                    f"{', '.join(map(str, names))[:80] or 'none'}; "
                    + (f"part them by ',' instead of {split!r}" if split else "rename them in its first line")
                )
            for row in reader:
                if row.get(None):
                    more = "has more cells than the first line; quote those with commas"
                    raise UserError(f"{file}:{reader.line_num}: {more}")
                yield reader.line_num, {key: (row[key] or "").strip() for key in names}
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: is not a CSV file in UTF-8 ({error})") from None


def column(data: CsvData, name: str) -> dict[str, str]:
    """A column of a table by the paths of its pictures.

    Raises:
        UserError: if it has no such column.
    """
    found = {}
    for number, row in _rows(data.file):
        if name not in row:
            there = ", ".join(key for key in row if key not in ("path", "label", "part"))
            raise UserError(
                f"data.held_out.groups: {name}: {data.file} has no such column; "
                f"there are {there or 'none but path, label and part'}, and near_duplicates and folder go "
                "with any dataset"
            )
        found[_checked(row["path"], f"{data.file}:{number}")] = row[name]
    return found


def numbered(dataset: str, named: dict[str, Named]) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    """Class names, and the pictures of each part with the numbers of their classes."""
    classes = sorted({name for _, name in named["train"]})
    if strange := [name for name in classes if not _is_text(name)]:
        raise UserError(f"{dataset}: class {strange[0]!a}: its name is no UTF-8; rename its folder")
    numbers = {name: number for number, name in enumerate(classes)}
    if len(classes) < 2:
        raise UserError(
            f"{dataset}: has {some(len(classes), 'class')} with training pictures; at least two are needed"
        )
    for part, rows in named.items():
        if strange := sorted({name for _, name in rows if name not in numbers}):
            raise UserError(f"{dataset}: class {strange[0]} of the {part} pictures has no training picture")
    return classes, {part: [(path, numbers[name]) for path, name in rows] for part, rows in named.items()}


def _is_text(name: str) -> bool:
    """Whether a name can be written; a folder's may hold bytes that are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def of_lists(data: ListData) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    """Class names, and the pictures of each part of published lists with their labels."""
    lists = {"train": data.train, "validation": data.validation, "test": data.test}
    parts = {part: read_list(file) for part, file in lists.items() if file is not None}
    labels = {label for _, label in parts["train"]}
    classes = max(labels) + 1
    if gaps := sorted(set(range(classes)) - labels):
        raise UserError(
            f"{data.train}: labels should be 0 to {classes - 1} without gaps, but there is no {gaps[0]} "
            f"({some(len(gaps), 'label')} of {classes} missing)"
        )
    for part, rows in parts.items():
        if (last := max(label for _, label in rows)) >= classes:
            raise UserError(
                f"{lists[part]}: label {last} is not in the training list, whose last is {classes - 1}"
            )
    _told_apart(parts, data.train)
    return _class_names(data, classes), parts


def read_list(file: str) -> list[tuple[str, int]]:
    """The rows of a published list, `path label` a line.

    Raises:
        UserError: with the line's number, if a path leaves the root or a label is no number.
    """
    rows = []
    for number, line in enumerate(_lines(file), 1):
        words = line.rsplit(None, 1)  # a path may hold spaces
        if not words:
            continue
        path, label = words[0].lstrip(), words[-1]
        if len(words) < 2 or not label.isdecimal() or len(label) > 9:
            raise UserError(
                f"{file}:{number}: {line.strip()[:80]!r} is not `path label`, e.g. train/n01440764/1.jpg 0"
            )
        rows.append((_checked(path, f"{file}:{number}"), int(label)))
    if not rows:
        raise UserError(f"{file}: names no picture")
    return rows


def _checked(path: str, where: str) -> str:
    """A path below the root with / between its parts, also where a table was written on Windows with \\."""
    if not path:
        raise UserError(f"{where}: has no path")
    if DRIVE.match(path):
        raise UserError(f"{where}: {path[:80]!r} names a drive of Windows; paths are relative to data.root")
    path = path.replace("\\", "/")
    if not manifest.inside(path):
        raise UserError(f"{where}: {path[:80]!r} leaves data.root; paths are relative to it and have no ..")
    # ./a.jpg and a//b.jpg are files that another line may name otherwise
    return str(PurePosixPath(path)) if path.startswith("./") or "//" in path or "/./" in path else path


def _told_apart(parts: dict[str, list[tuple[str, int]]] | dict[str, Named], source: str) -> None:
    """Refuse a picture that is named twice: in two parts it would be trained on and tested with."""
    seen: dict[str, str] = {}
    for part, rows in parts.items():
        for path, _ in rows:
            if path in seen:
                raise UserError(f"{source}: {path} is named twice, in {seen[path]} and {part}")
            seen[path] = part


def _class_names(data: ListData, classes: int) -> list[str]:
    """One a class; a name that several have (ImageNet has two cranes) goes with its label."""
    if data.names is None:
        return [str(label) for label in range(classes)]
    names = [line.strip() for line in _lines(data.names) if line.strip()]
    if len(names) != classes:
        raise UserError(f"{data.names}: has {len(names)} names, the lists have {classes} classes")
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({label})" for label, name in enumerate(names)]


def _lines(file: str) -> list[str]:
    try:
        # not splitlines(): a file's name may hold what Unicode calls the end of a line
        return Path(file).expanduser().read_text("utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read ({error.strerror}); docs/how-to/large-datasets.md says where to get it"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is no text in UTF-8 ({error.reason} at byte {error.start})") from None


def some(count: int, word: str) -> str:
    """`1 file`, `3,340 pictures`, `34 classes`."""
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count:,} {word if count == 1 else plural}"
