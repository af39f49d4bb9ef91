"""The published datasets: official files found or downloaded, checked, and read."""

import gzip
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
from numpy.typing import NDArray

from longtail.errors import UserError
from longtail.settings.acquire import AcquireSettings
from longtail.settings.datasets import Dataset

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


DIGITS_TEST_PER_CLASS = 50


RAW = "data/raw"


PATIENCE = 60.0  # seconds without a byte after which a download counts as failed


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
