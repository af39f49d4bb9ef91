"""The method as it is planned: every kind of run, how many there are, and what feeds what (GLAG, figure 2).

Drawn from the plan of the settings file, before anything has run: what is in the figure is what a command
would make.
"""

from typing import Any, ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

from longtail.errors import UserError
from longtail.publish.figures.drawing import COLOURS, INK
from longtail.publish.job import PublishedJob
from longtail.settings.base import Settings as BaseSettings

# column of the plan: its heading, and what its step does
HEADINGS = {
    "acquire": ("acquire", "the dataset"),
    "split": ("split", "long-tailed subset"),
    "stage_one": ("stage one", "trained networks"),
    "features": ("features", "frozen networks"),
    "stage_two": ("stage two", "classifiers"),
    "tables": ("tables", "and sweeps"),
    "figures": ("figures", "of a table's runs"),
}
LINE = 0.21  # inches from one node to the next
LETTER = 0.058  # inches of a letter of a node's name
GAP = 0.7  # inches between columns
EDGE = {"tables": ":"}  # a figure reads the runs of its table, not the table


class Settings(BaseSettings):
    """Nothing to set: it draws what the settings file plans."""

    draws_plan: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ()


def draw(job: PublishedJob) -> Figure:
    """A column a step, a node an entry; a line says that runs of one feed runs of the other."""
    columns, edges = job.overview["columns"], job.overview["edges"]
    if not edges:
        raise UserError(f"figures.{job.name}: no table has a row with a method; there is no run to draw")
    depths, shown = _levels(columns, edges)
    order = _ordered(shown, edges)
    widths = [max(_width(columns, level), 1.05) for level in shown]
    lefts = np.cumsum([0.1, *(width + GAP for width in widths[:-1])])
    most = max(len(level) for level in shown)
    height = LINE * most + 0.5
    figure = Figure(figsize=(lefts[-1] + widths[-1] + 0.1, height + 0.45))
    figure.set_layout_engine("none")  # everything has its place in inches
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_xlim(0, lefts[-1] + widths[-1] + 0.1)
    axis.set_ylim(0, height + 0.45)
    axis.axis("off")
    places = {}
    for (_, depth), level, left, width in zip(depths, order, lefts, widths, strict=True):
        # a later phase stands above the lines that pass it
        top = 0.1 + LINE * (most if depth else (most + len(level)) / 2)
        for number, node in enumerate(level):
            places[node] = (left, width, top - LINE * (number + 0.5))
    for edge in edges:
        _edge(axis, edge, columns, places)
    for node, (left, width, middle) in places.items():
        _node(axis, columns, node, left, width, middle)
    _headings(axis, columns, shown, depths, lefts, widths, height)
    title = f"{job.dataset}: what the settings plan; in brackets the number of runs, a line: these feed those"
    axis.set_title(title, x=0.01, y=(height + 0.22) / (height + 0.45))
    return figure


Node = tuple[int, int]  # numbers of a column and of a node in it


def _levels(columns: list[Any], edges: list[Any]) -> tuple[list[Node], list[list[Node]]]:
    """The columns as they are drawn: that of a step whose runs feed each other (phases) is one a depth.

    Returns:
        column and depth of each level; its nodes.
    """
    depth = {(at, place): 0 for at, column in enumerate(columns) for place in range(len(column["nodes"]))}
    within = [(tuple(edge["from"]), tuple(edge["to"])) for edge in edges if edge["from"][0] == edge["to"][0]]
    for _ in within:  # as many rounds as there are edges are enough
        for source, target in within:
            depth[target] = max(depth[target], depth[source] + 1)
    levels = sorted({(node[0], found) for node, found in depth.items()})
    nodes = [[node for node in depth if (node[0], depth[node]) == level] for level in levels]
    return levels, nodes


def _ordered(levels: list[list[Node]], edges: list[Any]) -> list[list[Node]]:
    """The nodes of each level in an order in which few lines cross: by where their neighbours stand."""
    joined: dict[Node, list[Node]] = {node: [] for level in levels for node in level}
    for edge in edges:
        source, target = tuple(edge["from"]), tuple(edge["to"])
        joined[source].append(target)
        joined[target].append(source)
    order = [list(level) for level in levels]
    level_of = {node: number for number, level in enumerate(levels) for node in level}
    for sweep in range(4):
        forwards = sweep % 2 == 0  # by the neighbours to the left, then the other way round
        for number in range(len(order)) if forwards else reversed(range(len(order))):
            at = {node: (place + 0.5) / len(level) for level in order for place, node in enumerate(level)}
            middles = {}
            for node in order[number]:
                others = [at[other] for other in joined[node] if (level_of[other] < number) == forwards]
                middles[node] = float(np.mean(others)) if others else at[node]
            order[number].sort(key=middles.__getitem__)
    return order


def _text(columns: list[Any], node: Node) -> str:
    """The name of an entry, and how many runs it has."""
    found = columns[node[0]]["nodes"][node[1]]
    counted = columns[node[0]]["name"] not in ("acquire", "tables", "figures")
    return f"{found['name']} ({found['runs']})" if counted else str(found["name"])


def _width(columns: list[Any], level: list[Node]) -> float:
    """Inches that the names of a level need."""
    return 0.18 + LETTER * max(len(_text(columns, node)) for node in level)


def _colour(node: Node) -> str:
    return COLOURS[node[1] % len(COLOURS)]


def _edge(axis: Axes, edge: Any, columns: list[Any], places: dict[Node, tuple[float, float, float]]) -> None:
    """A curve from one node to another; the wider, the more pairs of runs it stands for."""
    source, target = tuple(edge["from"]), tuple(edge["to"])
    left, width, start = places[source]
    start_x, (end_x, _, end) = left + width, places[target]
    bend = (end_x - start_x) / 2
    points = [(start_x, start), (start_x + bend, start), (end_x - bend, end), (end_x, end)]
    curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
    axis.add_patch(
        PathPatch(
            curve,
            fill=False,
            edgecolor=_colour(source),
            linewidth=0.8 + 0.4 * np.log2(edge["runs"]),
            linestyle=EDGE.get(columns[source[0]]["name"], "-"),
            alpha=0.6,
            gid=f"edge-{source[0]}.{source[1]}-{target[0]}.{target[1]}",
        )
    )


def _node(axis: Axes, columns: list[Any], node: Node, left: float, width: float, middle: float) -> None:
    """A box with the name of an entry."""
    box = FancyBboxPatch(
        (left, middle - 0.4 * LINE),
        width,
        0.8 * LINE,
        boxstyle="round,pad=0,rounding_size=0.04",
        facecolor="white",
        edgecolor=_colour(node),
        linewidth=1.0,
        zorder=2,
    )
    axis.add_patch(box)
    text = _text(columns, node)
    axis.text(left + width / 2, middle, text, ha="center", va="center", fontsize=7, color=INK, zorder=3)


def _headings(
    axis: Axes,
    columns: list[Any],
    levels: list[list[Node]],
    depths: list[Node],
    lefts: np.ndarray,
    widths: list[float],
    height: float,
) -> None:
    """Above each level its step, with its phase where there are several, what it makes, and how many."""
    for (column, depth), level, left, width in zip(depths, levels, lefts, widths, strict=True):
        name, what = HEADINGS[columns[column]["name"]]
        several = sum(1 for other, _ in depths if other == column) > 1
        number = sum(columns[column]["nodes"][place]["runs"] for _, place in level)
        step = f"{name}, phase {depth + 1}" if several else name
        unit = "" if columns[column]["name"] in ("tables", "figures") else f" run{'s' * (number != 1)}"
        axis.text(left + width / 2, height - 0.08, step, ha="center", va="bottom", fontsize=9, weight="bold")
        words = f"{what}: {number:,}{unit}"
        axis.text(left + width / 2, height - 0.12, words, ha="center", va="top", fontsize=7, color="#444444")
