"""Lets `snakemake --cores 8 --resources gpu=2 results/table2.csv` mean what it says.

Snakemake's `--resources` takes any number of values and swallows the target behind it ("dictionary update
sequence element #0 has length 1; 2 is required"). Snakemake imports every package with this name's prefix
before it reads its command line, so the import is the place to put the words without `=` that follow
`--resources` where they belong: behind `--`. Snakemake is pinned and a test runs the command; see
docs/explanation/snakemake-and-dvc.md.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase


def targets_last(words: Sequence[str]) -> list[str]:
    """The command line with every word behind `--resources` that is no NAME=VALUE moved behind `--`."""
    options, targets = list(words), []
    if "--" in options:
        at = options.index("--")
        options, targets = options[:at], options[at + 1 :]
    kept, moved, taking = [], [], False
    for word in options:
        if word.startswith("-"):
            taking = word in ("--resources", "--res")
        elif taking and "=" not in word:
            moved.append(word)
            continue
        kept.append(word)
    return [*kept, "--", *moved, *targets] if moved or targets else kept


class LogHandler(LogHandlerBase):
    """Writes nothing: a package with this prefix has to have one."""

    writes_to_stream = writes_to_file = has_filter = has_formatter = needs_rulegraph = False

    def emit(self, record: Any) -> None:
        """Drop the record."""


if Path(sys.argv[0]).name == "snakemake" or sys.argv[0].endswith("snakemake/__main__.py"):
    sys.argv[1:] = targets_last(sys.argv[1:])
