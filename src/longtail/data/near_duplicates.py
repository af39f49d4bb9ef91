"""Groups of pictures that look nearly alike, by the distance of their perceptual hashes.

Every pair is compared, so that none is missed. Hashes that differ in at most 24 of 192 bits differ in at most
8 of 64 in one of their three words: numpy counts these bits word by word, in blocks that fit into a core's
cache and in a thread a core, and only what is within a third of the distance in one word is compared in all.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from longtail.data.perceptual_hash import WORDS, words
from longtail.device import cores

ROWS, COLUMNS = 64, 2048  # pairs that are compared at once: 1 MB

Indices = NDArray[np.int64]


def near_pairs(hashes: Sequence[str], distance: int) -> tuple[Indices, Indices]:
    """Every pair of hashes that differ in at most so many bits.

    Args:
        hashes: of pictures, 48 hexadecimal digits each.
        distance: bits.

    Returns:
        Pairs of indices (P, 2), the smaller one first, in ascending order; their distances (P,).
    """
    found = words(hashes)
    columns = np.ascontiguousarray(found.T)
    with ThreadPoolExecutor(cores()) as threads:
        starts = range(0, len(found), ROWS)
        parts = list(threads.map(lambda start: _candidates(columns, start, distance // WORDS), starts))
    codes = np.unique(np.concatenate([np.empty(0, np.int64), *parts]))  # a pair may be near in two words
    pairs = np.stack(np.divmod(codes, max(1, len(found))), axis=1)
    bits = np.bitwise_count(found[pairs[:, 0]] ^ found[pairs[:, 1]]).sum(axis=1, dtype=np.int64)
    near = bits <= distance
    return pairs[near], bits[near]


def _candidates(columns: NDArray[np.uint64], start: int, most: int) -> Indices:
    """Pairs (i, j), i < j, of some rows i that differ in at most `most` bits of one word, as i N + j."""
    count = columns.shape[1]
    parts = [np.empty(0, np.int64)]
    for first in range(start // COLUMNS * COLUMNS, count, COLUMNS):
        for column in columns:
            differing = column[start : start + ROWS, None] ^ column[None, first : first + COLUMNS]
            row, place = np.divmod(np.flatnonzero(np.bitwise_count(differing) <= most), differing.shape[1])
            row, place = row + start, place + first
            parts.append((row * count + place)[place > row])
    return np.concatenate(parts)


def joined(count: int, pairs: Indices) -> NDArray[np.int64]:
    """The group of each of some pictures, (N,), where those of a pair, and of pairs with these, are one.

    A group is named by its first picture's index.
    """
    parent = np.arange(count)

    def top(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = int(parent[one])
        return one

    for one, other in pairs.tolist():
        first, second = sorted((top(one), top(other)))
        parent[second] = first
    return np.array([top(one) for one in range(count)], dtype=np.int64)
