"""Files of features: safetensors that are written and read piece by piece."""

import errno
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from longtail.features.file import writing


def test_what_is_written_in_pieces_is_a_safetensors_file(tmp_path):
    file = tmp_path / "views.safetensors"
    features = torch.randn(2, 5, 3)
    labels = torch.arange(5)
    with writing(file, {"features": ((2, 5, 3), torch.float32), "labels": ((5,), torch.int64)}) as out:
        out.put("features", 5, features[1])  # in any order
        out.put("labels", 0, labels)
        out.put("features", 0, features[0, :2])
        out.put("features", 2, features[0, 2:])
    assert torch.equal(load_file(file)["features"], features)
    assert torch.equal(load_file(file)["labels"], labels)
    assert all(torch.equal(load_file(file)[name], tensor) for name, tensor in load_file(file).items())


def test_what_does_not_fit_is_refused(tmp_path):
    with writing(tmp_path / "f", {"a": ((4, 3), torch.float32)}) as out:
        for first, rows in ((2, torch.zeros(3, 3)), (0, torch.zeros(1, 4)), (0, torch.zeros(1, 3).double())):
            with pytest.raises(ValueError, match="do not fit"):
                out.put("a", first, rows)


def test_any_safetensors_file_is_mapped(tmp_path):
    tensors = {"a": torch.randn(3, 2), "none": torch.empty(0, 7), "on": torch.tensor(True)}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"by": "us"})
    found = load_file(tmp_path / "a.safetensors")
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in tensors.items()}
    assert torch.equal(found["a"], tensors["a"])
    found["a"].zero_()  # memory changes, the file does not
    assert torch.equal(load_file(tmp_path / "a.safetensors")["a"], tensors["a"])


def test_a_full_disk_is_known_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(OSError, match="No space left"),
        writing(tmp_path / "f", {"a": ((9, 9), torch.float32)}),
    ):
        pytest.fail("began to write")


STREAM = """
import resource, sys, torch
from pathlib import Path
from safetensors.torch import load_file

from longtail.features.file import writing
file, rows, d = Path(sys.argv[1]), 115_846, 2048
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
row = torch.arange(d, dtype=torch.float32)
with writing(file, {"features": ((1, rows, d), torch.float32)}) as out:
    for first in range(0, rows, 1000):
        count = min(1000, rows - first)
        out.put("features", first, row + torch.arange(first, first + count)[:, None])
print(int(peak() - before))
found = load_file(file)["features"][0]
assert found.shape == (rows, d)
chosen = torch.tensor([0, 57_000, rows - 1])
assert torch.equal(found[chosen], row + chosen[:, None])
"""


def test_the_features_of_imagenet_lt_are_written_in_the_memory_of_a_batch(tmp_path):
    """115,846 x 2,048 numbers, 0.95 GB, written in under 100 MB of memory and read where they are needed."""
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(tmp_path / "features.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 100
