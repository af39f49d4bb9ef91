"""Bring a dataset in: official files, checked, as tensors that later steps read without pickle.

Writes train.safetensors and test.safetensors (images uint8 (N, C, H, W), labels int64 (N,), in the official
order: the index is the sample id of all later steps) and classes.json.
"""

import gzip
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from longtail.datasets import DATASETS, Dataset
from longtail.errors import UserError
from longtail.job import Job
from longtail.params import AcquireSettings

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
DIGITS_TEST_PER_CLASS = 50


def compute(job: Job) -> None:
    """Find or download the official files, check them, and write them as tensors."""
    settings: AcquireSettings = job.settings
    dataset = DATASETS[settings.dataset]
    parts, classes = READERS[dataset.name](dataset, settings)
    for part, (images, labels) in parts.items():
        tensors = {"images": torch.from_numpy(images), "labels": torch.from_numpy(labels)}
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            job.folder / f"{part}.safetensors",
        )
    (job.folder / "classes.json").write_text(json.dumps(classes, indent=1) + "\n", "utf-8")
    job.facts["images"] = {part: len(labels) for part, (_, labels) in parts.items()}


def official_folder(dataset: Dataset, settings: AcquireSettings) -> Path:
    """The folder that holds the official files, every one checked against its published MD5 sum.

    Raises:
        UserError: if they are not there and cannot be had, or a sum differs.
    """
    root = Path(settings.root or "data/raw")
    folder = root / dataset.folder
    if not all((folder / name).is_file() for name in dataset.files):
        missing = f"{root}: no {dataset.folder} there"
        hint = f"set data.root to a folder that holds {dataset.folder}"
        if not settings.download:
            raise UserError(f"{missing}, and data.download is false; {hint}")
        _download(dataset, root, f"{missing} and no network", hint)
    for name, expected in dataset.files.items():
        found = md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
        if found != expected:
            raise UserError(
                f"{folder / name}: MD5 is {found}, published is {expected}; delete the file and get it anew"
            )
    return folder


def _download(dataset: Dataset, root: Path, missing: str, hint: str) -> None:
    """Download beside the place and move into it once complete: a failure leaves nothing behind."""
    from torchvision import datasets  # seconds to import, and only needed here

    kinds = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as temporary:
        try:
            getattr(datasets, kinds[dataset.name])(temporary, download=True)
        except (OSError, RuntimeError) as error:  # no route, no name, a wrong sum of the archive
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{missing} ({reason}); {hint}") from None
        target = root / dataset.folder
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        (Path(temporary) / dataset.folder).rename(target)


class _Plain(pickle.Unpickler):
    """Reads the official CIFAR pickles, checked before, and even so nothing but arrays and plain data."""

    def find_class(self, module: str, name: str) -> Any:
        """Only what rebuilds a numpy array."""
        allowed = {"_reconstruct", "ndarray", "dtype", "encode", "scalar"}
        if name in allowed and module.split(".")[0] in ("numpy", "_codecs"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong into a file of CIFAR")


def _unpickle(file: Path) -> dict[str, Any]:
    with file.open("rb") as data:
        return dict(_Plain(data, encoding="latin1").load())


def _cifar(dataset: Dataset, settings: AcquireSettings) -> tuple[dict[str, Arrays], list[str]]:
    folder = official_folder(dataset, settings)
    fine = dataset.name == "cifar100"
    files = {"train": ["train"], "test": ["test"]}
    if not fine:
        files = {"train": [f"data_batch_{batch}" for batch in range(1, 6)], "test": ["test_batch"]}
    parts = {}
    for part, names in files.items():
        batches = [_unpickle(folder / name) for name in names]
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, *dataset.shape)
        labels = np.concatenate([batch["fine_labels" if fine else "labels"] for batch in batches])
        parts[part] = (images, labels.astype(np.int64))
    meta = _unpickle(folder / ("meta" if fine else "batches.meta"))
    return parts, list(meta["fine_label_names" if fine else "label_names"])


def _fashion_mnist(dataset: Dataset, settings: AcquireSettings) -> tuple[dict[str, Arrays], list[str]]:
    folder = official_folder(dataset, settings)
    parts = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = _idx(folder / f"{prefix}-images-idx3-ubyte.gz", header=16)
        labels = _idx(folder / f"{prefix}-labels-idx1-ubyte.gz", header=8)
        parts[part] = (images.reshape(-1, *dataset.shape), labels.astype(np.int64))
    names = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
    return parts, names.split(",")


def _idx(file: Path, header: int) -> NDArray[np.uint8]:
    with gzip.open(file) as data:
        return np.frombuffer(data.read(), dtype=np.uint8, offset=header).copy()


def _digits(dataset: Dataset, _: AcquireSettings) -> tuple[dict[str, Arrays], list[str]]:
    """Scikit-learn's digits, grey levels 0 to 16 spread over 0 to 255; the last 50 of a class are test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * 255 / 16).astype(np.uint8).reshape(-1, *dataset.shape)
    labels = data.target.astype(np.int64)
    content = sha256(images.tobytes() + labels.tobytes()).hexdigest()
    if content != (expected := dataset.files["content"]):
        raise UserError(f"digits of scikit-learn: SHA-256 is {content}, known is {expected}")
    test = np.sort(
        np.concatenate(
            [np.flatnonzero(labels == label)[-DIGITS_TEST_PER_CLASS:] for label in range(dataset.classes)]
        )
    )
    train = np.setdiff1d(np.arange(len(labels)), test)
    parts = {"train": (images[train], labels[train]), "test": (images[test], labels[test])}
    return parts, [str(label) for label in range(dataset.classes)]


READERS: dict[str, Callable[[Dataset, AcquireSettings], tuple[dict[str, Arrays], list[str]]]] = {
    "cifar10": _cifar,
    "cifar100": _cifar,
    "fashion_mnist": _fashion_mnist,
    "digits": _digits,
}
