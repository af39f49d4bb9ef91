"""Validation accuracy over tau, and the tau that it chose, for every method that chose one."""

from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from longtail.errors import UserError
from longtail.publish.figures.drawing import at_ratio, by_method, distinct, heading, mean_and_spread, styles
from longtail.publish.job import Cell, PublishedJob
from longtail.settings.base import Settings as BaseSettings


class Settings(BaseSettings):
    """Whose curves are drawn."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    reads: ClassVar[tuple[str, ...]] = ("stage_two",)


def draw(job: PublishedJob) -> Figure:
    """A line a method, mean over runs with a band of one standard deviation; a ring at its highest point."""
    cells = at_ratio(job, job.settings.ratio)
    found = {method: [_curve(cell) for cell in runs] for method, runs in by_method(cells).items()}
    curves = {
        method: tried
        for method, runs in found.items()
        if len(tried := [run for run in runs if run is not None]) == len(runs)
    }
    if not curves:
        raise UserError(
            f"figures.{job.name}: no method of {job.settings.table} chose a tau; it needs one with "
            "tau_normalisation"
        )
    own = distinct(styles(job.methods), curves)
    figure = Figure(figsize=(5.8, 3.9))
    axis = figure.add_subplot()
    for method, runs in curves.items():
        taus = runs[0]["tau"].to_numpy()
        mean, spread = mean_and_spread([run["validation"].mul(100).tolist() for run in runs])
        colour, dashes = own[method]
        best = int(mean.argmax())
        axis.plot(
            taus,
            mean,
            color=colour,
            linestyle=dashes,
            marker="o",
            markersize=3,
            label=f"{method}: highest at {taus[best]:g}",
        )
        if np.any(spread):
            axis.fill_between(taus, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
        axis.scatter(
            taus[best], mean[best], s=130, facecolors="none", edgecolors=colour, linewidths=1.4, zorder=3
        )
    axis.set_xlabel("$\\tau$ (0: no adjustment)")
    axis.set_ylabel("validation accuracy, mean over classes (%)")
    band = "; band: ± standard deviation" if any(len(runs) > 1 for runs in curves.values()) else ""
    axis.set_title(heading(job, cells) + band)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _curve(cell: Cell) -> pd.DataFrame | None:
    """A row a value tried: tau and its validation accuracy; None for a method that tried none."""
    tried = cell.frame("stage_two", "history.csv")
    return tried if "tau" in tried and len(tried) else None
