"""Which pictures of a dataset of files belong together: near-duplicates, a folder, a column of a table."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from longtail.data import manifest
from longtail.data.check_command import check_command
from longtail.data.lists import column
from longtail.data.near_duplicates import joined, near_pairs
from longtail.data.perceptual_hash import FLAT
from longtail.data.whole_groups import Indices
from longtail.errors import UserError
from longtail.settings.data import CsvData, Files

NEAR, FOLDER = "near_duplicates", "folder"


def of(dataset: str, data: Files, paths: Sequence[str]) -> Indices | None:
    """The name of each picture's group, (N,), an index of one of its pictures; None where none are kept.

    Args:
        dataset: its name.
        data: of the settings.
        paths: of the pictures, below the root.

    Raises:
        UserError: if there is no such column, or the pictures have no hash yet.
    """
    wanted = data.held_out.groups if data.held_out else None
    if wanted is None:
        return None
    if wanted == NEAR:
        found = looks(dataset, data)
        flat = {entry.path: entry.sha256 for entry in manifest.read(dataset) or () if entry.look == FLAT}
        return alike(paths, found, data.near_duplicates or 0, flat)
    if wanted == FOLDER:
        return _by_name([_sub_folder(data, path) for path in paths])
    if not isinstance(data, CsvData):
        raise UserError(
            f"data.held_out.groups: {wanted}: is none of {NEAR}, {FOLDER}; a column goes with data.kind: csv"
        )
    values = column(data, wanted)
    return _by_name([values[path] for path in paths])


def alike(paths: Sequence[str], looks: dict[str, str], distance: int, flat: Mapping[str, str]) -> Indices:
    """Groups of pictures of which each looks nearly like another one; any other is one by itself.

    Args:
        paths: of the pictures.
        looks: perceptual hash of each, by its path; those without one, or a flat one, are like no other.
        distance: bits in which the hashes of two that are alike differ at most.
        flat: SHA-256 of those with a flat one, which are alike where they are the same.
    """
    hashed = [number for number, path in enumerate(paths) if looks.get(path) not in (None, "", FLAT)]
    pairs, _ = near_pairs([looks[paths[number]] for number in hashed], distance)
    pairs = np.array(hashed, dtype=np.int64)[pairs].reshape(-1, 2)
    first: dict[str, int] = {}
    same = [
        (first.setdefault(flat[path], number), number) for number, path in enumerate(paths) if path in flat
    ]
    return joined(len(paths), np.concatenate([pairs, np.array(same, dtype=np.int64).reshape(-1, 2)]))


def looks(dataset: str, data: Files) -> dict[str, str]:
    """The perceptual hash of every file that the last check could use, by its path.

    Raises:
        UserError: if they were not computed, or are not to be.
    """
    if data.near_duplicates is None:
        raise UserError(
            f"data.held_out.groups: {NEAR}: needs data.near_duplicates, bits of 192, e.g. 24, which is null"
        )
    entries = manifest.read(dataset)
    if entries is None or any(not entry.look and not entry.trouble for entry in entries):
        raise UserError(
            f"data.held_out.groups: {NEAR}: the pictures of {dataset} were not compared yet; "
            f"{check_command(dataset)} does it"
        )
    return {entry.path: entry.look for entry in entries if entry.look}


def _sub_folder(data: Files, path: str) -> str:
    """The folder of a picture; of one that lies in a class folder itself the picture's own name.

    In a table and in lists, which name classes otherwise, every folder counts.
    """
    above = PurePosixPath(path).parent
    if data.kind == "folder":
        part = PurePosixPath(data.train)
        below = above.relative_to(part) if above.is_relative_to(part) else above
        if data.classes == "top" and len(below.parts) < 2:
            return f"{path}\0"
    return str(above)


def _by_name(names: Sequence[str]) -> Indices:
    """Groups by equal names; an empty one is a group of one picture."""
    first: dict[str, int] = {}
    return np.array(
        [first.setdefault(name, number) if name else number for number, name in enumerate(names)],
        dtype=np.int64,
    )
