"""How sure a classifier is of large and small classes (Decoupling's question, by probabilities).

Three means of softmax probabilities over the test images, each class's images counting alike:

    right      of an image's own class, over the images of the class
    largest    of the class that is answered, over the images of the class (the confidence)
    given      of the class, over the images of all classes, times the number of classes: 1 is a fair share
"""

from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure

from longtail.publish.figures.drawing import (
    at_ratio,
    binned_means,
    by_method,
    chosen,
    distinct,
    heading,
    mean_and_spread,
    number_axis,
    styles,
)
from longtail.publish.job import Cell, PublishedJob
from longtail.settings.base import Settings as BaseSettings

PANELS = {
    "right": "probability of the right class (%)",
    "largest": "confidence: largest probability (%)",
    "given": "probability the class is given / fair share",
}
ROWS = 4096  # test images at once: logits of 8,142 classes are 0.8 GB


class Settings(BaseSettings):
    """Whose probabilities are drawn."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    methods: list[str] | None = None  # null: all of the table
    reads: ClassVar[tuple[str, ...]] = ("stage_two", "split")


def draw(job: PublishedJob) -> Figure:
    """Points: a class, mean over runs. Lines: neighbouring classes; bars: their deviation over runs."""
    cells = at_ratio(job, job.settings.ratio)
    methods = chosen(job, by_method(cells))
    own = distinct(styles(job.methods), methods)
    sizes = np.array(cells[0].class_counts(), dtype=float)
    figure = Figure(figsize=(12.4, 4.9))
    axes = figure.subplots(1, len(PANELS))
    for method, runs in methods.items():
        measured = [class_probabilities(*_predictions(cell), len(sizes)) for cell in runs]
        colour, dashes = own[method]
        for axis, panel in zip(axes, PANELS, strict=True):
            scale = 1 if panel == "given" else 100
            values = np.stack([scale * run[panel] for run in measured])
            axis.scatter(sizes, values.mean(0), s=9, color=colour, alpha=0.22, linewidth=0)
            [places, *_] = binned_means(sizes, values.mean(0))
            means, spread = mean_and_spread([binned_means(sizes, run)[1].tolist() for run in values])
            axis.errorbar(
                places,
                means,
                spread if np.any(spread) else None,
                color=colour,
                linestyle=dashes,
                marker="o",
                markersize=3.5,
                capsize=2.5,
                label=method,
            )
    for axis, (panel, words) in zip(axes, PANELS.items(), strict=True):
        number_axis(axis)
        axis.set_xlabel("training images of the class (log scale)")
        axis.set_ylabel(words)
        if panel == "given":
            axis.axhline(1, color="#808080", linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
            axis.set_ylim(bottom=0)
        else:
            axis.set_ylim(0, 100)
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=5)
    bars = ", bars: ± standard deviation over runs" if any(len(runs) > 1 for runs in methods.values()) else ""
    title = f"{heading(job, cells)}; test images; points: classes, lines: means of neighbouring ones{bars}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def class_probabilities(logits: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """The means of PANELS by class, (C,) each; nan of a class without test images, but for `given`.

    Args:
        logits: of the test images, (M, C).
        labels: of the same, (M,).
        classes: C.
    """
    images = np.bincount(labels, minlength=classes)
    tested = np.count_nonzero(images)
    right, largest, given = (np.zeros(classes) for _ in range(3))
    for start in range(0, len(labels), ROWS):
        part, own = logits[start : start + ROWS].astype(np.float64), labels[start : start + ROWS]
        shares = np.exp(part - part.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        right += np.bincount(own, shares[np.arange(len(own)), own], classes)
        largest += np.bincount(own, shares.max(1), classes)
        given += (shares / images[own, None]).sum(0)
    number = np.where(images, images, np.nan)
    return {"right": right / number, "largest": largest / number, "given": classes * given / tested}


def _predictions(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    found = cell.predictions()
    return found["logits"], found["labels"]
