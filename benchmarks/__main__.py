"""`python -m benchmarks`: run the parts that are named, or all, print one table, keep latest.json."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import (
    augmentation,
    demo,
    generation,
    gpu,
    loader,
    observers,
    recipes,
    rows,
    stage_two,
    startup,
    training,
    two_runs,
    workflow,
)
from benchmarks.hardware import commit
from benchmarks.side import Side

MODULES = (
    training,
    recipes,
    observers,
    augmentation,
    loader,
    generation,
    stage_two,
    workflow,
    startup,
    two_runs,
    demo,
    gpu,
)
PARTS: dict[str, Callable[[bool], list[rows.Row]]] = {module.PART: module.rows for module in MODULES}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; see the package."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, for a look; writes no file by itself"
    )
    parser.add_argument("--whole", action="store_true", help="on a GPU: all 200 epochs instead of ten")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"default: {rows.LATEST.name} beside this file"
    )
    options = parser.parse_args(argv)
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    with Side("benchmarks.hardware:facts", {}) as side:
        hardware = side.measure().found
    out = options.out or (None if options.quick else rows.LATEST)
    found: list[rows.Row] = []
    for name in options.parts or PARTS:
        started = time.monotonic()
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        part = gpu.rows(options.quick, options.whole) if name == gpu.PART else PARTS[name](options.quick)
        print(f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        part = [replace(row, goal=None) if options.quick else row for row in part]
        if out:
            rows.write(out, hardware, part, commit())
        found.extend(part)
    print(rows.table(found))
    print(f"\n{hardware['cpu']}, {hardware['cores']} cores, GPU: {hardware['gpu'] or 'none'}; ", end="")
    print(f"precision {hardware['precision']}, torch {hardware['torch']}")


if __name__ == "__main__":
    main()
