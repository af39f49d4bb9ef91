"""Bring a dataset in: official files, checked, as tensors that later steps read without pickle.

Writes train.safetensors and test.safetensors (images uint8 (N, C, H, W), labels int64 (N,), in the official
order: the index is the sample id of all later steps) and classes.json. Picture files stay where they are: in
place of images there are their names; validation images of the dataset's own are in validation.safetensors.
"""

import gzip
import json
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import file_digest, md5, sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from longtail import members
from longtail.datasets import DATASETS, Dataset
from longtail.errors import UserError
from longtail.job import Job
from longtail.params import AcquireSettings
from longtail.parts import packed
from longtail.sources import Files, HeldOut

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
DIGITS_TEST_PER_CLASS = 50
RAW = "data/raw"
PATIENCE = 60.0  # seconds without a byte after which a download counts as failed


def compute(job: Job) -> None:
    """Find or download the official files, check them, and write them as tensors."""
    settings: AcquireSettings = job.settings
    if settings.files is not None:
        parts, classes = _of_files(settings.dataset, settings.files, job)
    else:
        dataset = DATASETS[settings.dataset]
        arrays, classes = READERS[dataset.name](dataset, settings)
        parts = {
            part: {"images": torch.from_numpy(images), "labels": torch.from_numpy(labels)}
            for part, (images, labels) in arrays.items()
        }
    for part, tensors in parts.items():
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            job.folder / f"{part}.safetensors",
        )
    (job.folder / "classes.json").write_text(json.dumps(classes, indent=1) + "\n", "utf-8")
    job.facts["images"] = {part: len(tensors["labels"]) for part, tensors in parts.items()}


def _of_files(dataset: str, data: Files, job: Job) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Names and labels of a dataset of picture files, which stay where they are, and the class names.

    Raises:
        UserError: if a file is gone, is a link out of the root, or is not what was checked.
    """
    found = members.members(dataset, data)
    if changed := members.changed(dataset, data):
        first = members.root_of(data) / changed[0]
        what = "is not what was checked, or is a link out of data.root" if first.is_file() else "is not there"
        raise UserError(f"{dataset}: {first} {what}; `longtail check-data` reads all of them")
    rows = dict(found.parts)
    if not rows.get("test"):
        rows["train"], rows["test"] = held_out(dataset, rows["train"], len(found.classes), data.held_out)
    job.facts["left_out"] = len(found.left_out)
    tensors = {
        part: {
            "names": packed([path for path, _ in named]),
            "labels": torch.tensor([label for _, label in named], dtype=torch.int64),
        }
        for part, named in rows.items()
        if named
    }
    return tensors, found.classes


def held_out(
    dataset: str, rows: list[tuple[str, int]], classes: int, held: HeldOut | None
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Training rows without some of each class, and these: the test images of a dataset that names none.

    One legacy random state, as a split's, shuffles the rows of each class in label order; the last ones are
    held out. At least one image of each class stays.

    Args:
        dataset: its name, for errors.
        rows: (path, label).
        classes: number of classes.
        held: how many of each; None where the dataset should have said which are its test images.

    Raises:
        UserError: if none are asked for, or a class has too few.
    """
    if held is None:
        raise UserError(
            f"{dataset}: has no test images; name them in data, or hold some out: "
            "data.held_out: {per_class: 10}, or {share: 0.2}"
        )
    labels = np.array([label for _, label in rows])
    state = np.random.RandomState(held.seed)
    tested = np.zeros(len(rows), dtype=bool)
    for label in range(classes):
        indices = np.flatnonzero(labels == label)
        state.shuffle(indices)
        share = max(1, round(len(indices) * held.share)) if held.share else held.per_class or 0
        if share >= len(indices):
            raise UserError(
                f"{dataset}: data.held_out takes {share} images of every class, but one has {len(indices)} "
                f"(label {label}), of which at least one has to stay"
            )
        tested[indices[len(indices) - share :]] = True
    train = [row for row, out in zip(rows, tested, strict=True) if not out]
    return train, [row for row, out in zip(rows, tested, strict=True) if out]


def official_files(dataset: Dataset, settings: AcquireSettings) -> Path:
    """The folder that holds the official files, every one checked against its published MD5 sum.

    Files that are there are never touched: only missing ones are downloaded.

    Raises:
        UserError: if they are not there and cannot be had, or a sum differs.
    """
    root = Path(settings.root or RAW).expanduser()
    folder = root / dataset.folder
    hint = f"set data.root to a folder that holds {dataset.folder}"
    try:
        if root.exists() and not root.is_dir():
            raise UserError(f"{root}: is a file and no folder; {hint}")
        if all((root / name).is_file() for name in dataset.files):
            raise UserError(
                f"{root}: is itself the folder of the official files; {hint}: {root.absolute().parent}"
            )
        missing = [name for name in dataset.files if not (folder / name).exists()]
        _check(dataset, folder, [name for name in dataset.files if name not in missing])
        if missing:
            part = f"{', '.join(missing)} " if len(missing) < len(dataset.files) else ""
            where = f"{folder}: {part}not there"
            if not settings.download:
                raise UserError(f"{where} and data.download is false; {hint}")
            _download(dataset, root, missing, where, hint)
    except OSError as error:  # no permission, a file in place of a folder, a full disk
        raise UserError(f"{error.filename or root}: {error.strerror or error}; {hint}") from None
    return folder


def _check(dataset: Dataset, folder: Path, names: Iterable[str]) -> None:
    for name in names:
        found, expected = file_md5(folder / name), dataset.files[name]
        if found != expected:
            raise UserError(
                f"{folder / name}: MD5 is {found}, published is {expected} (truncated or changed); "
                "delete the file and type the command again, or copy the official file there"
            )


def file_md5(file: Path) -> str:
    """MD5 sum of a file, in hexadecimal: what CIFAR and Fashion-MNIST publish."""
    with file.open("rb") as data:
        return file_digest(data, partial(md5, usedforsecurity=False)).hexdigest()


def _download(dataset: Dataset, root: Path, names: list[str], where: str, hint: str) -> None:
    """Download beside the place, check, and move the files into it: a failure leaves nothing behind."""
    from torchvision import datasets  # seconds to import, and only needed here

    kind = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}[dataset.name]
    # The nearest folder that exists: the same file system, and no empty folders where this fails.
    beside = next(parent for parent in root.absolute().parents if parent.is_dir())
    patience = socket.getdefaulttimeout()
    with tempfile.TemporaryDirectory(dir=beside, prefix=f".{dataset.name}-download-") as temporary:
        socket.setdefaulttimeout(PATIENCE)
        try:
            getattr(datasets, kind)(temporary, download=True)
        except HTTPError as error:
            raise UserError(f"{where}, and the server answers {error.code} {error.reason}; {hint}") from None
        except (OSError, HTTPException, RuntimeError) as error:
            raise UserError(f"{where} and {_reason(error)}; {hint}") from None
        finally:
            socket.setdefaulttimeout(patience)
        fresh = Path(temporary) / dataset.folder
        _check(dataset, fresh, names)
        (root / dataset.folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (fresh / name).replace(root / dataset.folder / name)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:120]
    if isinstance(error, URLError | ConnectionError | TimeoutError):
        return f"no network ({text})"
    return f"the download failed ({text})"  # a full disk, an archive cut short, a wrong sum of it


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
    folder = official_files(dataset, settings)
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
    folder = official_files(dataset, settings)
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
    """Scikit-learn's digits, grey levels 0 to 16 spread over 0 to 255; test is the last 50 of each class."""
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
