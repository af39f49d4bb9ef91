"""Whether joint training distorts the gradient, for every stage-one recipe that measured its gradients.

Asynchronous modelling (ICLR 2021 submission) claims that the total gradient is pulled toward the data-rich
classes' one, and that its norm varies more because of the data-poor classes. Nothing here takes that for
granted: the words below the panels are chosen by the numbers.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field

from longtail.errors import UserError
from longtail.publish.figures.drawing import (
    Dashes,
    at_ratio,
    by_method,
    chosen,
    distinct,
    heading,
    mean_and_spread,
    recipe_styles,
    seeds_words,
)
from longtail.publish.job import Cell, PublishedJob
from longtail.settings.base import Settings as BaseSettings

PARTS = ("backbone", "head")
COSINES = {
    "total_rich": "total and data-rich",
    "total_poor": "total and data-poor",
    "rich_poor": "data-rich and data-poor",
}
VARIATIONS = ("total", "rich", "poor")  # standard deviation / mean of each norm over an epoch's batches
PANELS = {**COSINES, "total": "norm of the total"}
SPACE = "\N{NO-BREAK SPACE}"
ALIKE = 0.01  # a difference below which words make none
WIDTH = 11.0  # inches
REFERENCE: tuple[str, Dashes] = ("#767676", (0, (3, 1, 1, 1)))  # of the run on balanced data
LETTERS = 172  # that fit beside one another, of size 8
LINE = 0.14  # inches from one line of the caption to the next


class Balanced(BaseSettings):
    """A run on balanced data, planned for the figure: what the numbers are where no class is rare [ours]."""

    method: str  # whose recipe is trained; its observer takes rich_share in place of its own border
    per_class: int | None = Field(None, ge=1, le=1_000_000_000)  # images; null: as many as every class has
    rich_share: float = Field(gt=0, lt=1)  # of the classes, by label, that stand for data-rich ones


class Settings(BaseSettings):
    """Whose gradients are drawn."""

    table: str = "table2"  # whose runs are drawn
    ratio: float | None = None  # null: 100 if it is there, else the first
    methods: list[str] | None = None  # null: all of the table whose stage one measured its gradients
    balanced: Balanced | None = None  # a run on balanced data beside the others; null: none
    reads: ClassVar[tuple[str, ...]] = ("stage_one",)


@dataclass(frozen=True)
class DistortionCurves:
    """What the runs of a recipe measured.

    Attributes:
        runs: those that measured, one a subset and seed.
        phases: name of the phase of each epoch, all phases one after another.
        values: by part and by key of COSINES or VARIATIONS, shape (runs, epochs); nan where it was not
            measured or is not defined.
    """

    runs: list[Cell]
    phases: list[str]
    values: dict[str, dict[str, np.ndarray]]

    def spans(self) -> list[slice]:
        """The epochs of each phase."""
        lengths = [len(list(epochs)) for _, epochs in groupby(self.phases)]
        ends = np.cumsum(lengths).tolist()
        return [slice(end - length, end) for length, end in zip(lengths, ends, strict=True)]


def draw(job: PublishedJob) -> Figure:
    """A row of panels a part of the network, a line a recipe, and below them what they show, in words."""
    own = [cell for cell in job.cells if cell.method in job.methods]
    recipes = _measured(job, at_ratio(replace(job, cells=own), job.settings.ratio))
    styles = distinct(recipe_styles(job), recipes)
    cells = [cell for recipe in recipes.values() for cell in recipe.runs]
    if balanced := _reference(job):
        recipes, styles = recipes | balanced, styles | dict.fromkeys(balanced, REFERENCE)
    caption = _caption(recipes, job.settings.balanced)
    single = len({cell.subset_seed for cell in cells}) == 1
    labels = {
        name: f"{name} ({seeds_words(len(recipe.runs)) if single else f'{len(recipe.runs)} runs'})"
        for name, recipe in recipes.items()
    }
    across = min(4, max(1, LETTERS // (max(map(len, labels.values())) + 10)))
    above = 5.2 + 0.2 * math.ceil(len(labels) / across)
    below = LINE * (caption.count("\n") + 2)
    figure = Figure(figsize=(WIDTH, above + below))
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[above, below]).flat
    axes = upper.subplots(len(PARTS), len(PANELS))
    for row, part in zip(axes, PARTS, strict=True):
        for axis, panel in zip(row, PANELS, strict=True):
            for name, recipe in recipes.items():
                scale = 1 if panel in COSINES else 100
                _line(axis, recipe, scale * recipe.values[part][panel], styles[name], labels[name])
            axis.set_xlabel("epoch")
            axis.set_xlim(0, max(len(recipe.phases) for recipe in recipes.values()) + 1)
        _same_scale(row[: len(COSINES)])
        for axis in row[: len(COSINES)]:
            axis.axhline(0, color="#808080", linewidth=0.8, zorder=1)
            axis.set_ylabel("cosine")
        row[-1].set_ylabel("standard deviation / mean (%)", fontsize=8)
        row[-1].set_ylim(0, 1.06 * (_reach([row[-1]])[1] or 1.0))
        row[0].set_ylabel(f"{part}: cosine")
    for axis, words in zip(axes[0], PANELS.values(), strict=True):
        axis.set_title(words)
    handles, texts = axes[0, 0].get_legend_handles_labels()
    upper.legend(handles, texts, loc="outside lower center", ncols=across)
    lower.text(0.01, 1, caption, fontsize=8, va="top", linespacing=1.25)
    band = "; band: ± standard deviation" if any(len(recipe.runs) > 1 for recipe in recipes.values()) else ""
    change = "; dotted: a new phase" if any(len(recipe.spans()) > 1 for recipe in recipes.values()) else ""
    title = f"Gradients of stage one, {heading(job, cells)}{band}{change}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _measured(job: PublishedJob, cells: Sequence[Cell]) -> dict[str, DistortionCurves]:
    """What was measured, by recipe; several methods of one recipe are one line."""
    runs: dict[str, dict[tuple[int, int], Cell]] = {}
    for method, own in chosen(job, by_method(cells)).items():
        recipe = job.methods[method]["stage_one"]
        runs.setdefault(recipe, {}).update({(cell.subset_seed, cell.seed): cell for cell in own})
    found = {name: _read(list(own.values())) for name, own in runs.items()}
    for method in job.settings.methods or []:
        if not found[job.methods[method]["stage_one"]]:
            raise UserError(
                f"figures.{job.name}.methods: the gradients of {method!r} were not measured; "
                f"give stage_one.{job.methods[method]['stage_one']} `observers: [gradients]`"
            )
    measured = {name: recipe for name, recipe in found.items() if recipe}
    if not measured:
        raise UserError(
            f"figures.{job.name}: no method of {job.settings.table} measured its gradients; "
            f"give a recipe of stage_one ({', '.join(found)}) `observers: [gradients]`"
        )
    return measured


def _reference(job: PublishedJob) -> dict[str, DistortionCurves]:
    """What was measured on balanced data, where the settings ask for it."""
    settings: Settings = job.settings
    if settings.balanced is None:
        return {}
    found = _read([cell for cell in job.cells if cell.method not in job.methods])
    name = f"{job.methods[settings.balanced.method]['stage_one']}, balanced data"
    return {name: found} if found else {}


def _read(cells: Sequence[Cell]) -> DistortionCurves | None:
    """The runs that measured their gradients; None where none did."""
    histories = [cell.frame("stage_one", "history.csv") for cell in cells]
    own = [pair for pair in zip(cells, histories, strict=True) if _has_gradients(pair[1])]
    if not own:
        return None
    values: dict[str, dict[str, np.ndarray]] = {}
    for part in PARTS:
        columns = {
            name: np.array([_column(history, f"gradient_{part}_{name}") for _, history in own])
            for name in (
                *(f"cosine_{pair}" for pair in COSINES),
                *(f"{of}_{term}" for of in ("norm", "variance") for term in VARIATIONS),
            )
        }
        values[part] = {pair: columns[f"cosine_{pair}"] for pair in COSINES}
        for term in VARIATIONS:
            norm = columns[f"norm_{term}"]
            norm = np.where(norm > 0, norm, np.nan)
            values[part][term] = np.sqrt(columns[f"variance_{term}"]) / norm
    first = own[0][1]
    phases = first["phase"].tolist() if "phase" in first else [""] * len(first)
    return DistortionCurves([cell for cell, _ in own], phases, values)


def _has_gradients(history: pd.DataFrame) -> bool:
    return bool(history.filter(regex="^gradient_").notna().any(axis=None))


def _column(history: pd.DataFrame, name: str) -> "pd.Series[float]":
    """Of every epoch; nan where the run has no such column."""
    return history[name] if name in history else pd.Series(np.nan, history.index)


def _line(
    axis: Axes, recipe: DistortionCurves, values: np.ndarray, style: tuple[str, Dashes], label: str
) -> None:
    """Mean and spread at the epochs at which every run has a number; a line a phase: none joins two."""
    colour, dashes = style
    everywhere = np.isfinite(values).all(0)
    marker = "o" if everywhere.sum() < 25 else None
    for place, span in enumerate(recipe.spans()):
        epochs = span.start + np.flatnonzero(everywhere[span])
        mean, spread = mean_and_spread(values[:, epochs].tolist())
        own = label if place == 0 else None
        axis.plot(epochs + 1, mean, color=colour, linestyle=dashes, label=own, marker=marker, markersize=3)
        if np.any(spread):
            axis.fill_between(epochs + 1, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
        if place:
            axis.axvline(span.start + 0.5, color=colour, linestyle=":", linewidth=0.9, zorder=1)


def _same_scale(axes: Sequence[Axes]) -> None:
    """One scale for all, with 0 and everything drawn in it, and nothing beyond -1 and 1."""
    low, high = _reach(axes)
    margin = 0.06 * (high - low or 1.0)
    for axis in axes:
        axis.set_ylim(max(-1.03, low - margin), min(1.03, high + margin))


def _reach(axes: Sequence[Axes]) -> tuple[float, float]:
    """Lowest and highest value drawn, 0 among them."""
    drawn = [limit for axis in axes for limit in axis.dataLim.intervaly if np.isfinite(limit)]
    return min([0.0, *drawn]), max([0.0, *drawn])


def _caption(recipes: dict[str, DistortionCurves], balanced: Balanced | None) -> str:
    """What the lines of the backbone show, a sentence a recipe."""
    several = any(len(recipe.runs) > 1 for recipe in recipes.values())
    spread = " (± standard deviation over runs)" if several else ""
    lines = [f"Backbone, mean over the epochs that were measured{spread}:"]
    wrapped = textwrap.TextWrapper(LETTERS, subsequent_indent="    ", break_on_hyphens=False)
    lines += [wrapped.fill(name + _words(recipe.values["backbone"])) for name, recipe in recipes.items()]
    if balanced is not None:
        images = "all images" if balanced.per_class is None else f"{balanced.per_class:,} images"
        lines.append(
            f"Balanced data: {images} of every class; the first {100 * balanced.rich_share:.4g}% of the "
            "classes, by label, stand for the data-rich ones."
        )
    return "\n".join(lines)


def _words(values: dict[str, np.ndarray]) -> str:
    """How gradients lie to one another and how much norms vary, over the epochs that have all of them."""
    known = {name: np.isfinite(values[name]).all(0) for name in values}
    both = np.all([known[name] for name in COSINES], axis=0)
    measured = np.any(list(known.values()), axis=0)
    if not both.any():
        return ": no epoch has both a data-rich and a data-poor gradient"
    rich, poor, between = (values[name][:, both].mean(1) for name in COSINES)
    part = f" ({both.sum()} of {measured.sum()} epochs have both gradients)" if any(measured & ~both) else ""
    text = (
        f"{part}: the total gradient points with the data-rich one (cosine {_number(rich)}) "
        f"{_more(rich, poor, 'than', 'as')} with the data-poor one ({_number(poor)}); "
        f"rich and poor {_number(between)}"
    )
    varied = np.all([known[name] for name in VARIATIONS], axis=0)
    if varied.any():
        total, rich, poor = (values[name][:, varied].mean(1) for name in VARIATIONS)
        text += (
            f"; the norm of the total varies by {_percent(total)}, that of rich {_more(rich, total)} "
            f"({_percent(rich)}), that of poor {_more(poor, total)} ({_percent(poor)})"
        )
    return text


def _more(values: np.ndarray, others: np.ndarray, than: str = "", like: str = "") -> str:
    """`more`, `less`, or `as much` where the runs' differences are within their spread or 0.01 of nought."""
    [difference], [spread] = mean_and_spread((values - others)[:, None].tolist())
    if abs(difference) <= max(ALIKE, spread):
        return f"as much {like}".strip()
    return f"{'more' if difference > 0 else 'less'} {than}".strip()


def _number(values: np.ndarray) -> str:
    [mean], [spread] = mean_and_spread(values[:, None].tolist())
    return f"{mean:z.2f}" + (f"{SPACE}±{SPACE}{spread:.2f}" if len(values) > 1 else "")


def _percent(values: np.ndarray) -> str:
    [mean], [spread] = mean_and_spread((100 * values[:, None]).tolist())
    return f"{mean:.0f}" + (f"{SPACE}±{SPACE}{spread:.0f}" if len(values) > 1 else "") + f"{SPACE}%"
