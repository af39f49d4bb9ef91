"""Length of each class's weights against its size, before and after rebalancing (Decoupling, figure 2)."""

from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from longtail.errors import UserError
from longtail.publish.figures.drawing import (
    at_ratio,
    binned_means,
    by_method,
    distinct,
    heading,
    number_axis,
    styles,
)
from longtail.publish.job import Cell, PublishedJob
from longtail.settings.base import Settings as BaseSettings

MOST_PANELS = 3


class Settings(BaseSettings):
    """Whose classifiers are drawn."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    reads: ClassVar[tuple[str, ...]] = ("stage_two", "split")


def draw(job: PublishedJob) -> Figure:
    """A panel a stage one that has several classifiers; lengths relative to their mean over classes."""
    cells = at_ratio(job, job.settings.ratio)
    panels: dict[str, dict[str, list[np.ndarray]]] = {}
    for method, runs in by_method(cells).items():
        norms = [found for cell in runs if (found := _norms(cell)) is not None]
        if norms:
            panels.setdefault(job.methods[method]["stage_one"], {})[method] = norms
    panels = {recipe: methods for recipe, methods in panels.items() if len(methods) > 1}
    if not panels:
        raise UserError(
            f"figures.{job.name}: {job.settings.table} has no stage one with several classifiers to compare"
        )
    panels = dict(list(panels.items())[:MOST_PANELS])
    sizes = np.array(cells[0].class_counts(), dtype=float)
    figure = Figure(figsize=(1.2 + 4.2 * len(panels), 5.4))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (recipe, methods) in zip(axes, panels.items(), strict=True):
        own = distinct(styles(job.methods), methods)
        for method, norms in methods.items():
            mean = np.mean([found / found.mean() for found in norms], axis=0)
            colour, dashes = own[method]
            axis.scatter(sizes, mean, s=9, color=colour, alpha=0.25, linewidth=0)
            axis.plot(
                *binned_means(sizes, mean),
                color=colour,
                linestyle=dashes,
                marker="o",
                markersize=3.5,
                label=method,
            )
        number_axis(axis)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("training images of the class (log scale)")
        axis.set_ylabel("length of the class's weights / mean of all")
        axis.set_title(f"stage one: {recipe}")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8)
    figure.suptitle(
        f"{heading(job, cells)}\npoints: classes, lines: means of neighbouring ones",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


def _norms(cell: Cell) -> np.ndarray | None:
    """Length of each class's weights, (C,); None for a classifier on normalised features, such as NCM."""
    found = load_file(cell.runs["stage_two"] / "classifier.safetensors")
    if "normalise" in found:
        return None
    norms: np.ndarray = np.linalg.norm(found["weight"].astype(np.float64), axis=1)
    return norms
