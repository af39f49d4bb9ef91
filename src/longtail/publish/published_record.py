"""The record beside something published: its identity, and the hashes of its files."""

import json
import sys
from pathlib import Path
from typing import Any

from longtail.errors import UserError
from longtail.runs.identity import file_digest
from longtail.runs.store import read_plan


def is_current(record: str, identity: str, outputs: list[str]) -> bool:
    """Whether the published files are those of this identity, untouched."""
    try:
        found = read_record(record)
        hashes = {Path(name).name: file_digest(Path(name)) for name in outputs}
        return bool(found.get("identity") == identity and found.get("outputs") == hashes)
    except OSError:
        return False


def read_record(record: str) -> dict[str, Any]:
    """The record beside published files; empty where there is none that can be read."""
    try:
        found = json.loads(Path(record).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check(layer: str, plan: str) -> None:
    """Verify published tables or figures against the record beside them.

    Raises:
        UserError: naming the files that are wrong.
    """
    items = read_plan("layers", plan)[layer]
    wrong = [item["outputs"][0] for item in items if not is_current(**item)]
    if wrong:
        raise UserError(*(f"{name}: is not the plan's; type the command again" for name in wrong))
    print(f"{layer}: {len(items)} verified", file=sys.stderr)
