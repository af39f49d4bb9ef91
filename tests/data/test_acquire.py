"""Official files: checked before they are read, and one clear line for everything that can be wrong."""

import gzip
import json
import pickle
from dataclasses import replace
from hashlib import md5
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file

from longtail.data import official as official_files
from longtail.data.acquire import compute
from longtail.errors import UserError
from longtail.runs.job import Job
from longtail.settings.acquire import AcquireSettings
from longtail.settings.datasets import DATASETS


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
    monkeypatch.setattr(official_files, "_unpickle", lambda _: pytest.fail("unpickled an unchecked file"))
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
        UserError, match=r"cifar-10-batches-py: not there and data\.download is false; set data\.root"
    ):
        run(tmp_path, "cifar10", tmp_path / "empty")


KINDS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (URLError("no route to host"), r"not there and no network \(.*no route to host.*\); set data\.root"),
        (
            TimeoutError("timed out"),
            r"not there and no network \(timed out\); set data\.root to a folder that holds",
        ),
        (
            HTTPError("http://x", 404, "Not Found", None, None),
            r"the server answers 404 Not Found; set data\.root",
        ),
        (RuntimeError("File not found or corrupted."), r"the download failed \(File not found or corrupted"),
        (OSError(28, "No space left on device"), r"the download failed \(\[Errno 28\] No space left"),
        (IncompleteRead(b"x", 9), r"the download failed \(IncompleteRead"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize("dataset", KINDS)
def test_a_failed_download_is_one_line_and_leaves_nothing_behind(tmp_path, monkeypatch, dataset, error, line):
    def fails(root, download):
        Path(root, "half.tar.gz").write_bytes(b"half")
        raise error

    monkeypatch.setattr(torchvision.datasets, KINDS[dataset], fails)
    with pytest.raises(UserError, match=line) as caught:
        run(tmp_path, dataset, tmp_path / "deep/root", download=True)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert list((tmp_path / "out").iterdir()) == []


def downloads(monkeypatch, contents):
    """Stand in for torchvision's download of CIFAR-100: it brings these files."""

    def brings(root, download):
        folder = Path(root, "cifar-100-python")
        folder.mkdir()
        for name, content in contents.items():
            (folder / name).write_bytes(content)

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", brings)


def test_a_download_brings_what_is_missing_and_touches_nothing_else(tmp_path, official, monkeypatch):
    root, _ = official
    folder = root / "cifar-100-python"
    known = {file.name: file.read_bytes() for file in folder.iterdir()}
    downloads(monkeypatch, known)
    (folder / "train").unlink()
    (folder / "notes.txt").write_text("mine")
    kept = (folder / "meta").stat().st_ino
    assert len(run(tmp_path, "cifar100", root, download=True)["train"]["labels"]) == 6
    assert {file.name for file in folder.iterdir()} == {*known, "notes.txt"}
    assert (folder / "meta").stat().st_ino == kept
    assert [path.name for path in root.iterdir()] == ["cifar-100-python"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "root"]


def test_a_download_of_other_files_is_not_kept(tmp_path, official, monkeypatch):
    _, _ = official
    downloads(monkeypatch, dict.fromkeys(("train", "test", "meta"), b"something else"))
    with pytest.raises(UserError, match=r"train: MD5 is \w+, published is"):
        run(tmp_path, "cifar100", tmp_path / "elsewhere", download=True)
    assert not (tmp_path / "elsewhere").exists()


def test_files_that_are_there_are_read_from_a_folder_that_cannot_be_written_to(
    tmp_path, official, monkeypatch
):
    root, _ = official
    monkeypatch.setattr(official_files, "_download", lambda *_: pytest.fail("downloaded what is there"))
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    run(tmp_path, "cifar100", root, download=True)
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*")} == before


def test_the_folder_of_the_files_given_as_root_is_told_its_parent(tmp_path, official):
    root, _ = official
    with pytest.raises(UserError, match=f"is itself the folder of the official files; .*: {root}$"):
        run(tmp_path, "cifar100", root / "cifar-100-python")


@pytest.mark.parametrize("download", [True, False])
def test_a_file_in_place_of_a_folder_is_one_line(tmp_path, monkeypatch, download):
    downloads(monkeypatch, {})
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(UserError, match=r"/file: is a file and no folder; set data\.root"):
        run(tmp_path, "cifar100", file, download)
    assert file.read_text() == "no folder"


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


def test_the_real_cifar_100_has_its_published_sums(tmp_path, official_cifar100):
    parts = run(tmp_path, "cifar100", official_cifar100)
    assert parts["train"]["images"].shape == (50_000, 3, 32, 32)
    assert torch.bincount(parts["train"]["labels"]).tolist() == [500] * 100
