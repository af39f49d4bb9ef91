"""Which pictures a dataset of files has, of which class, in which part: from folders, lists or a table.

Paths are relative to the root, with / between their parts, and never leave it. Classes are numbered in the
order of their names, those of a list by its labels.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

from longtail import manifest
from longtail.errors import UserError
from longtail.identity import digest, file_digest
from longtail.sources import CsvData, Data, Files, FolderData, ListData, PublishedData

# How files become classes and parts, here and in acquire.held_out. Count it up where that changes.
CHOICE = 1
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
    broken = troubles(entries or [], data)
    if isinstance(data, ListData):
        classes, parts = _of_lists(data)
    else:
        classes, parts = _numbered(dataset, named(data, entries or []))
    used = {path for rows in parts.values() for path, _ in rows}
    wrong = sorted(path for path in broken if path in used)
    if wrong and data.broken == "stop":
        raise UserError(unusable(dataset, {path: broken[path] for path in wrong}))
    if entries is not None:
        known = {entry.path for entry in entries}
        if missing := sorted(used - known):
            raise UserError(f"{dataset}: {missing[0]} was not there at the check; {CHECK}")
    kept = {name: [row for row in rows if row[0] not in broken] for name, rows in parts.items()}
    if emptied := sorted(set(range(len(classes))) - {label for _, label in kept["train"]}):
        names = ", ".join(classes[label] for label in emptied[: manifest.SHOWN])
        raise UserError(
            f"{dataset}: no usable training picture of {some(len(emptied), 'class')} ({names}); "
            "remove these classes or merge them into others"
        )
    return Members(classes, kept, wrong)


def named(data: Files, entries: Iterable[manifest.Entry]) -> dict[str, Named]:
    """Every picture of each part with the name of its class, whether it can be used or not.

    Raises:
        UserError: if a list or the table cannot be read, or a folder of a part leaves the root.
    """
    if isinstance(data, FolderData):
        return _of_folders(data, entries)
    if isinstance(data, CsvData):
        return _of_table(data)
    classes, parts = _of_lists(data)
    return {part: [(path, classes[label]) for path, label in rows] for part, rows in parts.items()}


def troubles(entries: Iterable[manifest.Entry], data: Files) -> dict[str, str]:
    """Why files cannot be used: what the check found, or that they are smaller than the settings allow."""
    found = {}
    for entry in entries:
        if entry.trouble:
            found[entry.path] = entry.trouble
        elif min(entry.width, entry.height) < data.smallest:
            found[entry.path] = f"has {entry.width} x {entry.height} pixels, data.smallest is {data.smallest}"
    return found


def unusable(dataset: str, broken: dict[str, str]) -> str:
    """The one line with which a dataset is refused that has files of no use."""
    shown = "; ".join(f"{_line(path)} {broken[path]}" for path in list(broken)[: manifest.SHOWN])
    return (
        f"{dataset}: {some(len(broken), 'file')} cannot be used: {shown}"
        f"{' ...' if len(broken) > manifest.SHOWN else ''}; mend or remove, or set data.broken: skip"
    )


def identity(dataset: str, data: Files) -> str:
    """SHA-256 of what every run on the dataset builds on: its files, their classes and parts.

    Published lists are known by their own content: the pictures that they name never change.

    Raises:
        UserError: if it was not checked, or a list is not there.
    """
    entries = _entries(dataset, data) or []
    options = data.resolved()
    # `broken` only says whether to go on; what is left out is in the digests
    kept = {key: options[key] for key in options if key not in ("root", "images", "smallest", "broken")}
    broken = troubles(entries, data)
    if isinstance(data, ListData):
        for key in ("train", "validation", "test", "names"):
            kept[key] = _content(options[key]) if options[key] else None
        if broken:
            kept["left_out"] = sorted(broken)
    else:
        small = (entry for entry in entries if not entry.trouble and entry.path in broken)
        tiny = {entry.path: entry._replace(trouble=broken[entry.path]) for entry in small}
        kept["files"] = manifest.digest(
            [tiny.get(entry.path, entry) for entry in entries] if tiny else entries
        )
    if isinstance(data, CsvData):
        kept["file"] = _content(data.file)
    return digest({"dataset": dataset, "choice": CHOICE, **kept})


def current(dataset: str, data: Data) -> None:
    """Make sure that the files are those that were checked, by their sizes and times.

    For published lists only where they were checked: the pictures that they name never change. Where the
    pictures are not on this machine there is nothing to compare; what needs them says so.

    Raises:
        UserError: if a file is new, changed or gone since, or nothing was ever checked.
    """
    if isinstance(data, PublishedData) or (entries := _entries(dataset, data)) is None:
        return
    if not Path(data.root).expanduser().is_dir():
        return
    if wrong := manifest.changes(dataset, root_of(data), entries, files(data)):
        verb = "is" if len(wrong) == 1 else "are"
        words = " or ".join(word for word in ("new", "changed", "gone") if word in wrong.values())
        shown = ", ".join(_line(path) for path in list(wrong)[: manifest.SHOWN])
        raise UserError(
            f"{dataset}: {some(len(wrong), 'file')} {verb} {words} since the check "
            f"({shown}{' ...' if len(wrong) > manifest.SHOWN else ''}); {CHECK}"
        )


def files(data: Files) -> manifest.Stats:
    """Sizes and times of the files that the dataset is made of, as they are now.

    Raises:
        UserError: if the root or a list is not there.
    """
    root = root_of(data)
    if isinstance(data, FolderData):
        found: manifest.Stats = {}
        for below in folders(data).values():
            if not (root / below).is_dir():
                raise UserError(
                    f"{root / below}: is no folder; data.train, validation and test are below data.root"
                )
            found |= manifest.picture_files(root, below)
        return found
    base = str(root)
    return {path: manifest.stat(f"{base}/{path}") for rows in named(data, []).values() for path, _ in rows}


def changed(dataset: str, data: Files) -> list[str]:
    """Usable files that are not as they were checked, gone, or lead out of the root; all are looked at.

    A file whose size and time this machine does not know is hashed, and known then.

    Raises:
        UserError: if the root is not there, or the dataset cannot be used.
    """
    root = root_of(data)
    home = os.path.realpath(root)
    if (entries := _entries(dataset, data)) is None:  # published lists may be used without a check
        paths = [path for rows in members(dataset, data).parts.values() for path, _ in rows]
        return [path for path in paths if not (root / path).is_file() or leaves(home, path)]
    broken = troubles(entries, data)
    usable = [entry for entry in entries if entry.path not in broken]
    now = {entry.path: manifest.stat(root / entry.path) for entry in usable}
    wrong = list(manifest.changes(dataset, root, usable, now))
    wrong = wrong or [path for path in now if leaves(home, path)]
    seen = {entry.path for entry in manifest.unmoved(dataset, root, usable, now)}
    unseen = [entry for entry in usable if entry.path not in seen]
    wrong = wrong or [entry.path for entry in unseen if file_digest(root / entry.path) != entry.sha256]
    if unseen and not wrong:
        manifest.write_stats(dataset, root, usable, now)
    return wrong


def leaves(home: str, path: str) -> bool:
    """Whether a link leads from a path below a root, of which `home` is the real one, out of it."""
    above, name = os.path.split(path)
    real = _real(os.path.join(home, above))
    whole = os.path.join(real, name)
    if os.path.islink(whole):
        whole = os.path.realpath(whole)
    return os.path.commonpath((home, whole)) != home


@lru_cache(4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


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


def _entries(dataset: str, data: Files) -> list[manifest.Entry] | None:
    entries = manifest.read(dataset)
    if entries is None and (not isinstance(data, ListData) or data.smallest > 1):
        raise UserError(f"{dataset}: its files were not checked yet ({manifest.file_of(dataset)}); {CHECK}")
    return entries


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
                raise UserError(
                    f"{file}: needs the columns path and label (and part, if you like), not {names}"
                )
            for row in reader:
                yield reader.line_num, {key: (row[key] or "").strip() for key in names}
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: is no CSV in UTF-8 ({error})") from None


def _numbered(dataset: str, named: dict[str, Named]) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    classes = sorted({name for _, name in named["train"]})
    numbers = {name: number for number, name in enumerate(classes)}
    if len(classes) < 2:
        raise UserError(
            f"{dataset}: has {some(len(classes), 'class')} with training pictures; two are the least"
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
            f"{file}: cannot be read ({error.strerror}); docs/data.md says where to get it"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is no text in UTF-8 ({error.reason} at byte {error.start})") from None


def _line(path: str) -> str:
    """A path of one line that any terminal can print."""
    return path if path.isprintable() else ascii(path)[1:-1]


def _content(file: str) -> str:
    try:
        return file_digest(Path(file).expanduser())
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read ({error.strerror}); docs/data.md says where to get it"
        ) from None


def some(count: int, word: str) -> str:
    """`1 file`, `3,340 pictures`, `34 classes`."""
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count:,} {word if count == 1 else plural}"
