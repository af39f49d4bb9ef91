"""t-SNE of test features of a few classes under each stage-one loss (GLAG, figure 4), and how far they part.

What the eye should see is a number in each title: the silhouette (Rousseeuw 1987) of the features themselves,
not of the map, whose distances mean little. It is 1 for classes far apart, 0 for classes that touch.
"""

from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure
from pydantic import Field
from safetensors.numpy import load_file
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from longtail.errors import UserError
from longtail.publish.figures.drawing import (
    COLOURS,
    at_ratio,
    by_method,
    class_names,
    heading,
    tested_classes,
)
from longtail.publish.job import Cell, PublishedJob
from longtail.settings.base import Settings as BaseSettings

MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
CLASS_COLOURS = (*COLOURS, "#9a9a9a")


class Settings(BaseSettings):
    """Whose features are drawn, and of which classes."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    methods: list[str] | None = None  # one for each stage one; null: those whose classifier is stage one's
    # labels, eight at most; null: eight from the largest to the smallest class
    classes: list[int] | None = Field(None, min_length=2, max_length=8)
    perplexity: float = Field(30.0, gt=1)  # about how many neighbours count
    reads: ClassVar[tuple[str, ...]] = ("features", "split")


def draw(job: PublishedJob) -> Figure:
    """A panel a method, the map of its first run; the silhouettes are means over runs.

    Raises:
        UserError: if no method can be drawn, or fewer than two classes have test images.
    """
    cells = at_ratio(job, job.settings.ratio)
    methods = _methods(job, by_method(cells))
    labels = _classes(job, cells[0])
    names = class_names(cells[0])
    sizes = cells[0].class_counts()
    figure = Figure(figsize=(0.4 + 3.1 * len(methods), 4.1))
    axes = figure.subplots(1, len(methods), squeeze=False)[0]
    for axis, (method, runs) in zip(axes, methods.items(), strict=True):
        features, own = _features(runs[0], labels)
        places = TSNE(
            init="pca",
            learning_rate="auto",
            perplexity=min(job.settings.perplexity, (len(features) - 1) / 3),
            random_state=0,
        ).fit_transform(features)
        for place, label in enumerate(labels):
            axis.scatter(
                *places[own == label].T,
                s=11,
                color=CLASS_COLOURS[place],
                marker=MARKS[place],
                linewidth=0,
                alpha=0.75,
                label=f"{names[label]} ({sizes[label]})",
            )
        axis.set_title(f"{method}\nsilhouette {_silhouette(runs, labels)}")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_xlabel("t-SNE 1 (no unit)")
        axis.set_ylabel("t-SNE 2 (no unit)")
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        texts,
        loc="outside lower center",
        ncols=4,
        title="class (training images)",
        title_fontsize=8,
        markerscale=1.6,
    )
    figure.suptitle(f"{heading(job, cells)}; test images", x=0.01, ha="left", fontsize=10)
    return figure


def _methods(job: PublishedJob, methods: dict[str, list[Cell]]) -> dict[str, list[Cell]]:
    names = job.settings.methods
    if names is None:
        names = [name for name in methods if job.methods[name]["stage_two"] == "joint"]
    if unknown := [name for name in names if name not in methods]:
        raise UserError(
            f"figures.{job.name}.methods: {unknown[0]!r} is not in {job.settings.table}, "
            f"which has {', '.join(methods)}"
        )
    if not names:
        raise UserError(f"figures.{job.name}: name methods; no method of {job.settings.table} is joint")
    return {name: methods[name] for name in names}


def _classes(job: PublishedJob, cell: Cell) -> list[int]:
    """Labels by size, largest first."""
    found = tested_classes(job, cell)
    places = np.linspace(0, len(found) - 1, min(len(MARKS), len(found))).round().astype(int)
    return [found[place] for place in places]


def _features(cell: Cell, labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Test features (M, d) and labels (M,) of the classes."""
    found = load_file(cell.runs["features"] / "test.safetensors")
    shown = np.isin(found["labels"], labels)
    return found["features"][shown], found["labels"][shown]


def _silhouette(runs: list[Cell], labels: list[int]) -> str:
    """Mean and deviation over runs, in words; it needs a class with two images or more."""
    tested = [_features(cell, labels) for cell in runs]
    if any(len(own) <= len(labels) for _, own in tested):
        return "not defined: one image a class"
    scores = [silhouette_score(features, own) for features, own in tested]
    spread = f" ± {np.std(scores, ddof=1):.2f}" if len(scores) > 1 else ""
    return f"{np.mean(scores):.2f}{spread}"
