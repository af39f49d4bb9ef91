"""Two runs at once, a core each, against one run on two threads; and the machine as the peers use it.

Seconds on the clock: this is about sharing the machine, so its load stands beside.
"""

from statistics import median

from benchmarks.rows import Goal, Row, compared
from benchmarks.side import OURS, Side, at_once

PART = "two_runs"
TWO_THREADS = {**OURS, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}


def rows(quick: bool) -> list[Row]:
    """The part's figures."""
    rounds, steps = (1, 1) if quick else (4, 3)
    options = {"steps": steps, "evaluated": 0}
    images = 128 * steps
    two_runs, two_threads, published, loads = [], [], [], []
    with (
        Side("benchmarks.training:ours", OURS, options) as one,
        Side("benchmarks.training:ours", OURS, options) as two,
        Side("benchmarks.training:ours", TWO_THREADS, options) as threaded,
        Side("benchmarks.two_runs:script", {}, {"steps": steps}) as script,
    ):
        for turn in range(rounds + 1):
            both = at_once([one, two])
            alone, theirs = threaded.measure(), script.measure()
            if turn:
                two_runs.append(2 * images / max(sample.wall for sample in both))
                two_threads.append(images / alone.wall)
                published.append(images / theirs.wall)
                loads.append(alone.load)
    load = median(loads)
    threads = Row(
        PART,
        "two runs at once on two cores; in the peers' column: ours, one run on two threads",
        "images/s",
        goal=Goal("ratio", 1.0, 1.3),
        clock="wall",
        load=load,
        note="both sides are this project; floor for a quiet machine, aim for a loaded one",
    )
    machine = Row(
        PART,
        "two runs at once; peers: their script as published, all threads, four workers",
        "images/s",
        clock="wall",
        load=load,
    )
    return [
        compared(threads, two_runs, two_threads, higher_is_better=True),
        compared(machine, two_runs, published, higher_is_better=True),
    ]


def script(steps: int) -> object:
    """LDAM-DRW's shape as it is run: threads as torch chooses, four workers that start with the epoch."""
    from benchmarks.peers import ldam_drw

    return ldam_drw.Script(128 * steps, 1, workers=ldam_drw.WORKERS).train
