"""Stage one's training loss and test accuracy over epochs, for every recipe of a table."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from longtail.publish.figures.drawing import (
    Dashes,
    at_ratio,
    distinct,
    heading,
    mean_and_spread,
    recipe_styles,
    seeds_words,
)
from longtail.publish.job import Cell, PublishedJob
from longtail.settings.base import Settings as BaseSettings


class Settings(BaseSettings):
    """Whose stage one is drawn."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    reads: ClassVar[tuple[str, ...]] = ("stage_one",)


def draw(job: PublishedJob) -> Figure:
    """Two panels, loss and accuracy; a line is the mean over seeds, its band the standard deviation."""
    cells = at_ratio(job, job.settings.ratio)
    recipes: dict[str, dict[tuple[int, int], Cell]] = {}
    for cell in cells:
        recipes.setdefault(job.methods[cell.method]["stage_one"], {})[cell.subset_seed, cell.seed] = cell
    styles = distinct(recipe_styles(job), recipes)
    figure = Figure(figsize=(8.6, 3.9))
    loss, accuracy = figure.subplots(1, 2)
    subsets = len({cell.subset_seed for cell in cells})
    for name, seeds in recipes.items():
        histories = [cell.frame("stage_one", "history.csv") for cell in seeds.values()]
        label = f"{name} ({seeds_words(len(histories)) if subsets == 1 else f'{len(histories)} runs'})"
        _line(loss, histories, "train_loss", 1, styles[name], label)
        _line(accuracy, histories, "test_accuracy", 100, styles[name], label)
    loss.set_ylabel("training loss (each recipe's own)")
    accuracy.set_ylabel("test accuracy (%)")
    for axis in (loss, accuracy):
        axis.set_xlabel("epoch")
        axis.set_xlim(left=0)
    handles, labels = loss.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    spread = "; band: ± standard deviation" if any(len(seeds) > 1 for seeds in recipes.values()) else ""
    figure.suptitle(f"Stage one, {heading(job, cells)}{spread}", x=0.01, ha="left", fontsize=10)
    return figure


def _line(
    axis: Axes,
    histories: Sequence[pd.DataFrame],
    column: str,
    scale: float,
    style: tuple[str, Dashes],
    label: str,
) -> None:
    """Mean and spread of a column at the epochs at which every seed has a number."""
    runs = pd.concat([scale * history[column] for history in histories], axis="columns").dropna()
    if runs.empty:
        return
    epochs = runs.index + 1
    mean, spread = mean_and_spread(runs.to_numpy().T.tolist())
    colour, dashes = style
    marker = "o" if len(epochs) < 25 else None
    axis.plot(epochs, mean, color=colour, linestyle=dashes, label=label, marker=marker, markersize=3)
    if np.any(spread):
        axis.fill_between(epochs, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
