"""The decision between a large and a small class in the plane of their weight vectors (Decoupling, figure 4).

Decoupling draws by hand, in two dimensions, which cone of features each class wins under a classifier. Here
the plane is that of the two classes' weight vectors w_i and w_j in the trained classifier:

    e_1 ~ w_i / |w_i| + w_j / |w_j|,   e_2 ~ w_i / |w_i| - w_j / |w_j|,   a feature z is (e_1 z, e_2 z)

Both logits depend on z by these two numbers alone. So for these two classes the boundary

    (w_i - w_j) z + b_i - b_j = 0

and the side on which each feature stands are exact, and nothing is lost by the projection. With equal lengths
and biases the boundary is the bisector, e_2 z = 0; a longer w_i turns it towards w_j.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field
from safetensors.torch import load_file

from longtail.publish.figures.drawing import (
    at_ratio,
    by_method,
    chosen,
    class_names,
    heading,
    tested_classes,
)
from longtail.publish.job import Cell, PublishedJob
from longtail.settings.base import Settings as BaseSettings

COLOURS = ("#0072B2", "#D55E00")  # of the large and the small class
MARKS = ("o", "^")
MOST_PANELS = 6
ACROSS = 3  # panels in a row
ARROW = 0.75  # length of the longer weight vector, as a share of the farthest feature's distance


class Settings(BaseSettings):
    """Whose classifiers are drawn, and for which two classes."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    methods: list[str] | None = None  # null: those of the first stage one that has several
    # two labels; null: the largest and the smallest class
    classes: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    reads: ClassVar[tuple[str, ...]] = ("features", "stage_two", "split")


@dataclass(frozen=True)
class Cone:
    """Two classes in the plane of their weight vectors.

    Attributes:
        weights: the two vectors, (2, 2).
        offset: difference of their biases, that of the first class minus that of the second.
        features: of the test images of both classes, (M, 2).
        second: whether each is of the second class, (M,).
    """

    weights: np.ndarray
    offset: float
    features: np.ndarray
    second: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        """What stands at right angles to the boundary, and points to the first class."""
        normal: np.ndarray = self.weights[0] - self.weights[1]
        return normal

    def first_wins(self, features: np.ndarray) -> np.ndarray:
        """Whether the first class has the larger logit of the two at features (M, 2)."""
        wins: np.ndarray = features @ self.normal + self.offset > 0
        return wins

    def right(self) -> tuple[float, float]:
        """Shares of right test images of each class, told apart between the two."""
        right = self.first_wins(self.features) != self.second
        return float(right[~self.second].mean()), float(right[self.second].mean())

    def angles(self) -> tuple[float, float]:
        """From the boundary's direction to each weight vector, in degrees.

        The biases are left out: they move the boundary, and do not turn it. An angle is negative where the
        vector itself stands on the other class's side.
        """
        direction = np.array([self.normal[1], -self.normal[0]])  # to the right, as the second stands below
        turns = [np.arctan2(w[1], w[0]) - np.arctan2(direction[1], direction[0]) for w in self.weights]
        first, second = ((np.degrees(turn) + 180) % 360 - 180 for turn in turns)
        return float(first), -float(second)


def draw(job: PublishedJob) -> Figure:
    """A panel a classifier: test features of its first run, weight vectors, and which class wins where."""
    cells = at_ratio(job, job.settings.ratio)
    methods = _methods(job, by_method(cells))
    sizes, labels = cells[0].class_counts(), _classes(job, cells[0])
    names = class_names(cells[0])
    rows = -(-len(methods) // ACROSS)
    figure = Figure(figsize=(0.4 + 4.1 * min(ACROSS, len(methods)), 0.9 + 4.7 * rows))
    axes = figure.subplots(rows, min(ACROSS, len(methods)), squeeze=False).ravel()
    for axis in axes[len(methods) :]:
        axis.remove()
    words = [f"{names[label]} ({sizes[label]:,} training images)" for label in labels]
    for axis, (method, runs) in zip(axes, methods.items(), strict=False):
        cones = [cone(cell, *labels) for cell in runs]
        _panel(axis, cones[0], words)
        angles = np.array([found.angles() for found in cones])
        right = 100 * np.array([found.right() for found in cones])
        axis.set_title(
            f"{method}\nboundary {_number(angles[:, 0])}° from the large vector, "
            f"{_number(angles[:, 1])}° from the small\n"
            f"right of the two: large {_number(right[:, 0])} %, small {_number(right[:, 1])} %",
            fontsize=8,
        )
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=2)
    several = any(len(runs) > 1 for runs in methods.values())
    drawn = "; the first run is drawn, numbers: mean ± standard deviation" if several else ""
    figure.suptitle(f"{heading(job, cells)}; test images{drawn}", x=0.01, ha="left", fontsize=10)
    return figure


def cone(cell: Cell, first: int, second: int) -> Cone:
    """Two classes under a run's classifier."""
    import torch.nn.functional as F

    from longtail.stage_two.classifier import tukey

    fitted = load_file(cell.runs["stage_two"] / "classifier.safetensors")
    found = load_file(cell.runs["features"] / "test.safetensors")
    labels = found["labels"]
    shown = (labels == first) | (labels == second)
    z = tukey(found["features"][shown], float(fitted["tukey"])) - fitted.get("center", 0.0)
    z = F.normalize(z, dim=1) if "normalise" in fitted else z
    weights = fitted["weight"][[first, second]].double().numpy()
    bias = fitted["bias"].double()
    basis = plane(*weights)
    return Cone(
        weights=weights @ basis.T,
        offset=float(bias[first] - bias[second]),
        features=z.double().numpy() @ basis.T,
        second=(labels[shown] == second).numpy(),
    )


def plane(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """An orthonormal basis (2, d) of the plane of two vectors (d,): their bisector, and what crosses it.

    Vectors that are parallel, or one of them nought, leave a direction free: it is any at right angles.
    """
    units = [vector / max(np.linalg.norm(vector), 1e-300) for vector in (first, second)]
    along, across = units[0] + units[1], units[0] - units[1]
    if np.linalg.norm(along) < 1e-7:
        along = _crossing(across)
    along /= np.linalg.norm(along)
    across -= (across @ along) * along
    if np.linalg.norm(across) < 1e-7:
        across = _crossing(along)
    return np.stack([along, across / np.linalg.norm(across)])


def _crossing(vector: np.ndarray) -> np.ndarray:
    """A vector at right angles to another: of the axis that the other follows least."""
    axis = np.eye(len(vector))[np.abs(vector).argmin()]
    crossing: np.ndarray = axis - (axis @ vector) / max(vector @ vector, 1e-300) * vector
    return crossing


def _panel(axis: Axes, found: Cone, words: list[str]) -> None:
    reach = np.linalg.norm(found.features, axis=1).max(initial=0) or 1.0
    longest = np.linalg.norm(found.weights, axis=1).max() or 1.0
    arrows = found.weights * ARROW * reach / longest
    drawn = np.concatenate([found.features, arrows, np.zeros((1, 2))])
    low, high = drawn.min(0) - 0.08 * reach, drawn.max(0) + 0.08 * reach
    middle, half = (low + high) / 2, (high - low).max() / 2  # a square, in which angles are as they are
    grid = [np.linspace(centre - half, centre + half, 401) for centre in middle]
    points = np.stack(np.meshgrid(*grid), axis=-1).reshape(-1, 2)
    values = (points @ found.normal + found.offset).reshape(401, 401)
    axis.contourf(*grid, values, levels=[-np.inf, 0, np.inf], colors=COLOURS[::-1], alpha=0.13)
    if values.min() < 0 < values.max():
        axis.contour(*grid, values, levels=[0], colors="#1a1a1a", linewidths=1.3)
    for number, (colour, mark, word) in enumerate(zip(COLOURS, MARKS, words, strict=True)):
        own = found.features[found.second == bool(number)]
        axis.scatter(own[:, 0], own[:, 1], s=13, color=colour, marker=mark, alpha=0.6, linewidth=0,
                     label=f"{word}, {len(own)} test images")  # fmt: skip
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.2, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", xy=arrows[number], xytext=(0, 0), arrowprops=arrow, zorder=4)
    axis.set_xlim(middle[0] - half, middle[0] + half)
    axis.set_ylim(middle[1] - half, middle[1] + half)
    axis.set_box_aspect(1)  # limits are as wide as high, so angles are as they are
    axis.set_xlabel("feature along the bisector of the weight vectors")
    axis.set_ylabel("feature across the bisector")


def _number(values: np.ndarray) -> str:
    spread = f" ± {np.std(values, ddof=1):.0f}" if len(values) > 1 else ""
    return f"{np.mean(values):.0f}{spread}"


def _methods(job: PublishedJob, methods: dict[str, list[Cell]]) -> dict[str, list[Cell]]:
    """Those that the settings name, else those of the first stage one that has several classifiers."""
    if job.settings.methods:
        return chosen(job, methods)
    recipes: dict[str, list[str]] = {}
    for method in methods:
        recipes.setdefault(job.methods[method]["stage_one"], []).append(method)
    several = [names for names in recipes.values() if len(names) > 1] or list(recipes.values())
    return {name: methods[name] for name in several[0][:MOST_PANELS]}


def _classes(job: PublishedJob, cell: Cell) -> tuple[int, int]:
    """Labels of the largest and the smallest class with test images, of equal ones the first and the last."""
    found = tested_classes(job, cell)
    return found[0], found[-1]
