"""Who is in which part: the long-tailed training set, the validation images, the test images.

Writes a file a part (sample id, label) and counts.csv. A sample id is the index of an image in the
official order of train.safetensors, or of test.safetensors for the test part and `validation: test`.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from longtail.errors import UserError
from longtail.imbalance import counts as counts_of
from longtail.job import Job
from longtail.params import SplitSettings, Validation

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Images uint8 (N, C, H, W), labels int64 (N,) and sample ids int64 (N,) of a part."""

    images: Tensor
    labels: Tensor
    samples: Tensor


def compute(job: Job) -> None:
    """Choose the images of every part and write them down."""
    settings: SplitSettings = job.settings
    raw = job.inputs["acquire"]
    names = json.loads((raw / "classes.json").read_text("utf-8"))
    labels = {part: _labels(raw / f"{part}.safetensors") for part in ("train", "test")}
    parts = split(labels["train"], len(names), settings)
    test = np.arange(len(labels["test"]))
    from_test = settings.validation.source == "test"
    validation = test if from_test else parts.validation
    validation_labels = labels["test" if from_test else "train"][validation]
    train_labels = labels["train"][parts.train]
    _write_part(job.folder / "train.csv", parts.train, train_labels)
    _write_part(job.folder / "validation.csv", validation, validation_labels)
    _write_part(job.folder / "test.csv", test, labels["test"])
    table = {
        "train": np.bincount(train_labels, minlength=len(names)),
        "validation": np.bincount(validation_labels, minlength=len(names)),
        "test": np.bincount(labels["test"], minlength=len(names)),
    }
    with (job.folder / "counts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "name", *table])
        writer.writerows(
            [label, name, *(int(column[label]) for column in table.values())]
            for label, name in enumerate(names)
        )
    most = table["validation"].max()
    job.facts.update(
        totals={part: int(column.sum()) for part, column in table.items()},
        without_validation=[names[c] for c in np.flatnonzero(table["validation"] < most)],
    )


@dataclass(frozen=True)
class Chosen:
    """Indices of training images."""

    train: Indices
    validation: Indices


def split(labels: Indices, classes: int, settings: SplitSettings) -> Chosen:
    """Choose training and validation images by LDAM-DRW's procedure (Cao et al. 2019).

    One legacy random state, seeded once, shuffles the ascending indices of each class in label order, and
    the first n_c stay. Validation from unused images takes the next ones of the same shuffle.

    Args:
        labels: of all training images, shape (N,).
        classes: number of classes C.
        settings: imbalance, subset seed, validation.

    Raises:
        UserError: if a class has no image, or the validation asked for cannot be had.
    """
    available = np.bincount(labels, minlength=classes)
    if (empty := np.flatnonzero(available == 0)).size:
        raise UserError(f"classes without an image: {empty.tolist()}; remove them or merge them")
    wanted = counts_of(settings.imbalance, available)
    if (emptied := np.flatnonzero(wanted == 0)).size:
        raise UserError(
            f"imbalance: no training image would be left for class {', '.join(map(str, emptied))}; "
            f"the smallest class has {available.min()} images, so choose a ratio of at most that"
        )
    state = np.random.RandomState(settings.subset_seed)
    train, validation = [], []
    for label in range(classes):
        indices = np.flatnonzero(labels == label)
        if settings.imbalance.profile != "natural" or settings.validation.source == "holdout":
            state.shuffle(indices)
        kept, rest = indices[: wanted[label]], indices[wanted[label] :]
        held = _validation(settings.validation, kept, rest)
        validation.append(held)
        train.append(kept[len(held) :] if settings.validation.source == "holdout" else kept)
    chosen = Chosen(np.concatenate(train), np.concatenate(validation))
    if settings.validation.source == "unused" and not len(chosen.validation):
        raise UserError(
            "validation: unused: the imbalance leaves no training image out; use validation: holdout"
        )
    return chosen


def _validation(validation: Validation, kept: Indices, rest: Indices) -> Indices:
    """The validation images of one class; at least one training image always stays."""
    if validation.source == "unused":
        return rest[: validation.per_class]
    if validation.source == "holdout":
        return kept[: min(len(kept) - 1, round(len(kept) * validation.share))]
    return kept[:0]


def read_part(split: Path, raw: Path, part: Literal["train", "validation", "test"]) -> Part:
    """The images of one part of a split."""
    with (split / f"{part}.csv").open(newline="", encoding="utf-8") as file:
        rows = [(int(row["sample"]), int(row["label"])) for row in csv.DictReader(file)]
    samples, labels = torch.tensor(rows, dtype=torch.int64).reshape(-1, 2).unbind(1)
    from_test = part == "test" or (part == "validation" and _validation_is_test(split))
    with safe_open(raw / f"{'test' if from_test else 'train'}.safetensors", framework="pt") as tensors:
        images = tensors.get_tensor("images")[samples]
    return Part(images, labels.contiguous(), samples.contiguous())


def _validation_is_test(split: Path) -> bool:
    return (split / "validation.csv").read_bytes() == (split / "test.csv").read_bytes()


def read_counts(split: Path) -> Tensor:
    """Training images of each class, int64 (C,)."""
    with (split / "counts.csv").open(newline="", encoding="utf-8") as file:
        return torch.tensor([int(row["train"]) for row in csv.DictReader(file)])


def _labels(file: Path) -> Indices:
    with safe_open(file, framework="np") as tensors:
        found: Indices = tensors.get_tensor("labels")
    return found


def _write_part(file: Path, samples: Iterable[int], labels: Iterable[int]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["sample", "label"])
        writer.writerows((int(sample), int(label)) for sample, label in zip(samples, labels, strict=True))
