"""One side of a comparison: a fresh process with an environment of its own that measures when it is told to.

Two sides stay alive together and are asked in turns, A B A B, so that both see the same machine; an idle
side waits for a line and costs nothing. `python -m benchmarks.side TARGET OPTIONS` is such a process. Its
target, module:function, prepares and returns what is to be measured, a function without arguments, which may
return numbers of its own.
"""

import importlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from longtail.device import COMPUTING

ROOT = Path(__file__).parents[1]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
OURS = COMPUTING  # what the command `longtail` sets for a step
# Of whoever started the benchmark: no side inherits them. Where Python may not write what it compiles, each
# start of a process compiles all packages anew.
OWN = ("OMP_", "MKL_", "MALLOC_", "GOMP_", "KMP_", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        cpu: processor seconds, of finished child processes too; immune to what else runs.
        wall: seconds on the clock.
        load: the machine's load average over a minute, before it; this process is part of it.
        peak_mb: the largest memory that the process, or one of its finished children, had so far.
        found: what the target returned.
    """

    cpu: float
    wall: float
    load: float
    peak_mb: float
    found: dict[str, Any]


class SideError(RuntimeError):
    """A side died; the message has the end of what it said."""


class Side:
    """A process that measures one thing again and again.

    Args:
        target: "module:function" whose result is measured; its arguments are `options`.
        environment: OURS, ONE_THREAD, or nothing for a script that sets nothing.
        options: JSON data.
    """

    def __init__(
        self, target: str, environment: Mapping[str, str], options: Mapping[str, Any] | None = None
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
        path = os.pathsep.join([str(ROOT), str(ROOT / "src"), inherited.get("PYTHONPATH", "")])
        self.target = target
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.side", target, json.dumps(options or {})],
            env={**inherited, "PYTHONPATH": path, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def begin(self) -> None:
        """Let it measure once; returns at once."""
        assert self._process.stdin
        try:
            self._process.stdin.write("measure\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def finish(self) -> Sample:
        """Wait for what `begin` began."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        return Sample(**json.loads(line))

    def measure(self) -> Sample:
        """One measurement."""
        self.begin()
        return self.finish()

    def _died(self) -> SideError:
        self._process.wait()
        self._said.seek(0)
        return SideError(f"{self.target}: {self._said.read().decode(errors='replace')[-2000:]}")

    def __enter__(self) -> "Side":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(kill=kind is not None)

    def close(self, kill: bool = False) -> None:
        """End the process."""
        if kill:
            self._process.kill()
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._said.close()


def interleaved(sides: Mapping[str, Side], rounds: int) -> dict[str, list[Sample]]:
    """`rounds` measurements of every side in turns, after one of each that warms up and does not count."""
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            sample = side.measure()
            if turn:
                samples[name].append(sample)
    return samples


def at_once(sides: Sequence[Side]) -> list[Sample]:
    """One measurement of every side, all at the same time."""
    for side in sides:
        side.begin()
    return [side.finish() for side in sides]


def command(words: Sequence[str], folder: str) -> Callable[[], None]:
    """A target: a command in a folder; it has to succeed."""

    def measure() -> None:
        subprocess.run(words, cwd=folder, check=True, stdin=subprocess.DEVNULL)

    return measure


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _peak_mb() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    try:  # getrusage's own figure begins with the memory of the process that started this one
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
    except OSError:
        found = None
    own = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(own, children) / 1024


def _serve(target: str, options: dict[str, Any]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the measured code prints is no answer
    module, function = target.split(":")
    measured = getattr(importlib.import_module(module), function)(**options)
    for _ in sys.stdin:
        load, cpu, wall = os.getloadavg()[0], _cpu(), time.perf_counter()
        found = measured()
        sample = {
            "wall": time.perf_counter() - wall,
            "cpu": _cpu() - cpu,
            "load": load,
            "peak_mb": _peak_mb(),
            "found": found if isinstance(found, dict) else {},
        }
        answers.write(json.dumps(sample) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.argv[1], json.loads(sys.argv[2]))
