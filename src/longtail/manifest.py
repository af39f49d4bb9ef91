"""What a check of picture files has found: data/checked/DATASET/manifest.csv, which belongs into git.

A row a file: path below the root, bytes, SHA-256, width, height, mode, and what is wrong with it, if
anything.
Its digest is the identity of a folder. Sizes and times of the files as they were when they were hashed stand
in .longtail/checked, of this machine alone, so that nothing is hashed twice and no change goes unseen.
"""

import csv
import json
import os
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from hashlib import sha256
from pathlib import Path, PurePosixPath

from longtail import store
from longtail.errors import UserError

CHECKED = Path("data/checked")
SHOWN = 3  # files that an error names
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SUFFIXES |= {".ppm", ".pgm", ".jp2", ".j2k", ".avif", ".ico", ".tga"}


@dataclass(frozen=True)
class Entry:
    """A file as it was found.

    Attributes:
        path: below the root, with / between its parts.
        bytes: of the file.
        sha256: of its content; "" where it cannot be opened.
        width, height: in pixels as it is shown, after its EXIF orientation; 0 where it is no picture.
        mode: as Pillow names it, e.g. RGB, L, CMYK, I;16; "" where it is no picture.
        trouble: why it cannot be used; "" where it can.
    """

    path: str
    bytes: int
    sha256: str
    width: int
    height: int
    mode: str
    trouble: str


COLUMNS = [field.name for field in fields(Entry)]


def file_of(dataset: str) -> Path:
    """The manifest of a dataset."""
    return CHECKED / dataset / "manifest.csv"


def read(dataset: str) -> list[Entry] | None:
    """The rows of a manifest; None where the dataset was never checked.

    Raises:
        UserError: if it is not a manifest.
    """
    file = file_of(dataset)
    try:
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
            rows = csv.reader(lines)
            if next(rows, None) != COLUMNS:
                raise ValueError("has other columns")
            return [Entry(p, int(b), s, int(w), int(h), m, t) for p, b, s, w, h, m, t in rows]
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{file}: is no manifest ({error}); `git checkout {file}`, or check again") from None


def write(dataset: str, entries: Iterable[Entry]) -> Path:
    """Write a manifest, rows in the order of their paths; the file."""
    file = file_of(dataset)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(entry) for entry in sorted(entries, key=lambda entry: entry.path))
    temporary.replace(file)
    return file


def digest(entries: Iterable[Entry]) -> str:
    """SHA-256 over path, content and usability of every file; what Pillow says of it does not count."""
    result = sha256()
    for entry in sorted(entries, key=lambda entry: entry.path):
        line = f"{entry.path}\0{entry.sha256}\0{bool(entry.trouble)}\n"
        result.update(line.encode("utf-8", "surrogateescape"))
    return result.hexdigest()


def inside(path: str) -> bool:
    """Whether a path of a list or a manifest stays below the root that it is relative to."""
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\0" not in path


Stats = dict[str, tuple[int, int]]  # by path: bytes and modification time in ns


def _stats_file(dataset: str) -> Path:
    return store.home(Path.cwd()) / "checked" / f"{dataset}.json"


def read_stats(dataset: str) -> tuple[str, Stats]:
    """The root that was checked on this machine, its files' sizes and times; ("", {}) before any check."""
    try:
        found = json.loads(_stats_file(dataset).read_text("utf-8"))
        return str(found["root"]), {
            path: (int(size), int(time)) for path, (size, time) in found["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}


def write_stats(dataset: str, root: Path, stats: Stats) -> None:
    """Remember sizes and times of the files as they were hashed."""
    store.write_json(_stats_file(dataset), {"root": str(root.resolve()), "files": stats}, indent=None)


def picture_files(root: Path, below: str = ".") -> Stats:
    """Sizes and times of all files below a folder of the root that have a picture's suffix.

    Hidden files and folders are left out, links to folders not followed.
    """
    found: Stats = {}
    waiting = [str(root / below)]
    prefix = len(str(root)) + 1
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                    found[entry.path[prefix:]] = _stat(entry)
    return found


def _stat(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        found = entry.stat()
    except OSError:  # a link to nowhere
        return 0, 0
    return found.st_size, found.st_mtime_ns


def changed(dataset: str, root: Path, entries: Iterable[Entry], found: Stats) -> list[str]:
    """Files that are not as they were when they were checked: changed, gone or new.

    Where this machine has checked them, size and time have to be the same; else the size.
    """
    checked_root, stats = read_stats(dataset)
    if checked_root != str(root.resolve()):
        stats = {}
    known = {entry.path: entry for entry in entries}
    wrong = [path for path in found if path not in known]
    for path, entry in known.items():
        now = found.get(path)
        if now is None or (stats[path] != now if path in stats else entry.bytes != now[0]):
            wrong.append(path)
    return sorted(wrong)
