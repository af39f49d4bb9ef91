"""SHA-256 of large files, remembered: a file is read again only where its size or its times have moved."""

import json
from contextlib import suppress
from pathlib import Path

from longtail.runs.identity import file_digest
from longtail.runs.store import home, write_json


def remembered_digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal, from `.longtail/digests.json` if the file is as it was then.

    Two times count: an edit that puts the time of modification back still moves that of the last change.

    Raises:
        OSError: if the file cannot be read.
    """
    found = file.stat()
    state = [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    memory = home(Path.cwd()) / "digests.json"
    known = _known(memory)
    key = str(file.resolve())
    match known.get(key):
        case [size, modified, changed, str(digest)] if [size, modified, changed] == state:
            return digest
    digest = file_digest(file)
    with suppress(OSError):  # what cannot be remembered is read again
        write_json(memory, {**known, key: [*state, digest]})
    return digest


def _known(memory: Path) -> dict[str, list[int | str]]:
    try:
        found = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
