"""Snakemake's memory of finished jobs, `.snakemake/metadata` and `incomplete`, where it is damaged.

Snakemake passes over a record that is cut off, and stops with a stack trace where one is no text. Another
Snakemake may be at work (`--nolock`), which writes its records in place and deletes markers of jobs that end.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FINISHED, BROKEN_OFF = FOLDERS = (".snakemake/metadata", ".snakemake/incomplete")
AT_WORK = 60.0  # seconds since a change in which a record may be half written


def mend(root: Path = Path()) -> None:
    """Delete every record of a finished job that is none, and empty that of one that was broken off.

    Without a record Snakemake judges by times, which `longtail.orchestration.stamp` keeps right. That a job
    was broken off is said by there being a record. What has just changed is left alone.
    """
    number = 0
    for folder in FOLDERS:
        for file in _files(root / folder):
            with suppress(FileNotFoundError):  # its job has just ended
                if _is_damaged(file) and time.time() - file.stat().st_mtime > AT_WORK:
                    if folder == FINISHED:
                        file.unlink()
                    else:
                        with file.open("r+b") as marker:  # of a job that has ended none is made
                            marker.truncate()
                            marker.write(b"{}")
                    number += 1
    if number:
        files = "1 damaged record" if number == 1 else f"{number:,} damaged records"
        print(f"{root / '.snakemake'}: cleared {files} of Snakemake's own", file=sys.stderr)


def _files(folder: Path) -> Iterator[Path]:
    return (Path(top, name) for top, _, names in os.walk(folder) for name in names)


def _is_damaged(file: Path) -> bool:
    try:
        return not isinstance(json.loads(file.read_bytes()), dict)
    except (ValueError, RecursionError):
        return True
