"""What a check of picture files has found: data/checked/DATASET/manifest.csv, which belongs into git.

A row a file: path below the root, bytes, SHA-256, width, height, mode, what is wrong with it, if anything,
its format, and its perceptual hash, by which near-duplicates are found. Manifests of version 0.2 have no such
hash; they are read as they are.
Its digest is the identity of a folder. Sizes and times of the files as they were when they were hashed stand
in .longtail/checked, of this machine alone, so that nothing is hashed twice and no change goes unseen.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from hashlib import sha256
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from longtail.data.check_command import check_command
from longtail.errors import UserError

CHECKED = Path("data/checked")


SHOWN = 3  # files that an error names


class Entry(NamedTuple):
    """A file as it was found.

    Attributes:
        path: below the root, with / between its parts.
        bytes: of the file; 0 where there is none.
        sha256: of its content; "" where it cannot be opened.
        width, height: in pixels as it is shown, after its EXIF orientation; 0 where it is no picture.
        mode: as Pillow names it, e.g. RGB, L, CMYK, I;16; with ;16 where Pillow makes 8 bits of 16 on its
            own; "" where it is no picture.
        trouble: why it cannot be used; "" where it can.
        format: by its content, as Pillow names it, e.g. JPEG; "" where it is no picture.
        look: perceptual hash (`longtail.data.perceptual_hash`); "" where it was not computed.
    """

    path: str
    bytes: int
    sha256: str
    width: int
    height: int
    mode: str
    trouble: str
    format: str = ""
    look: str = ""


COLUMNS = list(Entry._fields)


BY_PATH = attrgetter("path")


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
            if (head := next(rows, None)) not in (COLUMNS, COLUMNS[:-1]):
                raise ValueError("has other columns")
            look = [""] * (len(COLUMNS) - len(head or []))
            return [
                Entry(p, int(b), s, int(w), int(h), m, t, f, k)
                for p, b, s, w, h, m, t, f, k in (row + look for row in rows)
            ]
    except FileNotFoundError:
        return None
    except (ValueError, csv.Error) as error:
        raise UserError(
            f"{file}: is not a manifest ({error}); {check_command(dataset)} writes it anew"
        ) from None


def write(dataset: str, entries: Iterable[Entry]) -> Path:
    """Write a manifest, rows in the order of their paths; the file."""
    file = file_of(dataset)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_table(file, COLUMNS, sorted(entries, key=BY_PATH))
    return file


def write_table(file: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV of any text, surrogates of odd file names too, under a temporary name and rename it."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as lines:
            plain = csv.writer(lines, lineterminator="\n")
            quoted = csv.writer(lines, lineterminator="\n", quoting=csv.QUOTE_ALL)
            plain.writerow(columns)
            for row in rows:
                # Python's writer leaves a lone carriage return unquoted, and its reader ends the line there
                odd = any(isinstance(cell, str) and "\r" in cell for cell in row)
                (quoted if odd else plain).writerow(row)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def digest(entries: Iterable[Entry]) -> str:
    """SHA-256 over path, content and usability of every file; what Pillow says of it does not count."""
    rows = sorted(entries, key=BY_PATH)
    text = "".join([f"{entry.path}\0{entry.sha256}\0{bool(entry.trouble)}\n" for entry in rows])
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def inside(path: str) -> bool:
    """Whether a path of a list or a manifest stays below the root that it is relative to."""
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\0" not in path
