"""Two processes that know each other and train one run after another, as torchrun would start two for each.

Starting them is what takes the time: each imports torch. `Pair` stands in for `subprocess.Popen` where
`launch` starts torchrun, and hands the two the file with which torchrun starts a process.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Pair:
    """The two processes, and what `launch` has asked of them.

    Attributes:
        statuses: the exit status of each process for each time it was asked, in the order of ranks.
    """

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.stage_one.pair", str(folder / "meeting")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        self._processes = [
            subprocess.Popen(
                [*command, str(rank)],
                env={**environment, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        self.statuses: list[list[int]] = []

    def popen(self, command: Sequence[str], **_: Any) -> "Pair":
        """As `subprocess.Popen`, of torchrun with two processes on this machine."""
        assert command[1:3] == ["-m", "torch.distributed.run"]
        assert command[command.index("--nproc-per-node") + 1] == "2"
        assert "--standalone" in command
        self._file = command[-1]
        return self

    def wait(self) -> int:
        """Train, and once more where a process failed, as torchrun does; the exit status."""
        for _ in range(2):
            for process in self._processes:
                assert process.stdin is not None
                process.stdin.write(f"{self._file}\n")
                process.stdin.flush()
            self.statuses.append([self._answer(process) for process in self._processes])
            if not any(self.statuses[-1]):
                return 0
        return 1

    def _answer(self, process: "subprocess.Popen[str]") -> int:
        assert process.stdout is not None
        return int(process.stdout.readline().removeprefix("exit "))

    def end(self) -> None:
        """Let the processes end."""
        for process in self._processes:
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:  # the other one has died in the middle of a training
                process.kill()


def main(meeting: str, rank: int) -> None:
    """One of the two: train what each line of standard input names."""
    import torch.distributed as dist

    from longtail.stage_one import process

    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    begin, leave = dist.init_process_group, dist.destroy_process_group
    # each training finds the group that is there, and leaves it to the next one
    dist.init_process_group = lambda backend: None
    dist.destroy_process_group = lambda: None
    for line in sys.stdin:
        status = 0
        try:
            process.main(line.strip())
        except SystemExit as end:
            status = int(end.code or 0)
        print(f"exit {status}", flush=True)
    dist.init_process_group, dist.destroy_process_group = begin, leave
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
