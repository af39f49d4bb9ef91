"""Bring a dataset in: official files, checked, as tensors that later steps read without pickle.

Writes train.safetensors and test.safetensors (images uint8 (N, C, H, W), labels int64 (N,), in the official
order: the index is the sample id of all later steps) and classes.json. Picture files stay where they are: in
place of images there are their names; validation images of the dataset's own are in validation.safetensors.
"""

import json
import sys
from collections import Counter

import torch
from safetensors.torch import save_file
from torch import Tensor

from longtail.data import catalogue, groupings
from longtail.data.check_command import check_command
from longtail.data.file_names import packed
from longtail.data.holding_out import asked, held_out
from longtail.data.lists import some
from longtail.data.official import READERS
from longtail.errors import UserError
from longtail.runs.job import Job
from longtail.settings.acquire import AcquireSettings
from longtail.settings.data import Files
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
    groups = groupings.of(dataset, data, [path for path, _ in rows["train"]])
    if not rows.get("test"):
        before = rows["train"]
        rows["train"], rows["test"] = held_out(dataset, before, len(found.classes), data.held_out, groups)
        if groups is not None and data.held_out is not None:
            counts = [Counter(label for _, label in part) for part in (before, rows["test"])]
            wanted = {label: asked(counts[0][label], data.held_out) for label in sorted(counts[0])}
            other = {found.classes[c]: [counts[1][c], n] for c, n in wanted.items() if counts[1][c] != n}
            job.facts["held_out_otherwise"] = other
            _say(dataset, other)
    job.facts["left_out"] = len(found.left_out)
    tensors = {
        part: {
            "names": packed([path for path, _ in named]),
            "labels": torch.tensor([label for _, label in named], dtype=torch.int64),
        }
        for part, named in rows.items()
        if named
    }
    if groups is not None:  # which a split keeps together too
        of = dict(zip((path for path, _ in found.parts["train"]), groups.tolist(), strict=True))
        tensors["train"]["groups"] = torch.tensor([of[path] for path, _ in rows["train"]], dtype=torch.int64)
    return tensors, found.classes


def _say(dataset: str, other: dict[str, list[int]]) -> None:
    """Of which classes more or fewer test images are held out than asked for, since groups stay whole."""
    if other:
        shown = ", ".join(f"{name} {got} for {wanted}" for name, (got, wanted) in list(other.items())[:5])
        more = " ..." if len(other) > 5 else ""
        print(
            f"{dataset}: so that no group is parted, {some(len(other), 'class')} give another number of test "
            f"images than asked for ({shown}{more})",
            file=sys.stderr,
            flush=True,
        )
