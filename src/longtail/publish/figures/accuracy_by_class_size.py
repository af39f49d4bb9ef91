"""Test accuracy of every class against its number of training images, for the methods of a table."""

from math import ceil
from typing import ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from longtail.data.lists import some
from longtail.publish.figures.drawing import (
    at_ratio,
    binned_means,
    by_method,
    distinct,
    heading,
    number_axis,
    styles,
    thresholds,
)
from longtail.publish.job import PublishedJob
from longtail.settings.base import Settings as BaseSettings


class Settings(BaseSettings):
    """Whose classes are drawn."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    reads: ClassVar[tuple[str, ...]] = ("stage_two", "split")


def draw(job: PublishedJob) -> Figure:
    """Faint points: a class, mean over seeds. Strong lines: the mean of neighbouring classes."""
    cells = at_ratio(job, job.settings.ratio)
    sizes = np.array(cells[0].class_counts(), dtype=float)
    own = distinct(styles(job.methods), by_method(cells))
    figure = Figure(figsize=(6.8, 4.8))
    axis = figure.add_subplot()
    for method, seeds in by_method(cells).items():
        accuracy = 100 * _mean([cell.metrics()["test"]["per_class"] for cell in seeds])
        colour, dashes = own[method]
        axis.scatter(sizes, accuracy, s=9, color=colour, alpha=0.22, linewidth=0)
        axis.plot(
            *binned_means(sizes, accuracy),
            color=colour,
            linestyle=dashes,
            linewidth=2.2,
            marker="o",
            markersize=3.5,
            label=method,
        )
    number_axis(axis)
    axis.set_xlim(0.85 * max(1.0, sizes.min()), 1.15 * sizes.max())
    axis.set_ylim(-2, 114)  # room for the names of the groups
    axis.set_yticks(range(0, 101, 20))
    _mark_groups(job, axis, sizes)
    axis.set_xlabel("training images of the class (log scale)")
    axis.set_ylabel("test accuracy of the class (%)")
    figure.legend(loc="outside lower center", ncols=4)
    most = ceil(len(sizes) / len(binned_means(sizes, sizes)[0]))
    axis.set_title(
        f"{heading(job, cells)}\n"
        f"points: one class, mean over seeds; lines: mean of {most} neighbouring classes"
    )
    return figure


def _mean(accuracies: list[list[float | None]]) -> np.ndarray:
    """Mean over seeds (S, C) -> (C,); nan for a class without test images."""
    shares = [[np.nan if share is None else share for share in row] for row in accuracies]
    mean: np.ndarray = np.array(shares, dtype=float).mean(0)
    return mean


def _mark_groups(job: PublishedJob, axis: Axes, sizes: np.ndarray) -> None:
    left, right = axis.get_xlim()
    low, high = thresholds(job)
    for at in (low, high):
        if left < at < right:
            axis.axvline(at, color="#777777", linewidth=0.9, linestyle=(0, (2, 2)))
    spans = {
        "few": (left, min(low, right)),
        "medium": (max(low, left), min(high, right)),
        "many": (max(high, left), right),
    }
    groups = [job.group(int(size)) for size in sizes]
    for name, (start, end) in spans.items():
        if name in groups:
            axis.annotate(
                f"{name}\n{some(groups.count(name), 'class')}",
                xy=(np.sqrt(start * end), 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, -3),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=8,
                color="#444444",
            )
