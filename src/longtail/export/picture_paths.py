"""Which files a person means by files, folders and patterns."""

import os
from collections.abc import Iterator, Sequence
from glob import has_magic
from pathlib import Path


def listed(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Files, the files of folders and what patterns match, in the order given.

    A folder's files come sorted by name with its sub-folders', without hidden ones; links to folders are
    not followed. What a pattern matches comes sorted.

    Yields:
        A path, and why there is nothing to read there; "" where there may be.
    """
    for name in given:
        if os.path.lexists(name):
            yield from _below(name)
        elif has_magic(name):
            found = _matching(name)
            for match in found:
                # With ** the files of a folder are matches themselves.
                if not (os.path.isdir(match) and "**" in name):
                    yield from _below(match)
            if not found:
                yield name, "matches no file"
        else:
            yield name, "there is no such file"


def _matching(pattern: str) -> list[str]:
    """Sorted; as in a shell * matches no hidden name, and ** follows no link to a folder."""
    parts = Path(pattern).parts
    first = next(number for number, part in enumerate(parts) if has_magic(part))
    base, rest = Path(*parts[:first]), Path(*parts[first:])
    hidden = any(part.startswith(".") for part in rest.parts)
    found = [path for path in base.glob(str(rest)) if path != base]
    seen = [path for path in found if hidden or not _hidden(path.relative_to(base))]
    return sorted(map(str, seen))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _below(name: str) -> Iterator[tuple[str, str]]:
    if not os.path.isdir(name):
        yield name, ""
        return
    count = 0
    for folder, folders, files in os.walk(name):
        folders[:] = sorted(found for found in folders if not found.startswith("."))
        for file in sorted(files):
            if not file.startswith("."):
                count += 1
                yield os.path.join(folder, file), ""
    if not count:
        yield name, "the folder has no file"
