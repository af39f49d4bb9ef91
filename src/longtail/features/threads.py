"""The same work on one batch after the other, by threads that have a core each."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def in_order(work: Callable[[Tensor], Result], batches: Sequence[Tensor], threads: int) -> Iterator[Result]:
    """Results of batches in their order; as many batches at once as there are threads, and as many waiting.

    torch computes without Python's lock, and each thread with one of torch's own, so that a batch's result is
    that of a single thread. Batches are asked for by this thread, in order.
    """
    if threads == 1:
        yield from map(work, batches)
        return
    waiting: deque[Future[Result]] = deque()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, "batches", lambda: torch.set_num_threads(1)) as pool:
            for batch in batches:
                waiting.append(pool.submit(work, batch))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(before)
