"""Progress of a run: a bar on a terminal, a plain line every so often where there is none."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

QUIET_SECONDS = 30.0  # between two plain lines


class Progress:
    """Counts `total` units (epochs, generations, classes) of a run; `with` closes the bar."""

    def __init__(self, run: str, total: int, unit: str) -> None:
        self.run, self.total, self.unit = run, total, unit
        self._bar = tqdm(total=total, unit=unit, desc=run, disable=None, dynamic_ncols=True, leave=False)
        self._started = self._spoken = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self._bar.close()

    def to(self, done: int, note: str = "") -> None:
        """Say that `done` units are done, with a note such as the loss."""
        if not self._bar.disable:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)
        elif (now := time.monotonic()) - self._spoken > QUIET_SECONDS:
            self._spoken = now
            minutes = (now - self._started) / 60
            print(
                f"{self.run}: {self.unit} {done}/{self.total} after {minutes:.1f} min {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )
