"""The confidence c_y of every tail class over AFG's generation epochs (GLAG, section 5.3.2)."""

from typing import ClassVar

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from longtail.data.lists import some
from longtail.errors import UserError
from longtail.groups import GROUPS
from longtail.publish.figures.drawing import (
    GROUP_COLOURS,
    at_ratio,
    by_method,
    heading,
    plain_numbers,
    size_colours,
)
from longtail.publish.job import Cell, PublishedJob
from longtail.settings.base import Settings as BaseSettings

NO_TAIL = "no tail class:\nall have more training images than tail_max,\nor as many as the largest class"


class Settings(BaseSettings):
    """Whose confidences are drawn."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    reads: ClassVar[tuple[str, ...]] = ("stage_two", "split")


def draw(job: PublishedJob) -> Figure:
    """A panel for each method that has confidences: thin lines classes, bold lines means of groups.

    A method without a tail class has an empty panel that says so.
    """
    cells = at_ratio(job, job.settings.ratio)
    found = {
        method: [path for cell in seeds if (path := _confidences(cell)) is not None]
        for method, seeds in by_method(cells).items()
    }
    panels = {method: np.mean(paths, axis=0) for method, paths in found.items() if paths}
    if not panels:
        raise UserError(
            f"figures.{job.name}: no method of {job.settings.table} has confidences; it needs one with afg"
        )
    sizes = np.array(cells[0].class_counts())
    groups = np.array([job.group(size) for size in sizes])
    shown = sizes[np.any([~np.isnan(path).any(0) for path in panels.values()], axis=0)]
    norm = LogNorm(max(1, shown.min(initial=sizes.max())), max(2, shown.max(initial=1)))
    colours = size_colours()
    figure = Figure(figsize=(1.6 + 5.0 * len(panels), 4.0))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (method, path) in zip(axes, panels.items(), strict=True):
        epochs = np.arange(len(path))
        tail = np.flatnonzero(~np.isnan(path).any(0))
        for label in tail[np.argsort(-sizes[tail], kind="stable")]:
            axis.plot(
                epochs, path[:, label], color=colours(norm(max(1, sizes[label]))), linewidth=0.7, alpha=0.45
            )
        for name in GROUPS:
            members = tail[groups[tail] == name]
            if len(members):
                mean = path[:, members].mean(1)
                axis.plot(epochs, mean, color="white", linewidth=5)
                axis.plot(
                    epochs,
                    mean,
                    color=GROUP_COLOURS[name],
                    linewidth=3,
                    label=f"mean of {name} ({some(len(members), 'class')})",
                )
        axis.set_xlim(0, len(path) - 1)
        axis.set_ylim(0, 1)
        axis.set_xlabel("generation epoch")
        axis.set_title(method)
        if len(tail):
            axis.legend(loc="best")
        else:
            axis.text(0.5, 0.5, NO_TAIL, transform=axis.transAxes, ha="center", va="center")
    axes[0].set_ylabel("confidence $c_y$ (0: own samples, 1: neighbours)")
    if len(shown):
        bar = figure.colorbar(ScalarMappable(norm, colours), ax=list(axes), pad=0.02)
        bar.set_label("training images of the class (log scale)")
        plain_numbers(bar.ax.yaxis)
    figure.suptitle(
        f"{heading(job, cells)}; thin: a tail class, mean over seeds", x=0.01, ha="left", fontsize=10
    )
    return figure


def _confidences(cell: Cell) -> np.ndarray | None:
    """c_y before training and after each generation epoch, (epochs + 1, C), nan for classes without."""
    return load_file(cell.runs["stage_two"] / "classifier.safetensors").get("confidences")
