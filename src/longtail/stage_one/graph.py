"""A training step as one CUDA graph: the host launches one thing where it would launch hundreds of kernels.

A step of a small network is bound by those launches, not by what the kernels compute. A graph is replayed
on fixed addresses, so a batch is first copied to where the captured one lay.

Several trainings may share a device in one process, each in a thread. What a thread does for the first time
loads kernels and sets up libraries, which can break a capture in another thread. So while one captures, all
others stand still between two of their steps.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from longtail.stage_one.batch import Batch

WARM_UP = 3  # steps of a shape that run as they are: libraries set up, the optimiser makes its momentum


Work = Callable[[Sequence[Batch], Tensor, Hashable], None]


Capture = Callable[[Callable[[], None]], Callable[[], None]]


Shape = tuple[Hashable, ...]


class Gate:
    """Lets one thread capture while the others that are at work stand still."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._own = threading.local()
        self._at_work = self._waiting = 0
        self._closed = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """For the length of a training."""
        self._come_in()
        try:
            yield
        finally:
            self._go_out()

    def pass_by(self) -> None:
        """Between two steps: stand still while a thread captures, or waits to do so."""
        if self._waiting or self._closed:
            with self._outside():
                pass

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While no other thread is at work."""
        with self._outside():
            with self._changed:
                self._waiting += 1
                self._changed.wait_for(lambda: not self._at_work and not self._closed)
                self._waiting, self._closed = self._waiting - 1, True
            try:
                yield
            finally:
                with self._changed:
                    self._closed = False
                    self._changed.notify_all()

    @contextmanager
    def _outside(self) -> Iterator[None]:
        came_in = getattr(self._own, "at_work", False)
        if came_in:
            self._go_out()
        try:
            yield
        finally:
            if came_in:
                self._come_in()

    def _come_in(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._closed)
            self._at_work += 1
        self._own.at_work = True

    def _go_out(self) -> None:
        self._own.at_work = False
        with self._changed:
            self._at_work -= 1
            self._changed.notify_all()


_GATE = Gate()
pass_by = _GATE.pass_by


class Recorder:
    """Records works on the current stream, which must not be the default one, into one pool of memory.

    Its graphs are replayed one after the other, and none reads what another has left in the pool.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` launches, without doing it; its replay."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with (
            _GATE.alone(),
            torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=torch.cuda.current_stream(),
                capture_error_mode="thread_local",
            ),
        ):
            work()
        return graph.replay


def fits(step: Callable[[], None]) -> bool:
    """Take a step; whether the memory that it took is free a second time, which its recording keeps."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    free, _ = torch.cuda.mem_get_info()
    return torch.cuda.max_memory_allocated() - before < free


class Replayed:
    """Does `work(batches, progress, course)`, by a captured graph once a shape has come WARM_UP times.

    Args:
        work: reads the batches and the 0-d progress, and changes only tensors that stay where they are. What
            it does may depend on the course, which is recorded as another shape is.
        capture: records a work that takes no arguments, without doing it; returns its replay.
        fits: takes a step and says whether there is memory to record it; without, it runs as it comes.
    """

    def __init__(
        self,
        work: Work,
        capture: Capture | None = None,
        fits: Callable[[Callable[[], None]], bool] = fits,
    ) -> None:
        self._work, self._capture, self._fits = work, capture or Recorder(), fits
        self._seen: dict[Shape, int] = {}
        self._too_large: set[Shape] = set()
        self._graphs: dict[Shape, tuple[list[Tensor], Callable[[], None]]] = {}

    def __call__(self, batches: Sequence[Batch], progress: Tensor, course: Hashable = None) -> None:
        """One step."""
        shape = (course, *(tuple(tensor.shape for tensor in batch.tensors()) for batch in batches))
        self._seen[shape] = seen = self._seen.get(shape, 0) + 1
        if seen == WARM_UP:
            if not self._fits(lambda: self._work(batches, progress, course)):
                self._too_large.add(shape)
            return
        if seen < WARM_UP or shape in self._too_large:
            return self._work(batches, progress, course)
        if shape not in self._graphs:
            self._graphs[shape] = self._record(batches, progress, course)
        addresses, replay = self._graphs[shape]
        for address, tensor in zip(addresses, _tensors(batches, progress), strict=True):
            address.copy_(tensor)
        replay()

    def _record(
        self, batches: Sequence[Batch], progress: Tensor, course: Hashable
    ) -> tuple[list[Tensor], Callable[[], None]]:
        own, time = [batch.clone() for batch in batches], progress.clone()
        return _tensors(own, time), self._capture(lambda: self._work(own, time, course))


def _tensors(batches: Sequence[Batch], progress: Tensor) -> list[Tensor]:
    return [tensor for batch in batches for tensor in batch.tensors()] + [progress]


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Work on a CUDA stream of one's own, as capture needs; nothing on a CPU."""
    if device.type != "cuda":
        yield
        return
    with _GATE.at_work():
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream(device).wait_stream(stream)
