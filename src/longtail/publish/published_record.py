"""The record beside something published: its identity, the hashes of its files and of what it read.

An identity is not enough: another machine computes the same run to other bytes, and a table has to be of
the runs that stand beside it.
"""

import json
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from longtail.errors import UserError
from longtail.runs.identity import file_digest
from longtail.runs.store import read_plan, stored


def is_current(record: str, identity: str, outputs: list[str]) -> bool:
    """Whether the published files are those of this identity, untouched, and of the runs that are here.

    A run that is not here says nothing against them: it is made, or brought back, before they are asked for.
    """
    try:
        found = read_record(record)
        hashes = {Path(name).name: file_digest(Path(name)) for name in outputs}
        if found.get("identity") != identity or found.get("outputs") != hashes:
            return False
        return all(_digest_now(name) in (None, digest) for name, digest in found["read"].items())
    except (OSError, KeyError, AttributeError):
        return False


def digests_of(planned: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of all that something published reads, by where it stands.

    Of a run it is that of run.json, of something else that is published that of its record; `files` of the
    context are read themselves, where they are there.

    Args:
        planned: what the plan says of it.
    """
    found = {}
    for step, runs in planned["runs"].items():
        for name, run in runs.items():
            for folder in (Path(run["folder"]), stored(step, name)):
                with suppress(FileNotFoundError):
                    found[f"{run['folder']}/run.json"] = file_digest(folder / "run.json")
                    break
    built_on = [item["record"] for item in planned.get("built_on", [])]
    for name in (*built_on, *planned.get("context", {}).get("files", [])):
        with suppress(FileNotFoundError):
            found[name] = file_digest(Path(name))
    return found


def _digest_now(name: str) -> str | None:
    """SHA-256 of a file as it is; None where there is none."""
    try:
        state = os.stat(name)
    except FileNotFoundError:
        return None
    return _digest_of(name, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


@cache
def _digest_of(name: str, *_state: int) -> str:
    return file_digest(Path(name))


def read_record(record: str) -> dict[str, Any]:
    """The record beside published files; empty where there is none that can be read."""
    try:
        with open(record, "rb") as file:  # thousands are read: no more than that
            found = json.loads(file.read())
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
