"""Which pictures a dataset of files has, of which class, in which part: from folders, lists or a table.

Paths are relative to the root, with / between their parts, and never leave it. Classes are numbered in the
order of their names, those of a list by its labels.
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from longtail import manifest
from longtail.errors import UserError
from longtail.identity import digest, file_digest
from longtail.sources import CsvData, Files, FolderData, ListData

PARTS = ("train", "validation", "test")
Named = list[tuple[str, str]]  # path and class name
CHECK = "`longtail check-data` reads and lists them"


@dataclass(frozen=True)
class Members:
    """The pictures of a dataset.

    Attributes:
        classes: names in label order.
        parts: (path, label) of each part that the dataset names, in a fixed order.
        left_out: files that cannot be read, with `broken: skip`.
    """

    classes: list[str]
    parts: dict[str, list[tuple[str, int]]]
    left_out: list[str] = field(default_factory=list)


def members(dataset: str, data: Files) -> Members:
    """The pictures of a dataset that can be used.

    Raises:
        UserError: if it was not checked, a file is broken and may not be skipped, or nothing is left of it.
    """
    entries = _entries(dataset, data)
    broken = {entry.path: entry.trouble for entry in entries or [] if entry.trouble}
    if isinstance(data, ListData):
        classes, parts = _of_lists(data)
    else:
        named = _of_folders(data, entries or []) if isinstance(data, FolderData) else _of_table(data)
        classes, parts = _numbered(dataset, named)
    used = {path for rows in parts.values() for path, _ in rows}
    wrong = sorted(path for path in broken if path in used)
    if wrong and data.broken == "stop":
        raise UserError(
            f"{dataset}: {_some(len(wrong), 'file')} cannot be used: "
            f"{'; '.join(f'{path} {broken[path]}' for path in wrong[: manifest.SHOWN])}"
            f"{' ...' if len(wrong) > manifest.SHOWN else ''}; mend or remove, or set data.broken: skip"
        )
    if entries and not isinstance(data, ListData):
        known = {entry.path for entry in entries}
        if missing := sorted(used - known):
            raise UserError(f"{dataset}: {missing[0]} was not there at the check; {CHECK}")
    kept = {name: [row for row in rows if row[0] not in broken] for name, rows in parts.items()}
    if emptied := sorted(set(range(len(classes))) - {label for _, label in kept["train"]}):
        names = ", ".join(classes[label] for label in emptied[: manifest.SHOWN])
        raise UserError(
            f"{dataset}: no usable training picture of {_some(len(emptied), 'class')} ({names}); "
            "remove these classes or merge them into others"
        )
    return Members(classes, kept, wrong)


def identity(dataset: str, data: Files) -> str:
    """SHA-256 of what every run on the dataset builds on: its files, their classes and parts.

    Published lists are known by their own content: the pictures that they name never change.

    Raises:
        UserError: if it was not checked, or a list is not there.
    """
    entries = _entries(dataset, data)
    options = data.resolved()
    kept = {key: options[key] for key in options if key not in ("root", "images", "smallest")}
    if isinstance(data, ListData):
        for key in ("train", "validation", "test", "names"):
            kept[key] = _content(options[key]) if options[key] else None
        if data.broken == "skip":
            kept["left_out"] = sorted(entry.path for entry in entries or [] if entry.trouble)
    else:
        kept["files"] = manifest.digest(entries or [])
    if isinstance(data, CsvData):
        kept["file"] = _content(data.file)
    return digest({"dataset": dataset, **kept})


def files(data: Files) -> manifest.Stats:
    """Sizes and times of the files that the dataset is made of, as they are now.

    Raises:
        UserError: if the root or a list is not there.
    """
    root = root_of(data)
    if isinstance(data, FolderData):
        found: manifest.Stats = {}
        for below in _folders(data).values():
            if not (root / below).is_dir():
                raise UserError(
                    f"{root / below}: is no folder; data.train, validation and test are below data.root"
                )
            found |= manifest.picture_files(root, below)
        return found
    if isinstance(data, ListData):
        paths = [path for rows in _of_lists(data)[1].values() for path, _ in rows]
    else:
        paths = [path for rows in _of_table(data).values() for path, _ in rows]
    return {path: _stat(root / path) for path in paths}


def changed(dataset: str, data: Files) -> list[str]:
    """Usable files that are not as they were checked, gone, or lead out of the root; all are looked at.

    A file whose size and time this machine does not know is hashed, and known then.

    Raises:
        UserError: if the root is not there.
    """
    root = root_of(data)
    home = root.resolve()
    entries = [entry for entry in _entries(dataset, data) or [] if not entry.trouble]
    if not entries:  # published lists may be used without a check
        named = [path for rows in members(dataset, data).parts.values() for path, _ in rows]
        return [path for path in named if not _within(root / path, home)]
    now = {entry.path: _stat(root / entry.path) for entry in entries}
    wrong = manifest.changed(dataset, root, entries, now)
    wrong = wrong or [path for path in now if not _within(root / path, home)]
    checked, stats = manifest.read_stats(dataset)
    stats = stats if checked == str(home) else {}
    unseen = [entry for entry in entries if entry.path not in stats]
    wrong = wrong or [entry.path for entry in unseen if file_digest(root / entry.path) != entry.sha256]
    if unseen and not wrong:
        manifest.write_stats(dataset, root, stats | now)
    return wrong


def _within(path: Path, home: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(home)


def root_of(data: Files) -> Path:
    """The folder that holds the pictures.

    Raises:
        UserError: if it is not there.
    """
    root = Path(data.root).expanduser()
    if not root.is_dir():
        raise UserError(
            f"{root}: {'is no folder' if root.exists() else 'is not there'}; set data.root to the pictures"
        )
    return root


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns


def _entries(dataset: str, data: Files) -> list[manifest.Entry] | None:
    entries = manifest.read(dataset)
    if entries is None and not isinstance(data, ListData):
        raise UserError(f"{dataset}: its files were not checked yet ({manifest.file_of(dataset)}); {CHECK}")
    return entries


def _folders(data: FolderData) -> dict[str, str]:
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    return {part: _below(folder, f"data.{part}") for part, folder in named.items() if folder is not None}


def _below(folder: str, key: str) -> str:
    if folder != "." and not manifest.inside(folder):
        raise UserError(f"{key}: {folder} leaves data.root; name a folder below it")
    return str(PurePosixPath(folder))


def _of_folders(data: FolderData, entries: list[manifest.Entry]) -> dict[str, Named]:
    found: dict[str, Named] = {}
    for part, folder in _folders(data).items():
        depth = 0 if folder == "." else len(PurePosixPath(folder).parts)
        rows: Named = []
        for entry in entries:
            above = PurePosixPath(entry.path).parts[:-1]
            if depth and above[:depth] != PurePosixPath(folder).parts:
                continue
            if below := above[depth:]:  # a picture that lies beside the class folders is of no class
                rows.append((entry.path, below[0] if data.classes == "top" else "/".join(below)))
        found[part] = rows
    return found


def _of_table(data: CsvData) -> dict[str, Named]:
    found: dict[str, Named] = {"train": []}
    for number, row in enumerate(_rows(data.file), 2):
        where = f"{data.file}:{number}"
        part = row.get("part") or "train"
        if part not in PARTS:
            raise UserError(f"{where}: part {part!r} is none of {', '.join(PARTS)}")
        if not row["label"]:
            raise UserError(f"{where}: has no label")
        found.setdefault(part, []).append((_checked(row["path"], where), row["label"]))
    _told_apart(found, data.file)
    return found


def _rows(file: str) -> Iterator[dict[str, str]]:
    try:
        with Path(file).expanduser().open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            names = reader.fieldnames or []
            if not {"path", "label"} <= set(names):
                raise UserError(
                    f"{file}: needs the columns path and label (and part, if you like), not {names}"
                )
            for row in reader:
                yield {key: (row[key] or "").strip() for key in names}
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: is no CSV in UTF-8 ({error})") from None


def _numbered(dataset: str, named: dict[str, Named]) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    classes = sorted({name for _, name in named["train"]})
    numbers = {name: number for number, name in enumerate(classes)}
    if len(classes) < 2:
        raise UserError(
            f"{dataset}: has {_some(len(classes), 'class')} with training pictures; two are the least"
        )
    for part, rows in named.items():
        if strange := sorted({name for _, name in rows if name not in numbers}):
            raise UserError(f"{dataset}: class {strange[0]} of the {part} pictures has no training picture")
    return classes, {part: [(path, numbers[name]) for path, name in rows] for part, rows in named.items()}


def _of_lists(data: ListData) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    lists = {"train": data.train, "validation": data.validation, "test": data.test}
    parts = {part: read_list(file) for part, file in lists.items() if file is not None}
    labels = {label for _, label in parts["train"]}
    classes = max(labels) + 1
    if gaps := sorted(set(range(classes)) - labels):
        raise UserError(
            f"{data.train}: labels should be 0 to {classes - 1} without gaps, but there is no {gaps[0]} "
            f"({_some(len(gaps), 'label')} of {classes} missing)"
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
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if not label.isdecimal() or len(label) > 9 or not path:
            raise UserError(
                f"{file}:{number}: {line.strip()[:80]!r} is not `path label`, e.g. train/n01440764/1.jpg 0"
            )
        rows.append((_checked(path.strip(), f"{file}:{number}"), int(label)))
    if not rows:
        raise UserError(f"{file}: names no picture")
    return rows


def _checked(path: str, where: str) -> str:
    if not manifest.inside(path):
        raise UserError(f"{where}: {path[:80]!r} leaves data.root; paths are relative to it and have no ..")
    return path


def _told_apart(parts: dict[str, list[tuple[str, int]]] | dict[str, Named], source: str) -> None:
    """Refuse a picture that is named twice: in two parts it would be trained on and tested with."""
    seen: dict[str, str] = {}
    for part, rows in parts.items():
        for path, _ in rows:
            if path in seen:
                raise UserError(f"{source}: {path} is named twice, in {seen[path]} and {part}")
            seen[path] = part


def _class_names(data: ListData, classes: int) -> list[str]:
    if data.names is None:
        return [str(label) for label in range(classes)]
    names = [line.strip() for line in _text(data.names).splitlines() if line.strip()]
    if len(names) != classes:
        raise UserError(f"{data.names}: has {len(names)} names, the lists have {classes} classes")
    return names


def _text(file: str) -> str:
    try:
        return Path(file).expanduser().read_text("utf-8")
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read ({error.strerror}); docs/data.md says where to get it"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is no text in UTF-8 ({error.reason} at byte {error.start})") from None


def _content(file: str) -> str:
    try:
        return file_digest(Path(file).expanduser())
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read ({error.strerror}); docs/data.md says where to get it"
        ) from None


def _some(count: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count:,} {word if count == 1 else plural}"
