"""Snakemake's memory of finished jobs, `.snakemake/metadata` and `incomplete`, where it is damaged.

Snakemake passes over a record that is cut off, and stops with a stack trace where one is no text.
"""

import json
import sys
from pathlib import Path

FINISHED, BROKEN_OFF = FOLDERS = (".snakemake/metadata", ".snakemake/incomplete")


def mend(root: Path = Path()) -> None:
    """Delete every record of a finished job that is none, and empty that of one that was broken off.

    Without a record Snakemake judges by times, which `longtail.orchestration.stamp` keeps right. That a job
    was broken off is said by there being a record.
    """
    finished, broken_off = (_damaged(root / folder) for folder in FOLDERS)
    for file in finished:
        file.unlink()
    for file in broken_off:
        file.write_text("{}", "utf-8")
    if number := len(finished) + len(broken_off):
        files = "1 damaged record" if number == 1 else f"{number:,} damaged records"
        print(f"{root / '.snakemake'}: cleared {files} of Snakemake's own", file=sys.stderr)


def _damaged(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and _is_damaged(file)]


def _is_damaged(file: Path) -> bool:
    try:
        return not isinstance(json.loads(file.read_bytes()), dict)
    except (ValueError, RecursionError):
        return True
