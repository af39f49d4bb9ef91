"""The forms of gamma(t), the strength of the gradual balanced loss during training (GLAG, figure 3)."""

import math
from typing import ClassVar

import torch
from matplotlib.figure import Figure

from longtail.publish.figures.drawing import distinct, recipe_styles
from longtail.publish.job import PublishedJob
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import Power

REFERENCES = {0.5: "concave", 1.0: "linear", 2.0: "convex", 3.0: "convex"}  # b of t^b
POINTS = 201


class Settings(BaseSettings):
    """Nothing to set: it draws every recipe of stage one whose loss has a gamma."""

    reads: ClassVar[tuple[str, ...]] = ()


def draw(job: PublishedJob) -> Figure:
    """Thin reference curves t^b, and over them what the recipes use, recipes with one gamma together."""
    progress = torch.linspace(0, 1, POINTS, dtype=torch.float64)
    figure = Figure(figsize=(7.2, 4.2))
    axis = figure.add_subplot()
    for place, (b, form) in enumerate(REFERENCES.items()):
        axis.plot(progress, Power(b=b)(progress), color="#8a8a8a", linewidth=0.9)
        at = 0.35 + 0.15 * place
        axis.text(
            at,
            at**b + 0.012,
            f"{form}, b = {b:g}",
            rotation=math.degrees(math.atan(b * at ** (b - 1))),
            rotation_mode="anchor",
            transform_rotates_text=True,
            ha="center",
            va="bottom",
            fontsize=7.5,
            color="#555555",
        )
    curves: dict[tuple[float, ...], list[str]] = {}
    for name, recipe in job.recipes.items():
        gamma = getattr(recipe.loss.options, "gamma", None)
        if callable(gamma):  # a schedule; the focal loss's is a number of another kind
            curves.setdefault(tuple(gamma(progress).tolist()), []).append(name)
    styles = distinct(recipe_styles(job), [names[0] for names in curves.values()])
    for curve, names in curves.items():
        colour, dashes = styles[names[0]]
        axis.plot(progress, curve, color=colour, linestyle=dashes, linewidth=2.6, label=_label(names))
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.03, 1.03 * max([1.0, *(max(curve) for curve in curves)]))
    axis.set_xlabel("share of training done, $t / T$")
    axis.set_ylabel("strength of the shift by log prior, $\\gamma(t)$")
    axis.set_title("$\\gamma(t)$: 0 is cross-entropy, 1 is Balanced Softmax\nthin: the reference forms $t^b$")
    if curves:
        figure.legend(title="stage one", title_fontsize=8, alignment="left", loc="outside right upper")
    return figure


def _label(names: list[str]) -> str:
    """Two names in full, or the first and how many more have this gamma."""
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"
