"""Where every random number of training comes from.

A generator is made from a key that says what the numbers are for, e.g. `generator(seed, "augment", epoch)`.
So nothing has to be carried along: a run that resumes at epoch 17 draws what an uninterrupted run draws
there, and one purpose never shifts the numbers of another. The numbers are drawn on the CPU and then
moved, so that they are the same whatever device a run trains on. Normals by the million are the exception:
see `Normals`.
"""

import json
import math
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def generator(*key: str | int) -> torch.Generator:
    """A CPU generator seeded from the SHA-256 of its key.

    Equal keys give equal streams, different keys unrelated ones; the parts of a key keep their borders
    and types, so ("a", 1), ("a", "1") and ("a1",) are three keys.

    Args:
        key: what the numbers are for; at least one part.

    Raises:
        ValueError: if the key is empty; all such callers would share one stream.
    """
    if not key:
        raise ValueError('a generator needs a key, e.g. generator(seed, "augment", epoch)')
    digest = sha256(json.dumps(key).encode()).digest()
    # torch's CPU generator keeps 32 bits of a seed: two of a run's few thousand keys share a stream with
    # a chance below one in a hundred, and then at two different purposes or epochs.
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


class Normals:
    """Standard normals in bulk: a stream seeded by the next numbers of a generator.

    On a CPU the bits are numpy's SFC64, and a 64-bit word becomes two normals (Box and Muller 1958), all in
    numpy's vectorised functions: two thirds of the time of torch.randn, whose bits come one after the other
    from a Mersenne twister. 32 bits make the radius, so that tails reach 6.7 standard deviations and no
    logarithm sees a zero. On another device its own generator draws: normals then differ between kinds of
    devices, while the same device draws the same ones again.

    Args:
        generator: a keyed CPU generator; every stream that is made of it is another.
        device: where the normals are wanted.
        stock: how many are made ahead where fewer are taken at a time; best all that will be taken, as
            matrix products in between slow the making down by a quarter.
    """

    _PAIRS = 1 << 14  # made at once, so that what is between bits and normals stays in the cache

    def __init__(self, generator: torch.Generator, device: torch.device, stock: int = 1 << 20) -> None:
        seed = torch.randint(2**63 - 1, (2,), generator=generator).tolist()
        self._device = device
        if device.type == "cpu":
            self._bits = np.random.SFC64(seed)
            self._radius, self._angle = np.empty((2, self._PAIRS), np.float32)
            self._stock, self._ahead = np.empty(0, np.float32), stock
        else:
            self._generator = torch.Generator(device).manual_seed(seed[0])

    def __call__(self, rows: int, columns: int) -> Tensor:
        """The next normals of the stream, independent of each other, float32 (rows, columns)."""
        if self._device.type != "cpu":
            return torch.randn(rows, columns, generator=self._generator, device=self._device)
        wanted = rows * columns
        if wanted > len(self._stock):
            number = max(wanted, self._ahead)
            self._stock = np.empty(number + number % 2, np.float32)
            for first in range(0, len(self._stock), 2 * self._PAIRS):
                self._fill(self._stock[first : first + 2 * self._PAIRS])
        taken, self._stock = self._stock[:wanted], self._stock[wanted:]
        return torch.from_numpy(taken).view(rows, columns)

    def _fill(self, out: NDArray[np.float32]) -> None:
        """Fill `out`, of an even length, with normals."""
        pairs = len(out) // 2
        bits = self._bits.random_raw(pairs).view(np.int32)
        radius, angle = self._radius[:pairs], self._angle[:pairs]
        # The size of a signed number i is uniform on 0 to 2^31: u = |i| / 2^31 + 2^-32 is in (0, 1], and
        # as fine as 2^-31 near 0, where the tails are.
        np.abs(_as_float(bits[:pairs], radius), out=radius)
        radius *= np.float32(2**-31)
        radius += np.float32(2**-32)
        np.log(radius, out=radius)
        radius *= np.float32(-2)
        np.sqrt(radius, out=radius)
        angle = _as_float(bits[pairs:], angle)
        angle *= np.float32(math.pi / 2**31)
        for function, half in ((np.cos, out[:pairs]), (np.sin, out[pairs:])):
            function(angle, out=half)
            half *= radius


def _as_float(bits: NDArray[np.int32], out: NDArray[np.float32]) -> NDArray[np.float32]:
    np.copyto(out, bits, casting="unsafe")
    return out
