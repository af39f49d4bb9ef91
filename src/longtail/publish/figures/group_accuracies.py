"""Accuracy of every method of a table on all, many, medium and few-shot classes, with its spread."""

from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from longtail.groups import GROUPS
from longtail.publish.figures.drawing import GROUP_COLOURS, INK, at_ratio, heading
from longtail.publish.job import PublishedJob
from longtail.publish.results import measured
from longtail.settings.base import Settings as BaseSettings

MARKS = {"many": "s", "medium": "o", "few": "^", "all": "D"}


class Settings(BaseSettings):
    """Whose methods are drawn."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    reads: ClassVar[tuple[str, ...]] = ("stage_two", "split")


def draw(job: PublishedJob) -> Figure:
    """A line a method, first row of the table on top; a mark a group, bars ± standard deviation over runs."""
    cells = at_ratio(job, job.settings.ratio)
    results = measured(job, cells).query("split == 'test'").rename(columns={"accuracy": "all"})
    methods = results.groupby("method", sort=False)
    groups = [name for name in (*GROUPS, "all") if len(_percent(results.iloc[:1], name))]
    figure = Figure(figsize=(6.6, 1.5 + 0.36 * len(methods)))
    axis = figure.add_subplot()
    for place, (_, runs) in enumerate(methods):
        means = {}
        for name in groups:
            found = _percent(runs, name)
            means[name] = np.mean(found)
            axis.errorbar(
                means[name],
                -place,
                xerr=np.std(found, ddof=1) if len(found) > 1 else None,
                color=GROUP_COLOURS.get(name, INK),
                marker=MARKS[name],
                markersize=7 if name == "all" else 6,
                markerfacecolor="white" if name == "all" else None,
                linestyle="none",
                capsize=2.5,
                elinewidth=1.2,
                label=_label(job, name) if place == 0 else None,
                zorder=3,
            )
        axis.plot([min(means.values()), max(means.values())], [-place, -place], color="#b5b5b5", linewidth=1)
    axis.set_yticks([-place for place in range(len(methods))], [str(method) for method, _ in methods])
    axis.set_ylim(0.6 - len(methods), 0.6)
    axis.grid(False, axis="y")
    axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
    axis.set_xlabel("test accuracy (%)")
    axis.set_ylabel("method")
    bars = "; bars: ± standard deviation" if len(cells) > len(methods) else ""
    axis.set_title(heading(job, cells) + bars)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _label(job: PublishedJob, name: str) -> str:
    return {**job.group_words(), "all": "all test images"}[name]


def _percent(runs: pd.DataFrame, name: str) -> list[float]:
    """Accuracy of a group, a value a run; empty where no class is in it."""
    return runs[name].dropna().mul(100).tolist()
