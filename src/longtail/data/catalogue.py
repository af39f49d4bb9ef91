"""Which pictures a dataset of files has, of which class, in which part: from folders, lists or a table.

Paths are relative to the root, with / between their parts, and never leave it. Classes are numbered in the
order of their names, those of a list by its labels.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from longtail.data import file_changes, manifest
from longtail.data.check_command import check_command
from longtail.data.lists import folders, named, numbered, of_lists, some
from longtail.data.perceptual_hash import FLAT
from longtail.errors import UserError
from longtail.runs.identity import digest, file_digest
from longtail.settings.data import CsvData, Data, Files, FolderData, ListData, PublishedData

# How files become classes and parts, here and in holding_out.held_out. Count it up where that changes.
CHOICE = 1
GROUPING = 1  # the same for pictures that are kept together: data.groupings, data.whole_groups


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
        classes, parts = of_lists(data)
    else:
        classes, parts = numbered(dataset, named(data, entries or []))
    used = {path for rows in parts.values() for path, _ in rows}
    wrong = sorted(path for path in broken if path in used)
    if wrong and data.broken == "stop":
        raise UserError(unusable(dataset, {path: broken[path] for path in wrong}))
    if entries is not None:
        known = {entry.path for entry in entries}
        if missing := sorted(used - known):
            raise UserError(f"{dataset}: {missing[0]} was not there at the check; {_check(dataset)}")
    kept = {name: [row for row in rows if row[0] not in broken] for name, rows in parts.items()}
    if emptied := sorted(set(range(len(classes))) - {label for _, label in kept["train"]}):
        names = ", ".join(classes[label] for label in emptied[: manifest.SHOWN])
        raise UserError(
            f"{dataset}: no usable training picture of {some(len(emptied), 'class')} ({names}); "
            "remove these classes or merge them into others"
        )
    return Members(classes, kept, wrong)


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


def identity(dataset: str, data: Files, settings: str | None = None) -> str:
    """SHA-256 of what every run on the dataset builds on: its files, their classes and parts.

    Published lists are known by their own content: the pictures that they name never change.

    Args:
        dataset: its name.
        data: where it is.
        settings: the file that says so, for the command that an error names.

    Raises:
        UserError: if it was not checked, or a list is not there.
    """
    entries = _entries(dataset, data, settings) or []
    options = data.resolved(hashed=True)
    # `broken` only says whether to go on; what is left out is in the digests
    left_out = ("root", "images", "smallest", "broken", "near_duplicates")
    kept = {key: options[key] for key in options if key not in left_out}
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
    if (groups := data.held_out and data.held_out.groups) is not None:
        from longtail.data import groupings  # imports numpy, which planning has no other use for

        kept["grouping"] = GROUPING
        if groups == groupings.NEAR:
            kept["looks"] = [data.near_duplicates, digest(groupings.looks(dataset, data))]
            flat = [entry.sha256 for entry in entries if entry.look == FLAT]
            if len(set(flat)) < len(flat):  # which version 0.2 parted
                kept["flat_copies"] = "together"
    if any(_may_have_been_black(entry) for entry in entries):
        kept["transparent"] = "white"
    if any(entry.format == "TIFF" for entry in entries):
        kept["tiff"] = "turned once"  # version 0.2 took those that are turned for turned twice
    return digest({"dataset": dataset, "choice": CHOICE, **kept})


def _may_have_been_black(entry: manifest.Entry) -> bool:
    """Whether version 0.1 may have drawn what is transparent in a file in its own colour, often black.

    It lost the one transparent colour of a grey or 16-bit PNG; datasets that have such files are others now.
    """
    return entry.format == "PNG" and (entry.mode in ("1", "L", "I", "I;16") or entry.mode.endswith(";16"))


def current(dataset: str, data: Data, settings: str | None = None) -> None:
    """Make sure that the files are those that were checked, by their sizes and times.

    For published lists only where they were checked: the pictures that they name never change. Where the
    pictures are not on this machine there is nothing to compare; what needs them says so.

    Raises:
        UserError: if a file is new, changed or gone since, or nothing was ever checked.
    """
    if isinstance(data, PublishedData) or (entries := _entries(dataset, data, settings)) is None:
        return
    if not Path(data.root).expanduser().is_dir():
        return
    if wrong := file_changes.changes(dataset, root_of(data), entries, files(data)):
        verb = "is" if len(wrong) == 1 else "are"
        words = " or ".join(word for word in ("new", "changed", "gone") if word in wrong.values())
        shown = ", ".join(_line(path) for path in list(wrong)[: manifest.SHOWN])
        raise UserError(
            f"{dataset}: {some(len(wrong), 'file')} {verb} {words} since the check "
            f"({shown}{' ...' if len(wrong) > manifest.SHOWN else ''}); {_check(dataset, settings)}"
        )


def files(data: Files) -> file_changes.Stats:
    """Sizes and times of the files that the dataset is made of, as they are now.

    Raises:
        UserError: if the root or a list is not there.
    """
    root = root_of(data)
    if isinstance(data, FolderData):
        found: file_changes.Stats = {}
        for below in folders(data).values():
            if not (root / below).is_dir():
                raise UserError(
                    f"{root / below}: is no folder; data.train, validation and test are below data.root"
                )
            found |= file_changes.picture_files(root, below)
        return found
    base = str(root)
    return {
        path: file_changes.stat(f"{base}/{path}") for rows in named(data, []).values() for path, _ in rows
    }


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
    now = {entry.path: file_changes.stat(root / entry.path) for entry in usable}
    wrong = list(file_changes.changes(dataset, root, usable, now))
    wrong = wrong or [path for path in now if leaves(home, path)]
    seen = {entry.path for entry in file_changes.unmoved(dataset, root, usable, now)}
    unseen = [entry for entry in usable if entry.path not in seen]
    wrong = wrong or [entry.path for entry in unseen if file_digest(root / entry.path) != entry.sha256]
    if unseen and not wrong:
        file_changes.write_stats(dataset, root, usable, now)
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


def _entries(dataset: str, data: Files, settings: str | None = None) -> list[manifest.Entry] | None:
    entries = manifest.read(dataset)
    if entries is None and (not isinstance(data, ListData) or data.smallest > 1):
        file = manifest.file_of(dataset)
        raise UserError(f"{dataset}: its files were not checked yet ({file}); {_check(dataset, settings)}")
    return entries


def _check(dataset: str, settings: str | None = None) -> str:
    return f"{check_command(dataset, settings)} reads and lists them"


def _line(path: str) -> str:
    """A path of one line that any terminal can print."""
    return path if path.isprintable() else ascii(path)[1:-1]


def _content(file: str) -> str:
    try:
        return file_digest(Path(file).expanduser())
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read ({error.strerror}); docs/how-to/large-datasets.md says where to get it"
        ) from None
