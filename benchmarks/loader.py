"""Loading photographs: decoded in threads, augmented by the batch, against ImageFolder and PIL."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median

import torch

from benchmarks import photographs
from benchmarks.rows import Goal, Row, compared
from benchmarks.side import ONE_THREAD, OURS, Side, interleaved
from longtail.data.augmentation import augment
from longtail.data.file_changes import picture_files
from longtail.data.images import in_batches
from longtail.data.normalisation import normalise
from longtail.data.picture_loader import PictureFiles
from longtail.device import set_up
from longtail.random import generator
from longtail.settings.augmentation import Augmentation
from longtail.settings.data import Pictures

PART = "loader"
BATCH, SIZE = 128, 224
NAMES = {"train": "RandomResizedCrop 224, flip, jitter", "test": "middle 224"}
TRAINING = Augmentation.model_validate(
    {"crop": 0, "flip": True, "autoaugment": "none", "cutout": 0, "resized_crop": {}, "jitter": {}}
)


@cache
def names(folder: Path) -> list[str]:
    """The photographs of a folder, in a fixed order that mixes the classes."""
    found = sorted(picture_files(folder))
    order = torch.randperm(len(found), generator=generator("benchmark", "photos"))
    return [found[index] for index in order.tolist()]


def ours(folder: str, kind: str, number: int) -> Callable[[], None]:
    """Load and normalise `number` photographs of a folder."""
    set_up(torch.device("cpu"))
    look = Pictures(size=SIZE)
    random = generator("benchmark", "augment")
    root = Path(folder)

    def measure() -> None:
        found = names(root)
        files = PictureFiles(root, found, look, torch.arange(number) % len(found))
        images = augment(files, TRAINING, random) if kind == "train" else files
        for batch in in_batches(images, BATCH):
            normalise(batch, tuple(look.mean), tuple(look.std))

    return measure


def peers(folder: str, kind: str, number: int, workers: int = 0) -> Callable[[], None]:
    """The same as the field's public code does it: ImageFolder, PIL transforms, DataLoader."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    look = Pictures()
    crop = [transforms.Resize(256), transforms.CenterCrop(SIZE)]
    if kind == "train":
        crop = [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.4, 0.4, 0.4),
        ]
    transform = transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize(look.mean, look.std)])
    root = Path(folder)
    found = names(root)
    dataset = datasets.ImageFolder(folder, transform)
    places = {path: index for index, (path, _) in enumerate(dataset.samples)}
    chosen = [places[str(root / found[index % len(found)])] for index in range(number)]
    loader = DataLoader(Subset(dataset, chosen), BATCH, num_workers=workers)

    def measure() -> None:
        for _ in loader:
            pass

    return measure


def rows(quick: bool) -> list[Row]:
    """CPU time an image of both, and how much memory more images take."""
    with tempfile.TemporaryDirectory() as folder:
        photographs.write(Path(folder), 128 if quick else photographs.NUMBER)
        return _of_photographs(folder, quick)


def _of_photographs(folder: str, quick: bool) -> list[Row]:
    rounds, number = (1, 128) if quick else (5, 1024)
    found = []
    for kind, name in NAMES.items():
        given = {"folder": folder, "kind": kind, "number": number}
        with (
            Side("benchmarks.loader:ours", OURS, given) as one,
            Side("benchmarks.loader:peers", ONE_THREAD, given) as other,
        ):
            samples = interleaved({"ours": one, "peers": other}, rounds)
        load = median(sample.load for sample in samples["ours"])
        row = Row(
            PART,
            name,
            "us/image",
            goal=Goal("ratio", 1, 2),
            load=load,
            peak_mb=max(sample.peak_mb for sample in samples["ours"]),
            note=f"against ImageFolder and PIL, one core; {photographs.NOTE}",
        )
        each = ([1e6 * sample.cpu / number for sample in samples[side]] for side in ("ours", "peers"))
        found.append(compared(row, *each))
    memory = []
    for factor in (2, 8):
        given = {"folder": folder, "kind": "train", "number": factor * number}
        with Side("benchmarks.loader:ours", OURS, given) as side:
            memory.append(side.measure().peak_mb)
    note = f"{8 * number:,} photographs against {2 * number:,}"
    row = Row(PART, "memory of four times as many", "MB", note=note, peak_mb=memory[1])
    found.append(compared(row, [memory[1] - memory[0]]))
    return found
