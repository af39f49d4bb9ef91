"""A training step as one CUDA graph: the host launches one thing where it would launch hundreds of kernels.

A step of a small network is bound by those launches, not by what the kernels compute. A graph is replayed
on fixed addresses, so a batch is first copied to where the captured one lay.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from longtail.stage_one.batch import Batch

WARM_UP = 3  # steps of a shape that run as they are: libraries set up, the optimiser makes its momentum


_CAPTURING = threading.Lock()  # one capture at a time in a process, where several trainings share a device


Work = Callable[[Sequence[Batch], Tensor], None]


Capture = Callable[[Callable[[], None]], Callable[[], None]]


def capture(work: Callable[[], None]) -> Callable[[], None]:
    """Record what `work` launches on the current stream, which must not be the default one; its replay."""
    graph = torch.cuda.CUDAGraph()
    recording = torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local")
    with _CAPTURING, recording:
        work()
    return graph.replay


class Replayed:
    """Does `work(batches, progress)`, by a captured graph once a shape of batches has come WARM_UP times.

    Args:
        work: reads the batches and the 0-d progress, and changes only tensors that stay where they are.
        capture: records a work that takes no arguments, without doing it; returns its replay.
    """

    def __init__(self, work: Work, capture: Capture = capture) -> None:
        self._work, self._capture = work, capture
        self._seen: dict[tuple[torch.Size | None, ...], int] = {}
        self._graphs: dict[tuple[torch.Size | None, ...], tuple[list[Tensor], Callable[[], None]]] = {}

    def __call__(self, batches: Sequence[Batch], progress: Tensor) -> None:
        """One step."""
        shape = tuple(None if tensor is None else tensor.shape for batch in batches for tensor in batch)
        self._seen[shape] = self._seen.get(shape, 0) + 1
        if self._seen[shape] <= WARM_UP:
            return self._work(batches, progress)
        if shape not in self._graphs:
            self._graphs[shape] = self._record(batches, progress)
        addresses, replay = self._graphs[shape]
        for address, tensor in zip(addresses, _tensors(batches, progress), strict=True):
            address.copy_(tensor)
        replay()

    def _record(self, batches: Sequence[Batch], progress: Tensor) -> tuple[list[Tensor], Callable[[], None]]:
        own = [Batch._make(None if part is None else part.clone() for part in batch) for batch in batches]
        time = progress.clone()
        return _tensors(own, time), self._capture(lambda: self._work(own, time))


def _tensors(batches: Sequence[Batch], progress: Tensor) -> list[Tensor]:
    return [tensor for batch in batches for tensor in batch if tensor is not None] + [progress]


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Work on a CUDA stream of one's own, as capture needs; nothing on a CPU."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)
