"""Test and validation accuracy over the grid of a sweep: a line over one key, heat maps over two."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from longtail.errors import UserError
from longtail.publish.figures.drawing import COLOURS, by_method, heading
from longtail.publish.job import Cell, PublishedJob
from longtail.settings.base import Settings as BaseSettings

SCORES = {"test": "test accuracy (%)", "validation": "validation accuracy, mean over classes (%)"}
WIDE = 8  # largest / smallest value from which on the axis is logarithmic


class Point(BaseSettings):
    """A point of the grid: its method, and the value of each key."""

    method: str
    values: list[Any]


class Settings(BaseSettings):
    """The grid, as the plan fills it in from `sweeps`."""

    table: str  # of the sweep
    sweep: str  # the method that is varied
    keys: list[str]  # of the grid
    points: list[Point]  # of the grid
    # the first two say whether validation images can judge
    reads: ClassVar[tuple[str, ...]] = ("split", "stage_one", "stage_two")


def draw(job: PublishedJob) -> Figure:
    """Mean over runs with ± standard deviation; a ring marks what the validation images would choose."""
    settings: Settings = job.settings
    cells = by_method(job.cells)
    scores = {
        "test": [_percent(cells[point.method], "test") for point in settings.points],
        "validation": [_percent(cells[point.method], "validation") for point in settings.points],
    }
    if not all(scores["validation"]):
        del scores["validation"]  # none, or they cannot judge
    head = f"{settings.sweep}; {heading(job, job.cells)}"
    if len(settings.keys) == 1:
        return _line(settings, scores, head)
    return _maps(settings, scores, head)


def _percent(cells: Sequence[Cell], part: str) -> list[float]:
    if part == "validation":
        return [100 * value for cell in cells if (value := cell.validation()) is not None]
    accuracies = [cell.metrics()["test"]["accuracy"] for cell in cells]
    if None in accuracies:
        raise UserError(f"{cells[0].runs['stage_two']}: no test image was measured")
    return [100 * value for value in accuracies]


def _means(runs: Sequence[Sequence[float]]) -> np.ndarray:
    means: np.ndarray = np.array([np.mean(values) for values in runs])
    return means


def _line(settings: Settings, scores: dict[str, list[list[float]]], head: str) -> Figure:
    values = [point.values[0] for point in settings.points]
    figure = Figure(figsize=(5.6, 3.9))
    axis = figure.add_subplot()
    places = _places(axis, values)
    order = np.argsort(places)
    for (part, runs), colour, dashes, marker in zip(
        scores.items(), COLOURS, ("-", "--"), ("o", "s"), strict=False
    ):
        means = _means(runs)
        spread = [np.std(found, ddof=1) if len(found) > 1 else 0.0 for found in runs]
        axis.errorbar(
            np.array(places)[order],
            means[order],
            np.array(spread)[order] if any(spread) else None,
            color=colour,
            linestyle=dashes,
            marker=marker,
            markersize=5,
            capsize=3,
            label=SCORES[part],
        )
        if part == "validation":
            best = int(means.argmax())
            axis.scatter(
                places[best],
                means[best],
                s=150,
                facecolors="none",
                edgecolors="#1a1a1a",
                linewidths=1.2,
                label=f"validation would choose {settings.keys[0]} = {_said(values[best])}",
                zorder=3,
            )
    axis.set_xlabel(settings.keys[0] + (" (log scale)" if axis.get_xscale() == "log" else ""))
    axis.set_ylabel("accuracy (%)")
    bars = "; bars: ± standard deviation" if any(len(runs) > 1 for runs in scores["test"]) else ""
    axis.set_title(head + bars)
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _places(axis: Axes, values: Sequence[Any]) -> list[float]:
    """Where the values stand on the x-axis: where they are as numbers, else side by side."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        axis.set_xticks(range(len(values)), [_said(value) for value in values])
        return [float(place) for place in range(len(values))]
    if min(values) > 0 and max(values) >= WIDE * min(values):
        axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(sorted(values)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return [float(value) for value in values]


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _maps(settings: Settings, scores: dict[str, list[list[float]]], head: str) -> Figure:
    """A heat map for each score, the first key down and the second across; each with its own colours."""
    down, across = (
        list(dict.fromkeys(_said(point.values[place]) for point in settings.points)) for place in (0, 1)
    )
    figure = Figure(figsize=(1.0 + len(scores) * (1.5 + 0.85 * len(across)), 1.7 + 0.6 * len(down)))
    best = int(_means(scores["validation"]).argmax()) if "validation" in scores else None
    for place, (part, runs) in enumerate(scores.items()):
        axis = figure.add_subplot(1, len(scores), place + 1)
        means = _means(runs).reshape(len(down), len(across))
        image = axis.imshow(means, cmap="viridis", aspect="auto")
        axis.grid(False)
        axis.set_xticks(range(len(across)), across)
        axis.set_yticks(range(len(down)), down)
        axis.set_xlabel(settings.keys[1])
        axis.set_ylabel(settings.keys[0])
        axis.set_title(SCORES[part], fontsize=9)
        middle = (means.min() + means.max()) / 2
        for number, values in enumerate(runs):
            row, column = divmod(number, len(across))
            text = f"{np.mean(values):.1f}"
            if len(values) > 1:
                text += f"\n± {np.std(values, ddof=1):.1f}"
            colour = "white" if means[row, column] < middle else "black"
            weight = "bold" if number == best else "normal"
            axis.text(
                column, row, text, ha="center", va="center", fontsize=8, color=colour, fontweight=weight
            )
        if best is not None:
            row, column = divmod(best, len(across))
            axis.plot(column, row, "o", markersize=34, markerfacecolor="none", markeredgecolor="#D55E00")
        figure.colorbar(image, ax=axis, pad=0.03).set_label("%")
    ring = "; ring: what validation would choose" if "validation" in scores else ""
    figure.suptitle(f"{head}{ring}", x=0.01, ha="left", fontsize=10)
    return figure
