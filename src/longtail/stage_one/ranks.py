"""The processes that train one run together: none but this one, or as many as torchrun has started.

A batch is cut into shards, each normalised by its own statistics, as on so many devices; how many processes
share them out changes only the order in which numbers are added. So a run on four GPUs, on two, and on one
that takes four shards one after the other (gradient accumulation) is the same run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among those that train a run.

    Attributes:
        rank: of this process, from 0; that of rank 0 writes and reports.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def own(self, parts: int) -> range:
        """Which of a number of parts are this process's: as many as any other's, in order."""
        return range(parts * self.rank // self.size, parts * (self.rank + 1) // self.size)

    def add(self, *tensors: Tensor) -> None:
        """Put the sum over all processes in place of each tensor; they travel as one."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten().to(tensors[0].dtype) for tensor in tensors])
        dist.all_reduce(flat)
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, values in zip(tensors, torch.split(flat, sizes), strict=True):
            tensor.copy_(values.view_as(tensor))

    def broadcast(self, read: Callable[[], Any]) -> Any:
        """What the process that leads reads, the same for all: another might see an older file."""
        found = [read() if self.is_main else None]
        if self.size > 1:
            dist.broadcast_object_list(found)
        return found[0]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (n, d) of all processes on the CPU, those of rank 0 first; n may differ."""
        if self.size == 1:
            return rows
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, rows.cpu())
        return torch.cat(found)


class Shard(NamedTuple):
    """A stretch of an epoch's images that goes through the network at once.

    Attributes:
        number: among the shards of its batch.
        start, stop: of the stretch, in the order of the epoch.
        share: of the images of its batch.
    """

    number: int
    start: int
    stop: int
    share: float


def shards(images: int, batch_size: int, number: int, ranks: Ranks) -> list[list[Shard]]:
    """The shards of this process, by step; none of them is empty.

    Args:
        images: of the epoch.
        batch_size: images of a step; the last may have fewer.
        number: shards a batch.
        ranks: the processes that share them out.
    """
    found = []
    for first in range(0, images, batch_size):
        size = min(batch_size, images - first)
        edges = [first + size * part // number for part in range(number + 1)]
        stretches = list(enumerate(pairwise(edges)))
        own = [stretches[part] for part in ranks.own(number)]
        found.append([Shard(n, a, b, (b - a) / size) for n, (a, b) in own if a < b])
    return found


class Statistics:
    """Running statistics of batch normalisation over a batch: the mean of what its shards make of them."""

    def __init__(self, modules: nn.Module, ranks: Ranks) -> None:
        self._ranks = ranks
        self._buffers: list[Tensor] = []
        for module in modules.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
                self._buffers += [b for b in (module.running_mean, module.running_var) if b is not None]
        self._before = [buffer.clone() for buffer in self._buffers]
        self._moved = [torch.zeros_like(buffer) for buffer in self._buffers]
        self._count = 0

    def begin(self) -> None:
        """Before a shard: the statistics are those before the batch."""
        if self._buffers and self._count:
            torch._foreach_copy_(self._buffers, self._before)

    def end(self) -> None:
        """After a shard: by how much it moved them is noted."""
        if self._buffers:
            torch._foreach_add_(self._moved, torch._foreach_sub(self._buffers, self._before))
        self._count += 1

    def average(self) -> None:
        """After the batch: they move by the mean over the shards of all processes; frozen ones stay."""
        if self._buffers:
            count = self._buffers[0].new_full((), float(self._count))  # which the host does not wait for
            self._ranks.add(*self._moved, count)
            torch._foreach_div_(self._moved, count)
            torch._foreach_copy_(self._buffers, torch._foreach_add(self._before, self._moved))


def ranks() -> Ranks:
    """The processes of this run."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size())
