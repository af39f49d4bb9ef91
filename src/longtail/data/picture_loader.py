"""Picture files as a training sees them: batches, decoded in threads ahead of the step that needs them.

`PictureFiles` stands where a tensor of images could: it has a shape and a length, is indexed and split into
batches. Pillow decodes without Python's lock, so threads keep several cores busy, and a killed process leaves
none behind. What chance decides is drawn before, so that results do not depend on the number of threads; and
memory holds a few batches, however many pictures there are.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longtail.data.decode import Box, NotAPicture, center, square
from longtail.device import cores, threads
from longtail.errors import UserError
from longtail.settings.data import Pictures

COMPUTES = False  # runs on picture files name it, so that no other run depends on it
CPU = torch.device("cpu")
AHEAD = 4  # batches that are decoded before they are asked for
TASK = 8  # pictures a task of a thread

Crop = Callable[[int, int, int], Box]  # row, width, height of a picture to the part of it that is seen
Finish = Callable[
    [Tensor, Tensor], Tensor
]  # a batch (B, C, S, S) and its rows (B,) to the batch as it is seen


@dataclass(frozen=True)
class PictureFiles:
    """Pictures as uint8 (N, C, S, S), decoded when a batch of them is asked for.

    Attributes:
        root: folder that the names are relative to.
        names: of all files of the part.
        look: what is seen of a picture in evaluation.
        rows: which of the files these are, int64 (N,), on the CPU.
        device: where batches go.
        crop: the part of a picture that is seen, by its place in `drawn`; None: the middle, as in evaluation.
        finish: what is done to a batch on the device.
        drawn: places of these pictures in what chance decided for `crop` and `finish`, int64 (N,).
    """

    root: Path
    names: Sequence[str]
    look: Pictures
    rows: Tensor
    device: torch.device = CPU
    crop: Crop | None = None
    finish: Finish | None = None
    drawn: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """As that of a tensor of these images."""
        return torch.Size((len(self.rows), self.look.channels, self.look.size, self.look.size))

    def to(self, device: torch.device) -> "PictureFiles":
        """The same, with batches on a device."""
        return replace(self, device=device)

    def __getitem__(self, chosen: Tensor | slice) -> "PictureFiles":
        """Some of them, in the order of indices (n,) of any device."""
        if isinstance(chosen, Tensor):
            chosen = chosen.cpu()
        drawn = None if self.drawn is None else self.drawn[chosen]
        return replace(self, rows=self.rows[chosen], drawn=drawn)

    def seen(self, crop: Crop | None, finish: Finish) -> "PictureFiles":
        """The same, each cropped and finished as was drawn for its place."""
        return replace(self, crop=crop, finish=finish, drawn=torch.arange(len(self)))

    def same_as(self, other: "PictureFiles") -> bool:
        """Whether they are the same files in the same order."""
        return (self.root, self.names) == (other.root, other.names) and torch.equal(self.rows, other.rows)

    def split(self, sizes: int | Sequence[int]) -> "Batches":
        """Batches of a size, of which the last may be smaller, or of these sizes."""
        if isinstance(sizes, int):
            whole, rest = divmod(len(self), sizes)
            sizes = [sizes] * whole + [rest] * (rest > 0)
        return Batches(self, sizes)

    def decoded(self, row: int, place: int) -> NDArray[np.uint8]:
        """One picture, (S, S, C).

        Raises:
            UserError: if its file cannot be read.
        """
        crop = self.crop
        region = center(self.look.center) if crop is None else lambda w, h: crop(place, w, h)
        path = self.root / self.names[row]
        try:
            return square(path, self.look.channels, self.look.size, region, self.look.interpolation)
        except NotAPicture as reason:
            raise UserError(
                f"{path}: {reason}; check-data with these settings finds all such files, "
                "data.broken: skip leaves them out"
            ) from None


class Batches(Sequence[Tensor]):
    """Batches of picture files: decoded ahead where they are asked for in order, any other alone."""

    def __init__(self, files: PictureFiles, sizes: Sequence[int]) -> None:
        self._files = files
        ends = list(accumulate(sizes, initial=0))
        self._parts = [slice(*edges) for edges in pairwise(ends)]
        self._waiting: dict[int, tuple[Tensor, list[Future[None]]]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index == 0:
            self._next = 0  # also where others were asked for before
        if index == self._next:
            for number in range(index, min(index + 1 + AHEAD, len(self))):
                if number not in self._waiting:
                    self._waiting[number] = self._begun(number)
            self._next += 1
        pixels, tasks = self._waiting.pop(index) if index in self._waiting else self._begun(index)
        try:
            for task in tasks:
                task.result()
        except BaseException:
            self._give_up()
            raise
        files = self._files
        batch = pixels.to(files.device, non_blocking=True)
        return files.finish(batch, self._places(index)) if files.finish else batch

    def _places(self, index: int) -> Tensor:
        drawn = self._files.drawn
        return (self._files.rows if drawn is None else drawn)[self._parts[index]]

    def _begun(self, index: int) -> tuple[Tensor, list[Future[None]]]:
        """A batch (B, C, S, S) that threads are filling, and their tasks."""
        files = self._files
        rows = files.rows[self._parts[index]].tolist()
        places = self._places(index).tolist()
        _, channels, side, _ = files.shape
        pinned = files.device.type == "cuda"  # so that the copy to the device waits for nothing
        pixels = torch.empty((len(rows), channels, side, side), dtype=torch.uint8, pin_memory=pinned)
        out = pixels.numpy()

        def fill(first: int) -> None:
            for number in range(first, min(first + TASK, len(rows))):
                out[number] = files.decoded(rows[number], places[number]).transpose(2, 0, 1)

        return pixels, [_threads().submit(fill, first) for first in range(0, len(rows), TASK)]

    def _give_up(self) -> None:
        for _, tasks in self._waiting.values():
            for task in tasks:
                task.cancel()
        self._waiting.clear()


def decoders() -> int:
    """Threads that decode: LONGTAIL_DECODERS, else the cores of this process with a GPU.

    Without one as many as torch has, since a run on the CPU has the cores that it was given, most often one,
    and the network needs them too.

    Raises:
        UserError: if LONGTAIL_DECODERS is no number of at least 1.
    """
    given = os.environ.get("LONGTAIL_DECODERS")
    if given is None:
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes of the same run
        return max(1, cores() // beside) if torch.cuda.is_available() else threads()
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"LONGTAIL_DECODERS={given}: should be a number of threads, at least 1")
    return int(given)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(decoders(), thread_name_prefix="decode")
