"""The picture of a check: how many pictures each class has, and how large the pictures are."""

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from longtail.groups import group, group_words
from longtail.publish.figures.drawing import (
    COLOURS,
    GROUP_COLOURS,
    STYLE,
    WITHOUT_DATE,
    number_axis,
    without_glyph_warnings,
)

if TYPE_CHECKING:
    from longtail.own_pictures.checked import Checked

NAMED = 60  # classes whose names are readable beside their bars
POINTS = 5_000  # pictures that are drawn as points
LIGHT = "#c9c9c9"  # of pictures that are not trained on
MARKS = {
    "broken": ("x", COLOURS[1], "files that cannot be used"),
    "duplicate": ("D", COLOURS[6], "the same picture twice"),
}


def write(checked: "Checked", file: Path) -> None:
    """Draw and write the picture."""
    with mpl.rc_context(), without_glyph_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = draw(checked)
        temporary = file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
        try:
            figure.savefig(temporary, dpi=150, metadata=WITHOUT_DATE["png"])
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def draw(checked: "Checked") -> Figure:
    """Left a bar a class, largest first; right a point a picture."""
    sizes = Counter(name for _, name in checked.parts["train"])
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    named = len(names) <= NAMED
    height = max(4.4, 1.5 + 0.155 * len(names)) if named else 4.8
    figure = Figure(figsize=(10.5, height))
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _draw_classes(left, checked, names, named)
    _draw_sizes(right, checked)
    return figure


def _draw_classes(axis: Axes, checked: "Checked", names: list[str], named: bool) -> None:
    demands = checked.demands
    held = None if "test" in checked.parts else demands.data.held_out
    all_of = Counter(name for _, name in checked.parts["train"])
    usable = Counter(name for path, name in checked.parts["train"] if path not in checked.broken)
    counted = checked.held_and_left()
    left = [counted[name][1] if demands.natural else usable[name] for name in names]
    groups = [group(count, demands.groups.many_above, demands.groups.few_below) for count in left]
    colours = [GROUP_COLOURS[name] for name in groups]
    places = np.arange(len(names))
    total = np.array([all_of[name] for name in names], dtype=float)
    shown = np.array(left, dtype=float)
    floor = 0.7 * max(1.0, min(filter(None, left), default=1))
    if named:
        axis.barh(places, total, 0.78, color=LIGHT, linewidth=0)
        axis.barh(places, shown, 0.78, color=colours, linewidth=0)
        axis.set_yticks(places, [_short(name) for name in names], fontsize=7)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
    else:
        axis.bar(places, total, 1.0, color=LIGHT, linewidth=0)
        axis.bar(places, shown, 1.0, color=colours, linewidth=0)
        axis.set_xlim(-0.5, len(names) - 0.5)
        axis.set_xlabel("class, largest first")
        axis.grid(axis="x", visible=False)
    number_axis(axis, "x" if named else "y")
    (axis.set_xlim if named else axis.set_ylim)(floor, 1.6 * max(total))
    (axis.set_xlabel if named else axis.set_ylabel)("pictures (log scale)")
    handles: list[Patch | Line2D] = [
        Patch(color=GROUP_COLOURS[name], label=f"{words}: {_classes(groups.count(name))}")
        for name, words in group_words(demands.groups.many_above, demands.groups.few_below).items()
    ]
    if (total > shown).any():
        aside = demands.natural and (held is not None or demands.validation.source == "holdout")
        words = ["held out for testing and validation"] * aside + ["not usable"] * (all_of != usable)
        handles.append(Patch(color=LIGHT, label=" or ".join(words)))
    handles += _mark(axis, checked, names, total, named)
    axis.legend(handles=handles, loc="lower right" if named else "upper right")
    what = "to train on" if demands.natural else "of which imbalance makes the training set"
    axis.set_title(
        f"{checked.dataset}: {int(total.sum()):,} pictures of {_classes(len(names))}, "
        f"{int(shown.sum()):,} {what}"
    )


def _mark(axis: Axes, checked: "Checked", names: list[str], total: np.ndarray, named: bool) -> list[Line2D]:
    """Beside the bars: a cross where files cannot be used, a diamond where a picture is there twice."""
    handles = []
    for number, (kind, (marker, colour, words)) in enumerate(MARKS.items()):
        alike = {"broken", "heic"} if kind == "broken" else {"duplicate", "conflict", "leak"}
        own = Counter(
            one.label for one in checked.findings if one.kind in alike and one.part == "train" and one.label
        )
        marked = [place for place, name in enumerate(names) if own[name]]
        if not marked:
            continue
        along = total[marked] * (1.12 + 0.14 * number)
        where = (along, marked) if named else (marked, along)
        style: dict[str, Any] = {
            "marker": marker,
            "color": colour,
            "linestyle": "",
            "markersize": 4 if named else 3.5,
        }
        axis.plot(*where, **style)
        count = sum(own.values())
        handles.append(Line2D([], [], **style, label=f"{words}: {count:,} in {_classes(len(marked))}"))
    return handles


def _draw_sizes(axis: Axes, checked: "Checked") -> None:
    where = {path for rows in checked.parts.values() for path, _ in rows}
    used = [entry for entry in checked.entries if entry.path in where and entry.width]
    side = checked.demands.data.images.size
    if not used:
        axis.set_axis_off()
        axis.set_title("no picture that can be read")
        return
    widths = np.array([entry.width for entry in used], dtype=float)
    heights = np.array([entry.height for entry in used], dtype=float)
    if len(used) > POINTS:
        axis.hexbin(
            widths,
            heights,
            xscale="log",
            yscale="log",
            gridsize=45,
            mincnt=1,
            cmap="viridis_r",
            bins="log",
            linewidths=0,
        )
    else:
        # many pictures have one size: a faint point a picture, as dark as there are pictures
        axis.scatter(widths, heights, s=10, color=COLOURS[0], alpha=0.18, linewidth=0)
    low = 0.8 * min(widths.min(), heights.min(), side)
    high = 1.25 * max(widths.max(), heights.max(), side)
    for which in "xy":
        number_axis(axis, which)
        getattr(axis, f"set_{which}lim")(low, high)
    axis.plot([low, high], [low, high], color="#9a9a9a", linewidth=0.8, zorder=0)
    words = f"what the network sees, {side} x {side}"
    axis.plot(
        [side, side, high], [high, side, side], color=COLOURS[1], linewidth=1.2, linestyle="--", label=words
    )
    axis.legend(loc="lower right")
    axis.set_aspect("equal", anchor="N")
    many = "; darker: more pictures" if len(used) > POINTS else ""
    axis.set_xlabel(f"width in pixels (log scale){many}")
    axis.set_ylabel("height in pixels (log scale)")
    smaller = int((np.minimum(widths, heights) < side).sum())
    axis.set_title(
        f"Sizes: median {np.median(widths):g} x {np.median(heights):g}; "
        f"shorter side below {side}: {smaller:,}"
    )


def _classes(number: int) -> str:
    return f"{number:,} class" + "es" * (number != 1)


def _short(name: str) -> str:
    """A class name of one line beside its bar; $ begins no formula."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    text = text if len(text) <= 28 else f"{text[:13]}...{text[-12:]}"
    return text.replace("$", r"\$")
