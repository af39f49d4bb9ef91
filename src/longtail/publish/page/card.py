"""The numbers of an exported model's card, as the page has them."""

from typing import Any

import torch

from longtail.export.folder import CARD, ONNX, WEIGHTS, Description, opened
from longtail.export.temperature import negative_log_likelihood
from longtail.metrics import expected_calibration_error, group_accuracy
from longtail.publish.job import PublishedJob
from longtail.publish.page.choice import ChosenMethod
from longtail.publish.page.shown import Shown, share
from longtail.publish.tables.words import number


def model_card(job: PublishedJob, chosen: ChosenMethod) -> dict[str, Any]:
    """What the page says of an exported model: of one run, the first of the method that was chosen.

    Args:
        job: whose groups count.
        chosen: the method and its model.
    """
    assert chosen.folder is not None
    description = opened(chosen.folder)[2]
    cell = chosen.cells[0]
    test = cell.metrics()["test"]
    groups = group_accuracy(
        test["per_class"], test["per_class_n"], cell.class_counts(), **job.groups.resolved()
    )
    own = {words: share(groups[name]) for name, words in job.group_words().items()}
    found = cell.predictions()
    logits, labels = torch.from_numpy(found["logits"]), torch.from_numpy(found["labels"])
    files = [chosen.folder / name for name in (WEIGHTS, ONNX, CARD)]
    begun_with = cell.info["stage_one"].get("facts", {}).get("pretrained")
    return {
        "folder": str(chosen.folder),
        "run": description.name,
        "images": f"{test['n']:,}",
        "accuracy": {
            "all": share(test["accuracy"]),
            "mean of the classes": share(test["mean_class_accuracy"]),
            **{words: number for words, number in own.items() if number.text},
        },
        "calibration": [
            _calibrated("before", logits, labels, 1.0),
            _calibrated("after", logits, labels, description.temperature),
        ],
        "how": str(description.origin.get("calibration", {}).get("how", "")),
        "facts": [
            *_facts(description, begun_with),
            *((file.name, _size(file.stat().st_size)) for file in files),
        ],
    }


def _calibrated(when: str, logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> dict[str, Any]:
    error = expected_calibration_error(logits.double() / temperature, labels)
    loss = negative_log_likelihood(logits, labels, temperature)
    return {
        "when": when,
        "cells": [
            Shown(number(temperature, 3), temperature),
            share(error),
            Shown(number(loss, 3), loss),
        ],
    }


def _facts(description: Description, begun_with: str | None) -> list[tuple[str, str]]:
    network = dict(description.network)
    name = str(network.pop("architecture", None) or network.get("name"))
    colours = {1: "grey", 3: "RGB"}[description.channels]
    height, width = description.size
    return [
        ("network", name),
        ("began with", begun_with or "random weights"),
        ("images", f"{colours}, {height} × {width} pixels"),  # noqa: RUF001 - a times sign is meant
        ("classes", f"{len(description.classes):,}"),
        ("features", f"{description.dimensions:,} numbers an image"),
    ]


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
