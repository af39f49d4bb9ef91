"""What the runs of a method answer to each test image, and how sure an accuracy is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors import safe_open

from longtail.publish import bootstrap
from longtail.publish.job import Cell

PART = 1 << 22  # logits that are looked at together, in float64


@dataclass(frozen=True)
class Answers:
    """A run's answers to the test images, by their sample ids in increasing order; arrays (N,).

    Attributes:
        samples: ids. labels: the classes that the dataset gives. predicted: the classes of the largest logit.
        confidence: softmax probability of `predicted`, without a temperature.
    """

    samples: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each answer is the given class."""
        right: npt.NDArray[np.bool_] = self.predicted == self.labels
        return right


def answers(cell: Cell) -> Answers:
    """The answers of a cell's run of stage two."""
    return _of_run(cell.runs["stage_two"])


@lru_cache(4096)
def _of_run(folder: Path) -> Answers:
    with safe_open(folder / "predictions.safetensors", framework="np") as file:
        logits = file.get_tensor("logits")
        labels, samples = file.get_tensor("labels"), file.get_tensor("samples")
    order = samples.argsort(kind="stable")
    predicted = logits.argmax(1)
    rows = max(1, PART // logits.shape[1])
    confidence = [_largest(logits[at : at + rows]) for at in range(0, len(logits), rows)]
    joined = np.concatenate(confidence) if confidence else np.empty(0)
    return Answers(samples[order], labels[order], predicted[order], joined[order])


def _largest(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The largest softmax probability of each row."""
    z = logits.astype(np.float64)
    largest: npt.NDArray[np.float64] = 1 / np.exp(z - z.max(1, keepdims=True)).sum(1)
    return largest


def interval(cells: Sequence[Cell]) -> tuple[float, float] | None:
    """Bounds of the 95 % interval of a method's accuracy, shares, over what `over` says.

    None where the runs were not tested on the same images, or on none.
    """
    rows = [answers(cell) for cell in cells]
    first = rows[0].samples
    if not len(first) or any(not np.array_equal(row.samples, first) for row in rows):
        return None
    subsets = len({cell.subset_seed for cell in cells})
    right = np.stack([row.right for row in rows]).astype(np.int8)
    return bootstrap.interval(right.reshape(subsets, -1, len(first)))


def over(cells: Sequence[Cell]) -> str:
    """What an interval of these runs resamples, in words."""
    subsets = len({cell.subset_seed for cell in cells})
    names = ["subsets"] * (subsets > 1) + ["seeds"] * (len(cells) > subsets) + ["test images"]
    return " and ".join(names)


def pooled(cells: Sequence[Cell]) -> pd.DataFrame:
    """A row an image and run: sample, label, predicted, confidence."""
    known = [answers(cell) for cell in cells]
    columns = ("samples", "labels", "predicted", "confidence")
    found = {name: np.concatenate([getattr(run, name) for run in known]) for name in columns}
    return pd.DataFrame(found).rename(columns={"samples": "sample", "labels": "label"})
