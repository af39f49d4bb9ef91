"""Files of features, written as a stream: what is in memory is a batch, not the file.

The format is safetensors, whose header needs only names, types and shapes: these are known beforehand.
safetensors' own reader maps such a file, so that reading takes no more memory than what is looked at.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

NAMES = {torch.float32: "F32", torch.int64: "I64"}

Shapes = dict[str, tuple[tuple[int, ...], torch.dtype]]


class Writer:
    """Tensors of a file that is being written, filled in any order."""

    def __init__(self, out: BinaryIO, places: dict[str, tuple[int, tuple[int, ...], torch.dtype]]) -> None:
        self._out, self._places = out, places

    def put(self, name: str, first: int, rows: Tensor) -> None:
        """Write rows (n, d) of a tensor (..., d), or (n,) of one (N,), from its row `first` on."""
        start, shape, kind = self._places[name]
        width = shape[1:][-1:]
        if rows.dtype != kind or rows.shape[1:] != width or first + len(rows) > prod(shape) // prod(width):
            raise ValueError(f"{name}: rows {tuple(rows.shape)} from {first} on do not fit into {shape}")
        self._out.seek(start + first * prod(width) * kind.itemsize)
        self._out.write(rows.detach().cpu().contiguous().numpy().tobytes())


@contextmanager
def writing(file: Path, shapes: Shapes) -> Iterator[Writer]:
    """A new file, whole once the block has ended.

    Args:
        file: to write.
        shapes: shape, (..., d) or (N,), and type (float32 or int64) of each tensor by its name.

    Raises:
        OSError: if the disk has not the room, before anything is written.
    """
    header: dict[str, object] = {}
    end = 0
    for name, (shape, kind) in shapes.items():
        size = prod(shape) * kind.itemsize
        header[name] = {"dtype": NAMES[kind], "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that tensors begin at a multiple of 8
    start, places = 8 + len(text), {}
    for name, (shape, kind) in shapes.items():
        places[name] = start, shape, kind
        start += prod(shape) * kind.itemsize
    with file.open("wb") as out:
        if end:
            _reserve(out, start)
        out.write(len(text).to_bytes(8, "little") + text)
        yield Writer(out, places)


def _reserve(out: BinaryIO, size: int) -> None:
    """Take the room on the disk that a file will need, in bytes; macOS only sets the file's length."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(out.fileno(), 0, size)
    else:
        out.truncate(size)
