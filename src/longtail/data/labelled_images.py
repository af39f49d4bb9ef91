"""The parts of a split as later steps read them: images, labels, and training images of each class."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor

from longtail.data.file_names import unpacked
from longtail.data.images import Images
from longtail.data.picture_loader import PictureFiles
from longtail.runs import store
from longtail.settings.data import Pictures


@dataclass(frozen=True)
class Part:
    """Images uint8 (N, C, H, W), labels int64 (N,) and sample ids int64 (N,) of a part."""

    images: Images
    labels: Tensor
    samples: Tensor

    def same_images_as(self, other: "Part") -> bool:
        """Whether two parts are the same images, as validation and test are with `validation: test`."""
        if isinstance(self.images, Tensor) and isinstance(other.images, Tensor):
            return self.images.shape == other.images.shape and torch.equal(self.images, other.images)
        if isinstance(self.images, Tensor) or isinstance(other.images, Tensor):
            return False
        return self.images.same_as(other.images)

    def __getitem__(self, members: Tensor) -> "Part":
        """Some of it, by indices."""
        return Part(self.images[members], self.labels[members], self.samples[members])


def read_part(
    split: Path,
    raw: Path,
    part: Literal["train", "validation", "test"],
    look: Pictures | None = None,
    pictures: Path | None = None,
) -> Part:
    """The images of one part of a split.

    Args:
        split, raw: finished runs of splitting and acquisition.
        part: which one.
        look: of picture files, what is seen of them.
        pictures: folder of the files.
    """
    import pandas as pd  # only here: it would add a tenth to the start of stage two, which reads counts alone

    rows = pd.read_csv(split / f"{part}.csv", dtype={"sample": "int64", "label": "int64"})
    samples, labels = (torch.tensor(rows[column].to_numpy()) for column in ("sample", "label"))
    # only a dataset's own validation images have a file, and a column, of their own
    if "source" in rows and len(rows):
        source = str(rows["source"].iloc[0])
    else:
        source = (
            "test" if part == "test" or (part == "validation" and _validation_is_test(split)) else "train"
        )
    return Part(_images(raw, source, samples, look, pictures), labels, samples)


def read_whole(raw: Path, look: Pictures | None = None, pictures: Path | None = None) -> Part:
    """All training images that the dataset has, those that an imbalance leaves out included."""
    with safe_open(raw / "train.safetensors", framework="pt") as tensors:
        labels = tensors.get_tensor("labels")
    samples = torch.arange(len(labels))
    return Part(_images(raw, "train", samples, look, pictures), labels, samples)


def _images(raw: Path, source: str, samples: Tensor, look: Pictures | None, pictures: Path | None) -> Images:
    with safe_open(raw / f"{source}.safetensors", framework="pt") as tensors:
        if "images" in tensors.keys():  # noqa: SIM118 - it is no dictionary
            images: Tensor = tensors.get_tensor("images")
            return images[samples]
        assert look is not None and pictures is not None  # noqa: PT018
        names = unpacked(tensors.get_tensor("names"))
    return PictureFiles(pictures, names, look, samples)


def _validation_is_test(split: Path) -> bool:
    """With `validation: test` both files name the same images; a holdout has other rows, but for chance."""
    if (split / "run.json").is_file():
        return bool(store.record(split)["settings"]["validation"]["source"] == "test")
    return (split / "validation.csv").read_bytes() == (split / "test.csv").read_bytes()


def read_counts(split: Path) -> Tensor:
    """Training images of each class, int64 (C,)."""
    with (split / "counts.csv").open(newline="", encoding="utf-8") as file:
        return torch.tensor([int(row["train"]) for row in csv.DictReader(file)])
