"""Which files of a dataset have moved or changed since this machine read them, by size and time."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from longtail.data.manifest import Entry
from longtail.errors import UserError
from longtail.runs import store

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


SUFFIXES |= {".ppm", ".pgm", ".jp2", ".j2k", ".avif", ".ico", ".tga"}


# Folders that systems and their tools make, in lower case: thumbnails, metadata, what was deleted. Like
# hidden ones they are passed over.
SYSTEM = {"@eadir", "__macosx", "$recycle.bin", "#recycle", "@recycle", "@recently-snapshot", "#snapshot"}


SYSTEM |= {"system volume information", "lost+found", "network trash folder", "temporary items", "lost.dir"}


Stat = tuple[int, int]  # bytes and modification time in ns


Stats = dict[str, Stat]  # by path


KNOWN_DIGITS = 16  # of the SHA-256 that stands beside size and time


def stat(path: str | Path) -> Stat:
    """Size and time of a file, 0 and 0 where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _stats_file(dataset: str) -> Path:
    return store.home(Path.cwd()) / "checked" / f"{dataset}.json"


def unmoved(dataset: str, root: Path, entries: Iterable[Entry], found: Stats) -> list[Entry]:
    """The entries that need no second reading: this machine read the same content, and nothing moved."""
    stats = _read_stats(dataset, root)
    return [
        entry
        for entry in entries
        if entry.path in found and _known(entry, found[entry.path]) == stats.get(entry.path)
    ]


def _read_stats(dataset: str, root: Path) -> dict[str, list[int | str]]:
    """Size, time and hash of the files of a root as this machine read them; none before any check."""
    try:
        found = json.loads(_stats_file(dataset).read_text("utf-8"))
        return dict(found["files"]) if found["root"] == str(root.resolve()) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def checked_root(dataset: str) -> Path | None:
    """The folder whose pictures this machine checked last under a dataset's name; None before any check."""
    try:
        return Path(json.loads(_stats_file(dataset).read_text("utf-8"))["root"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _known(entry: Entry, now: Stat) -> list[int | str]:
    return [*now, entry.sha256[:KNOWN_DIGITS]]


def write_stats(dataset: str, root: Path, entries: Iterable[Entry], stats: Stats) -> None:
    """Remember sizes and times of the files as they were hashed, beside those that are remembered."""
    files = _read_stats(dataset, root) | {entry.path: _known(entry, stats[entry.path]) for entry in entries}
    store.write_json(_stats_file(dataset), {"root": str(root.resolve()), "files": files}, indent=None)


def is_passed_over(name: str) -> bool:
    """Whether a folder of this name is hidden, or a system's own, so that no picture in it counts."""
    return name[0] == "." or name.lower() in SYSTEM


def picture_files(root: Path, below: str = ".", passed: list[str] | None = None) -> Stats:
    """Sizes and times of all files below a folder of the root that have a picture's suffix.

    Hidden files and folders and those of the system are left out, links to folders not followed.

    Args:
        root: of the dataset.
        below: the folder, relative to it.
        passed: takes the system's folders that are passed over, if it is given.

    Raises:
        UserError: if a folder cannot be listed.
    """
    found: Stats = {}
    waiting = ["" if below == "." else f"{below}/"]
    while waiting:
        above = waiting.pop()
        try:
            with os.scandir(root / above) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == ".":
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if not is_passed_over(name):
                            waiting.append(f"{above}{name}/")
                        elif passed is not None and name[0] != ".":
                            passed.append(f"{above}{name}")
                    elif os.path.splitext(name)[1].lower() in SUFFIXES:
                        found[above + name] = stat(entry.path)
        except OSError as error:
            raise UserError(f"{root / above}: cannot be listed ({error.strerror})") from None
    return found


def changes(dataset: str, root: Path, entries: Iterable[Entry], found: Stats) -> dict[str, str]:
    """Files that are not as they were when they were checked: by path `new`, `changed` or `gone`.

    Where this machine has read them, their size and time have to be the same, and what it read has to be what
    the manifest says, which may be another machine's; else the size.
    """
    stats = _read_stats(dataset, root)
    wrong = {}
    known = set()
    for entry in entries:
        known.add(entry.path)
        now = found.get(entry.path)
        if now is None:
            wrong[entry.path] = "gone"
        elif (now[0] != entry.bytes) or (entry.path in stats and stats[entry.path] != _known(entry, now)):
            wrong[entry.path] = "changed"
    wrong |= {path: "new" for path in found.keys() - known}
    return {path: wrong[path] for path in sorted(wrong)}
