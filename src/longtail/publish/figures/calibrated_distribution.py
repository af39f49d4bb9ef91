"""The calibrated distribution of one tail class in two feature dimensions (GLAG, figure 1b).

It shows what AFG draws from: real features of the class, the Gaussian that fits them, the calibrated one,
drawn features, and where the class's test images lie, which neither has seen.
"""

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from pydantic import Field
from safetensors.numpy import load_file

from longtail.errors import UserError
from longtail.publish.figures.drawing import COLOURS, INK, at_ratio, class_names, heading
from longtail.publish.job import Cell, PublishedJob
from longtail.random import generator
from longtail.settings.base import Settings as BaseSettings
from longtail.stage_two.afg import Settings as Generation
from longtail.stage_two.afg import feature_generator
from longtail.stage_two.classifier import FeatureData, tukey
from longtail.stage_two.feature_calibration import missing
from longtail.stage_two.fitting import read_features

DEVIATIONS = 2.0  # of the ellipses


class Settings(BaseSettings):
    """Whose class is drawn."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    # a tail class; null: the smallest
    label: Annotated[int, Field(ge=0)] | None = None
    # two; null: those in which the drawn features vary most
    dimensions: list[Annotated[int, Field(ge=0)]] | None = Field(None, min_length=2, max_length=2)
    reads: ClassVar[tuple[str, ...]] = ("features", "stage_two", "split")


def draw(job: PublishedJob) -> Figure:
    """Real and test points, drawn points, and ellipses of two standard deviations."""
    cells = at_ratio(job, job.settings.ratio)
    cell, generation = _first_with_afg(job, cells)
    data = read_features(cell.runs["features"], cell.runs["split"])
    known = load_file(cell.runs["stage_two"] / "classifier.safetensors")
    drawn_from = missing(data.class_counts, generation.features_per_class).numpy() > 0
    confidence, tail = known["confidences"][-1], known["tail"].astype(bool) & drawn_from
    label = _label(job, data, tail)
    power = 1.0 if generation.tukey.map_back else generation.tukey.power
    own = data.labels == label
    views = tukey(data.views[:, own], power).flatten(0, 1).numpy()
    clean = tukey(data.clean[own], power).numpy()
    test = load_file(cell.runs["features"] / "test.safetensors")
    images = torch.from_numpy(test["features"][test["labels"] == label])
    seen = tukey(images, generation.tukey.of_classifier).numpy()
    every = _draws(data, generation, torch.from_numpy(confidence).nan_to_num(0), label)
    drawn = every[:: len(data.views)]  # as many as an epoch has
    if (wanted := job.settings.dimensions) and max(wanted) >= every.shape[1]:
        raise UserError(f"figures.{job.name}.dimensions: features have {every.shape[1]}, from 0")
    x, y = wanted or sorted(np.argsort(-every.var(0), kind="stable")[:2].tolist())

    figure = Figure(figsize=(6.2, 5.6))
    axis = figure.add_subplot()
    points: list[tuple[np.ndarray, str, dict[str, Any]]] = [
        (
            drawn,
            f"drawn features, as many as in an epoch ({len(drawn)})",
            {"color": COLOURS[5], "marker": ".", "s": 14},
        ),
        (seen, f"test images ({len(seen)})", {"color": COLOURS[2], "marker": "^", "s": 16, "alpha": 0.75}),
        (
            clean,
            f"real training images ({len(clean)})",
            {"facecolor": COLOURS[1], "marker": "o", "s": 42, "edgecolor": INK, "linewidth": 0.8},
        ),
    ]
    for place, (values, name, look) in enumerate(points):
        axis.scatter(values[:, x], values[:, y], label=name, zorder=2 + place, **look)
    for values, name, colour, dashes in (
        (views, "Gaussian of the real features", COLOURS[1], "--"),
        (every, "calibrated Gaussian", COLOURS[0], "-"),
    ):
        ellipse, inside = _ellipse(values[:, [x, y]], seen[:, [x, y]])
        ellipse.set(
            edgecolor=colour, linestyle=dashes, label=f"{name}: {inside:.0%} of the test images lie in it"
        )
        axis.add_patch(ellipse)
    axis.autoscale_view()
    axis.set_xlabel(f"feature {x}")
    axis.set_ylabel(f"feature {y}")
    name = class_names(cell)[label]
    axis.set_title(
        f"{heading(job, [cell])} ({cell.method})\nclass {name}, $c_y$ = {confidence[label]:.2f}; "
        f"ellipses: {DEVIATIONS:g} standard deviations"
    )
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _first_with_afg(job: PublishedJob, cells: list[Cell]) -> tuple[Cell, Generation]:
    for cell in cells:
        method = dict(cell.info["stage_two"]["settings"]["method"])
        if method.pop("name") == "afg":
            return cell, Generation.model_validate(method)
    raise UserError(f"figures.{job.name}: no method of {job.settings.table} is afg, which draws features")


def _draws(data: FeatureData, settings: Generation, confidence: torch.Tensor, label: int) -> np.ndarray:
    """What AFG draws for a class in as many epochs as there are views, under confidences (C,); (draws, d)."""
    generate = feature_generator(data, settings)
    own = (generate.labels == label).nonzero().flatten()
    own = own[own >= len(data.labels)]  # the generated ones
    random = generator("figure", "calibrated_distribution")
    drawn = [
        made.numpy().copy()
        for view in range(len(data.views))
        for _, made in generate([own], view, confidence, random)
    ]
    return np.concatenate(drawn)


def _label(job: PublishedJob, data: FeatureData, tail: np.ndarray) -> int:
    counts = data.class_counts.numpy()
    if not tail.any():
        raise UserError(
            f"figures.{job.name}: there is no tail class that afg draws for; its tail_max or "
            "features_per_class is below every class"
        )
    label = job.settings.label
    if label is None:
        return int(np.where(tail, counts, counts.max() + 1).argmin())
    if label >= len(counts) or not tail[label]:
        known = ", ".join(map(str, np.flatnonzero(tail)))
        raise UserError(f"figures.{job.name}.label: {label} is not a tail class; these are {known}")
    return int(label)


def _ellipse(values: np.ndarray, others: np.ndarray) -> tuple[Ellipse, float]:
    """The ellipse of the values' Gaussian (M, 2), and the share of other points (N, 2) that lie in it."""
    mean = values.mean(0)
    covariance = np.cov(values.T) if len(values) > 1 else np.zeros((2, 2))  # a class of one image has none
    lengths, axes = np.linalg.eigh(covariance)
    lengths = lengths.clip(min=0)
    angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))
    width, height = 2 * DEVIATIONS * np.sqrt(lengths[::-1])
    ellipse = Ellipse(tuple(mean), width, height, angle=angle, facecolor="none", linewidth=1.8, zorder=6)
    along = (others - mean) @ axes
    squares = np.where(lengths > 0, along**2 / np.where(lengths > 0, lengths, 1), np.inf)
    inside = squares.sum(1) <= DEVIATIONS**2
    return ellipse, float(inside.mean()) if len(others) else 0.0
