"""What a picture looks like, in 192 bits: near-duplicates differ in few of them, at any size or format.

Three hashes of 64 bits side by side, all of the grey picture: whether it brightens from left to right and
from top to bottom in a grid of eight by eight (difference hash, Krawetz 2013), and which of its 64 lowest
frequencies are above their median (pHash, Zauner 2010). Colour is not looked at.

Measured on 3,340 photographs of Caltech-101 (5.6 million pairs) and 300 copies of them that lack 5 % of width
and height, half on each side. With the distance at which 95 % of these copies are found, so many other
pairs are found too:

    bits                                distance    pairs    of these in two classes
    difference, left to right, 64              9    2,460                      1,575
    differences both ways, 128                17      456                        161
    pHash, 64                                 10      774                          9
    all three, 192                            24       87                          0

Of the 87 all but a few are the same picture, retouched, recoloured or photographed again.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = 192
WORDS = BITS // 64
SIDE = 32  # pixels of the grey picture of which frequencies are taken
ENOUGH = 64  # pixels of the shorter side to which larger pictures are brought first
FLAT = "flat"  # of a picture without structure, which has no hash
LEAST_CONTRAST = 2.0  # standard deviation in grey levels below which a picture is flat


def perceptual_hash(picture: Image.Image) -> str:
    """The hash of a picture as 48 hexadecimal digits; FLAT where it shows next to nothing.

    Args:
        picture: with 8 bits a channel, at any size; best at least 32 pixels a side.
    """
    grey = picture.convert("L")
    grey = grey.reduce(max(1, min(grey.size) // ENOUGH)).convert("F")
    across, down = _resized(grey, 9, 8), _resized(grey, 8, 9)
    seen = _resized(grey, SIDE, SIDE)
    if seen.std() < LEAST_CONTRAST:
        return FLAT
    frequencies = _cosines() @ seen @ _cosines().T
    low = frequencies.ravel()
    bits = np.concatenate(
        [
            (across[:, 1:] > across[:, :-1]).ravel(),
            (down[1:] > down[:-1]).ravel(),
            low > np.median(low[1:]),  # without the mean of the picture
        ]
    )
    return np.packbits(bits).tobytes().hex()


def words(hashes: Sequence[str]) -> NDArray[np.uint64]:
    """Hashes as (N, 3) words of 64 bits; none of them may be FLAT."""
    raw = bytes.fromhex("".join(hashes))
    return np.frombuffer(raw, dtype=">u8").astype(np.uint64).reshape(-1, WORDS)


def _resized(grey: Image.Image, width: int, height: int) -> NDArray[np.float32]:
    return np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


@cache
def _cosines() -> NDArray[np.float64]:
    """The eight lowest rows of the orthonormal discrete cosine transform (type II) of 32 values."""
    frequency, place = np.arange(8)[:, None], np.arange(SIDE)[None, :]
    rows = np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows)
