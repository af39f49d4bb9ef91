"""Bring a dataset in: official files, checked, as tensors without pickle."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from longtail.job import Job


def compute(job: Job) -> None:
    """Write train.safetensors, test.safetensors and classes.json."""
    from torchvision.datasets import CIFAR100

    for part, train in (("train", True), ("test", False)):
        data = CIFAR100(job.settings.root, train=train, download=job.settings.download)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        save_file(
            {"images": images, "labels": torch.tensor(data.targets, dtype=torch.int64)},
            Path(job.folder) / f"{part}.safetensors",
        )
    (job.folder / "classes.json").write_text(json.dumps(list(data.classes)))
