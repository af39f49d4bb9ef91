"""Where every random number of training comes from.

A generator is made from a key that says what the numbers are for, e.g. `generator(seed, "augment", epoch)`.
So nothing has to be carried along: a run that resumes at epoch 17 draws what an uninterrupted run draws
there, and one purpose never shifts the numbers of another. The numbers are drawn on the CPU and then
moved, so that they are the same whatever device a run trains on.
"""

import json
from hashlib import sha256

import torch


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
