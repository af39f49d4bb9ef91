"""The datasets that the project knows: what identifies each, and the constants of its images.

Light on purpose: planning reads this; `longtail.data.acquire` does the reading of images.
"""

from dataclasses import dataclass
from hashlib import sha256


@dataclass(frozen=True)
class Dataset:
    """A published dataset of small images.

    Attributes:
        classes: number of classes.
        shape: (channels, height, width) of an image.
        train: number of training images.
        test: number of test images.
        folder: the folder, under `data.root`, that holds the official files.
        files: official files and their published MD5 sums; an embedded dataset has one entry
            `content` instead, the SHA-256 of its images (uint8) followed by its labels (int64).
        mean, std: per channel, on the scale 0 to 1, as the field's public code has them.
    """

    name: str
    classes: int
    shape: tuple[int, int, int]
    train: int
    test: int
    folder: str
    files: dict[str, str]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def identity(self) -> str:
        """SHA-256 over name, published checksums and normalisation: what every run on it builds on."""
        lines = [self.name, f"{self.mean} {self.std}"]
        lines += [f"{file} {checksum}" for file, checksum in sorted(self.files.items())]
        return sha256("\n".join(lines).encode()).hexdigest()


# Everybody normalises CIFAR-100 with CIFAR-10's statistics, and so do the printed numbers.
_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="cifar10",
            classes=10,
            shape=(3, 32, 32),
            train=50_000,
            test=10_000,
            folder="cifar-10-batches-py",
            files={
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
                "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
            },
            mean=_CIFAR_MEAN,
            std=_CIFAR_STD,
        ),
        Dataset(
            name="cifar100",
            classes=100,
            shape=(3, 32, 32),
            train=50_000,
            test=10_000,
            folder="cifar-100-python",
            files={
                "train": "16019d7e3df5f24257cddd939b257f8d",
                "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
                "meta": "7973b15100ade9c7d40fb424638fde48",
            },
            mean=_CIFAR_MEAN,
            std=_CIFAR_STD,
        ),
        Dataset(
            name="fashion_mnist",
            classes=10,
            shape=(1, 28, 28),
            train=60_000,
            test=10_000,
            folder="FashionMNIST/raw",
            files={
                "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
                "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
                "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
            },
            mean=(0.2860,),
            std=(0.3530,),
        ),
        Dataset(
            name="digits",
            classes=10,
            shape=(1, 8, 8),
            train=1_297,
            test=500,
            folder="",  # embedded in scikit-learn
            files={"content": "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"},
            mean=(0.3058,),
            std=(0.3753,),
        ),
    )
}
