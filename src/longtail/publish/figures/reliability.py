"""Reliability diagrams: accuracy of predictions by how sure they are, and the calibration error (ECE)."""

import math
from typing import ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from longtail.metrics import CALIBRATION_BINS, PART
from longtail.publish.figures.drawing import COLOURS, at_ratio, by_method, chosen, heading
from longtail.publish.job import Cell, PublishedJob
from longtail.settings.base import Settings as BaseSettings

ACROSS = 3  # panels in a row


class Settings(BaseSettings):
    """Whose predictions are drawn."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    methods: list[str] | None = None  # null: all of the table
    reads: ClassVar[tuple[str, ...]] = ("stage_two",)


def draw(job: PublishedJob) -> Figure:
    """A panel a method: bars are the accuracy of each bin of confidence, all runs pooled.

    Where a bar ends below the diagonal, the predictions are surer than they are right.
    """
    cells = at_ratio(job, job.settings.ratio)
    methods = chosen(job, by_method(cells))
    down = math.ceil(len(methods) / ACROSS)
    across = min(ACROSS, len(methods))
    figure = Figure(figsize=(0.7 + 2.6 * across, 0.9 + 2.75 * down))
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for axis in axes.flat[len(methods) :]:
        axis.remove()
    for axis, (method, runs) in zip(axes.flat, methods.items(), strict=False):
        _panel(axis, runs)
        axis.set_title(f"{method}\n{_errors(runs)}", fontsize=9)
        axis.set_xlabel("confidence (%)")
        axis.set_ylabel("accuracy (%)")
        axis.tick_params(labelbottom=True, labelleft=True)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle(
        f"{heading(job, cells)}; ECE over {CALIBRATION_BINS} bins", x=0.01, ha="left", fontsize=10
    )
    return figure


def binned(cell: Cell) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of test images, sum of confidences and number of right answers in each bin of confidence."""
    found = cell.predictions()
    count, classes = found["logits"].shape
    rows = max(1, PART // classes)
    confidence = np.empty(count)
    for first in range(0, count, rows):
        logits = found["logits"][first : first + rows].astype(np.float64)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        confidence[first : first + rows] = shares.max(1) / shares.sum(1)
    right = found["logits"].argmax(1) == found["labels"]
    place = (confidence * CALIBRATION_BINS).astype(int).clip(max=CALIBRATION_BINS - 1)
    number, sure, hits = (
        np.bincount(place, weights=weights, minlength=CALIBRATION_BINS)
        for weights in (None, confidence, right)
    )
    return number, sure, hits


def _errors(runs: list[Cell]) -> str:
    errors = []
    for cell in runs:
        number, sure, hits = binned(cell)
        errors.append(100 * np.abs(sure - hits).sum() / number.sum())
    spread = f" ± {np.std(errors, ddof=1):.1f}" if len(errors) > 1 else ""
    return f"ECE {np.mean(errors):.1f}{spread} %"


def _panel(axis: Axes, runs: list[Cell]) -> None:
    number, sure, hits = np.sum([binned(cell) for cell in runs], axis=0)
    edges = np.linspace(0, 100, CALIBRATION_BINS + 1)
    some = number > 0
    width = edges[1] - edges[0]
    at = edges[:-1][some] + width / 2
    accuracy, confidence = 100 * hits[some] / number[some], 100 * sure[some] / number[some]
    axis.bar(at, accuracy, 0.92 * width, color=COLOURS[5], label="accuracy")
    share = 100 * number[some] / number.sum()
    axis.plot([0, 100], [0, 100], color="#777777", linewidth=0.9, linestyle=(0, (3, 2)), label="calibrated")
    axis.scatter(
        confidence,
        accuracy,
        s=6 + 3 * share,
        color=COLOURS[1],
        zorder=3,
        label="mean of a bin (area: share of images)",
    )
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 100)
    axis.set_xticks(range(0, 101, 25))
    axis.set_yticks(range(0, 101, 25))
