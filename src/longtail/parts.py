"""The parts of a split as later steps read them: images, labels, and training images of each class."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Images uint8 (N, C, H, W), labels int64 (N,) and sample ids int64 (N,) of a part."""

    images: Tensor
    labels: Tensor
    samples: Tensor


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
    """With `validation: test` both files name the same images; no other source can make them equal."""
    return (split / "validation.csv").read_bytes() == (split / "test.csv").read_bytes()


def read_counts(split: Path) -> Tensor:
    """Training images of each class, int64 (C,)."""
    with (split / "counts.csv").open(newline="", encoding="utf-8") as file:
        return torch.tensor([int(row["train"]) for row in csv.DictReader(file)])
