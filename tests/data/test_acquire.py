"""Official files: checked before they are read, and one clear line for everything that can be wrong."""

import gzip
import json
import pickle
from dataclasses import replace
from hashlib import md5
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from longtail import acquire
from longtail.acquire import compute
from longtail.datasets import DATASETS
from longtail.errors import UserError
from longtail.job import Job
from longtail.params import AcquireSettings


def run(tmp_path, dataset, root, download=False):
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    job = Job(
        "acquire",
        dataset,
        AcquireSettings(dataset=dataset, root=str(root), download=download),
        {},
        folder,
        folder,
    )
    compute(job)
    return {part: load_file(folder / f"{part}.safetensors") for part in ("train", "test")}


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A root with small files of CIFAR-100's format and names, whose sums are the published ones."""
    root = tmp_path / "root"
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    contents = {
        "train": {"data": rng.integers(0, 256, (6, 3072), dtype=np.uint8), "fine_labels": [0, 1, 2, 0, 1, 2]},
        "test": {"data": rng.integers(0, 256, (3, 3072), dtype=np.uint8), "fine_labels": [2, 1, 0]},
        "meta": {"fine_label_names": ["a", "b", "c"]},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    sums = {name: md5((folder / name).read_bytes()).hexdigest() for name in contents}
    monkeypatch.setitem(DATASETS, "cifar100", replace(DATASETS["cifar100"], files=sums))
    return root, contents


def test_cifar_becomes_tensors_in_the_official_order(tmp_path, official):
    root, contents = official
    parts = run(tmp_path, "cifar100", root)
    for part, tensors in parts.items():
        assert tensors["labels"].tolist() == contents[part]["fine_labels"]
        assert torch.equal(tensors["images"].flatten(1), torch.from_numpy(contents[part]["data"]))
        assert tensors["images"].shape[1:] == (3, 32, 32)
    assert json.loads((tmp_path / "out/classes.json").read_text()) == ["a", "b", "c"]


def test_a_wrong_checksum_is_named_before_anything_is_unpickled(tmp_path, official, monkeypatch):
    root, _ = official
    file = root / "cifar-100-python/train"
    file.write_bytes(file.read_bytes() + b".")
    monkeypatch.setattr(acquire, "_unpickle", lambda _: pytest.fail("unpickled an unchecked file"))
    with pytest.raises(UserError, match=r"cifar-100-python/train: MD5 is \w+, published is \w+"):
        run(tmp_path, "cifar100", root)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_truncated_file_is_a_wrong_checksum(tmp_path, official):
    root, _ = official
    file = root / "cifar-100-python/test"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="test: MD5 is"):
        run(tmp_path, "cifar100", root)


def test_a_pickle_that_calls_something_is_not_read(tmp_path, official, monkeypatch):
    root, _ = official
    file = root / "cifar-100-python/train"
    file.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    sums = {**DATASETS["cifar100"].files, "train": md5(file.read_bytes()).hexdigest()}
    monkeypatch.setitem(DATASETS, "cifar100", replace(DATASETS["cifar100"], files=sums))
    with pytest.raises(pickle.UnpicklingError, match=r"os\.system does not belong"):
        run(tmp_path, "cifar100", root)


def test_missing_files_without_permission_to_download(tmp_path):
    with pytest.raises(
        UserError, match=r"no cifar-10-batches-py there, and data.download is false; set data.root"
    ):
        run(tmp_path, "cifar10", tmp_path / "empty")


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "fashion_mnist"])
def test_missing_files_without_a_network_leave_nothing_behind(tmp_path, monkeypatch, dataset):
    import torchvision

    def fails(root, download):
        raise URLError("no route to host")

    kind = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}[dataset]
    monkeypatch.setattr(torchvision.datasets, kind, fails)
    root = tmp_path / "root"
    with pytest.raises(
        UserError, match=r"no network .*no route to host.*set data.root to a folder that holds"
    ):
        run(tmp_path, dataset, root, download=True)
    assert list(root.iterdir()) == []


def test_fashion_mnist_is_read_from_its_four_files(tmp_path, monkeypatch):
    root = tmp_path / "root"
    folder = root / "FashionMNIST/raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    known = {}
    for prefix, count in (("train", 5), ("t10k", 2)):
        images = rng.integers(0, 256, (count, 28 * 28), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        known[prefix] = (images, labels)
        for name, header, data in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(bytes(header) + data.tobytes()))
    sums = {file.name: md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    monkeypatch.setitem(DATASETS, "fashion_mnist", replace(DATASETS["fashion_mnist"], files=sums))
    parts = run(tmp_path, "fashion_mnist", root)
    assert (parts["train"]["images"].flatten(1).numpy() == known["train"][0]).all()
    assert parts["test"]["labels"].tolist() == known["t10k"][1].tolist()


def test_digits_are_embedded_with_a_balanced_test_part(tmp_path):
    parts = run(tmp_path, "digits", tmp_path / "nowhere")
    assert torch.bincount(parts["test"]["labels"]).tolist() == [50] * 10
    assert len(parts["train"]["labels"]) == DATASETS["digits"].train
    pixels = parts["train"]["images"].float() / 255
    assert pixels.mean().item() == pytest.approx(DATASETS["digits"].mean[0], abs=1e-4)
    assert pixels.std().item() == pytest.approx(DATASETS["digits"].std[0], abs=1e-3)


def test_other_digits_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], files={"content": "0" * 64}))
    with pytest.raises(UserError, match="digits of scikit-learn: SHA-256 is"):
        run(tmp_path, "digits", tmp_path)


def test_the_real_cifar_100_has_its_published_sums(tmp_path, root, shared):
    folder = root / "data/raw/cifar-100-python"
    if not folder.is_dir():
        pytest.skip("needs the official files in data/raw/cifar-100-python, which are not here")
    parts = run(tmp_path, "cifar100", folder.parent)
    assert parts["train"]["images"].shape == (50_000, 3, 32, 32)
    assert torch.bincount(parts["train"]["labels"]).tolist() == [500] * 100
