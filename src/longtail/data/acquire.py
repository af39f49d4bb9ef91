"""Bring a dataset in: official files, checked, as tensors that later steps read without pickle.

Writes train.safetensors and test.safetensors (images uint8 (N, C, H, W), labels int64 (N,), in the official
order: the index is the sample id of all later steps) and classes.json. Picture files stay where they are: in
place of images there are their names; validation images of the dataset's own are in validation.safetensors.
"""

import json

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from longtail.data import catalogue
from longtail.data.check_command import check_command
from longtail.data.file_names import packed
from longtail.data.official import READERS
from longtail.errors import UserError
from longtail.runs.job import Job
from longtail.settings.acquire import AcquireSettings
from longtail.settings.data import Files, HeldOut
from longtail.settings.datasets import DATASETS


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
    found = catalogue.members(dataset, data)
    if changed := catalogue.changed(dataset, data):
        first = catalogue.root_of(data) / changed[0]
        what = "is not what was checked, or is a link out of data.root" if first.is_file() else "is not there"
        raise UserError(f"{dataset}: {first} {what}; {check_command(dataset)} reads all of them")
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
    held out. At least one image of each class stays. With `untested` a class that has no more than would be
    held out stays as a whole.

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
            if held.untested:
                continue
            raise UserError(
                f"{dataset}: data.held_out takes {share} images of every class, but one has {len(indices)} "
                f"(label {label}), of which at least one has to stay; data.held_out.untested: true trains on "
                "such classes without testing them"
            )
        tested[indices[len(indices) - share :]] = True
    if not tested.any():
        raise UserError(f"{dataset}: data.held_out leaves no class to test; hold fewer of each out")
    train = [row for row, out in zip(rows, tested, strict=True) if not out]
    return train, [row for row, out in zip(rows, tested, strict=True) if out]
