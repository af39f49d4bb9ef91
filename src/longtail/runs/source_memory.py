"""What was read of source files, remembered by content: parsing takes every start a third of a second."""

import json
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from longtail.runs.identity import digest
from longtail.runs.store import home, write_json

Read = dict[str, Any]  # as `of` returns it
MOST = 4_000  # entries that are kept, a megabyte


class SourceMemory:
    """What a reader said of files, in `.longtail/sources.json`.

    An entry is found by the SHA-256 of a file's content, and holds only for the reader that made it: the
    content of the reader's own file is part of the key. Each has a digest of itself, so that a damaged one
    is read again.

    Args:
        reader: the file whose code reads sources.
    """

    def __init__(self, reader: Path) -> None:
        self._reader = sha256(reader.read_bytes()).hexdigest()
        self._known: dict[str, Any] | None = None
        self._new: dict[str, Any] = {}

    def of(self, content: bytes, read: Callable[[bytes], Read]) -> Read:
        """What `read` says of a file's content, from memory where it has said it before."""
        if self._known is None:
            self._known = _entries()
        key = sha256(self._reader.encode() + content).hexdigest()
        match self._known.get(key):
            case {"read": dict(found), "digest": str(made)} if made == digest([key, found]):
                return dict(found)
        found = read(content)
        self._known[key] = self._new[key] = {"read": found, "digest": digest([key, found])}
        return found

    def write(self) -> None:
        """Keep what is new, if there is anything."""
        if self._new:
            with suppress(OSError):  # what cannot be remembered is read again
                before = _entries()
                before = before if len(before) < MOST else {}
                write_json(_file(), {**before, **self._new}, indent=None)
            self._new = {}


def _file() -> Path:
    return home(Path.cwd()) / "sources.json"


def _entries() -> dict[str, Any]:
    try:
        found = json.loads(_file().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
