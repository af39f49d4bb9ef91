"""Figures: a module each, which draws; here what they share (style, colours) and how they are saved.

A figure's file holds no date and no random name: the same runs give the same bytes. Nothing here uses
pyplot, so no display is looked for: .png comes from Agg.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from longtail.errors import UserError, exact
from longtail.publish.job import Cell, PublishedJob
from longtail.settings.methods import method_module

# Okabe and Ito's palette, which colour-blind readers can tell apart; without its yellow, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


# Methods that many figures show keep their colour in all of them, whatever else a settings file lists.
FIXED = {"ce": "#000000", "graloss": "#0072B2", "glag": "#D55E00"}


Dashes = str | tuple[int, tuple[float, ...]]


DASHES: tuple[Dashes, ...] = (
    *("-", "--", ":", "-."),
    *((0, (8, 2)), (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2, 2, 2)), (0, (2, 4))),
)


GROUP_COLOURS = {"many": "#0072B2", "medium": "#E69F00", "few": "#CC79A7"}


SIZES = "viridis_r"  # colours of class sizes: yellow few images, violet many


INK = "#1a1a1a"


STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same letters
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "longtail",
    "pdf.fonttype": 42,
}


WITHOUT_DATE: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": "longtail"},
    "pdf": {"CreationDate": None, "Creator": "longtail", "Producer": None},
}


def compute(job: PublishedJob) -> None:
    """Draw a figure and write NAME.png, NAME.svg and NAME.pdf.

    Raises:
        UserError: if the runs hold nothing that the figure could show.
    """
    draw: Callable[[PublishedJob], Figure] = method_module("figures", job.kind).draw
    with mpl.rc_context(), without_glyph_warnings():
        mpl.rcdefaults()  # whatever matplotlibrc this machine has
        mpl.rcParams.update(STYLE)
        save(draw(job), job.folder / job.name)


def class_names(cell: Cell) -> list[str]:
    """The classes in label order, as text in which $ begins no formula."""
    return [str(name).replace("$", r"\$") for name in cell.frame("split", "counts.csv")["name"]]


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Names in letters that the font lacks are drawn as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure as .png (150 dots an inch), .svg and .pdf, the same bytes each time."""
    for suffix, metadata in WITHOUT_DATE.items():
        figure.savefig(path.with_name(f"{path.name}.{suffix}"), dpi=150, metadata=metadata)


def styles(names: Iterable[str]) -> dict[str, tuple[str, Dashes]]:
    """Colour and dashes of each entry of `methods` (or of `stage_one`), distinct up to 63 of them.

    Args:
        names: all entries of the settings file in its order, not only those that one figure shows: so a
            method has one colour in all figures.
    """
    given = list(dict.fromkeys(names))
    fixed = {name: FIXED[name.lower()] for name in given if name.lower() in FIXED}
    free = [colour for colour in COLOURS if colour not in fixed.values()]
    free += [colour for colour in COLOURS if colour not in free]
    others = [name for name in given if name not in fixed]
    result = {name: (colour, DASHES[0]) for name, colour in fixed.items()}
    unused = [(colour, dashes) for dashes in DASHES for colour in free]
    unused = [style for style in unused if style not in result.values()]
    return result | {name: unused[place % len(unused)] for place, name in enumerate(others)}


def recipe_styles(job: PublishedJob) -> dict[str, tuple[str, Dashes]]:
    """Colour and dashes of each stage-one recipe: those of the method that is this recipe alone."""
    own = styles(job.methods)
    result = {
        method["stage_one"]: own[name]
        for name, method in job.methods.items()
        if method["stage_two"] == "joint"
    }
    rest = [name for name in job.recipes if name not in result]
    free = [style for style in styles(rest).values() if style not in result.values()]
    taken = {*free, *result.values()}
    free += [style for dashes in DASHES[1:] for colour in COLOURS if (style := (colour, dashes)) not in taken]
    return result | {name: free[place % len(free)] for place, name in enumerate(rest)}


def distinct(own: dict[str, tuple[str, Dashes]], shown: Iterable[str]) -> dict[str, tuple[str, Dashes]]:
    """The styles of what one figure shows, with a colour each as far as there are so many.

    A settings file may list more methods than there are colours; one whose colour another one in the figure
    has takes a colour that none has.
    """
    names = sorted(dict.fromkeys(shown), key=lambda name: own[name][1] != DASHES[0])
    result: dict[str, tuple[str, Dashes]] = {}
    for place, name in enumerate(names):
        taken = {colour for colour, _ in result.values()}
        wanted = {own[other][0] for other in names[place:]}
        free = [colour for colour in COLOURS if colour not in taken | wanted]
        clash = own[name][0] in taken and bool(free)
        result[name] = (free[0], DASHES[0]) if clash else own[name]
    return result


def at_ratio(job: PublishedJob, ratio: float | None) -> list[Cell]:
    """The cells at one imbalance: the ratio asked for; with None 100 if it is there, else the first.

    Raises:
        UserError: if no run has the ratio asked for, or there is no run at all.
    """
    if not job.cells:
        raise UserError(f"figures.{job.name}: its table has no row with a method; nothing to draw")
    ratios = [cell.ratio for cell in job.cells]
    wanted = ratio if ratio is not None else 100.0 if 100.0 in ratios else ratios[0]
    cells = [cell for cell in job.cells if cell.ratio == wanted]
    if not cells:
        known = ", ".join(dict.fromkeys(exact(value) for value in ratios if value is not None)) or "none"
        asked = exact(wanted or 0)
        raise UserError(f"figures.{job.name}.ratio: {asked} is not among the ratios that are run: {known}")
    return [cell for cell in cells if cell.imbalance == cells[0].imbalance]


def by_method(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells of each method, one a subset and seed."""
    result: dict[str, list[Cell]] = {}
    for cell in cells:
        result.setdefault(cell.method, []).append(cell)
    return result


def chosen(job: PublishedJob, methods: dict[str, list[Cell]]) -> dict[str, list[Cell]]:
    """The methods that the settings name, in their order; all of them with null.

    Raises:
        UserError: if one is not in the table.
    """
    names = job.settings.methods or list(methods)
    if unknown := [name for name in names if name not in methods]:
        raise UserError(
            f"figures.{job.name}.methods: {unknown[0]!r} is not in {job.settings.table}, "
            f"which has {', '.join(methods)}"
        )
    return {name: methods[name] for name in names}


def tested_classes(job: PublishedJob, cell: Cell) -> list[int]:
    """Labels of classes that have test images, largest class first; of the figure's own `classes`, if any.

    Raises:
        UserError: if one is no class or has no test image, or there are fewer than two.
    """
    sizes, wanted = cell.class_counts(), job.settings.classes
    by_size = sorted(range(len(sizes)), key=lambda label: (-sizes[label], label))
    images = cell.frame("split", "counts.csv")["test"].tolist()
    where = f"figures.{job.name}.classes"
    for label in wanted or ():
        if label not in by_size:
            raise UserError(f"{where}: there is no class {label}; 0 to {len(sizes) - 1}")
        if not images[label]:
            raise UserError(f"{where}: class {label} has no test images")
    found = [label for label in by_size if images[label] and (wanted is None or label in wanted)]
    if len(found) < 2:
        raise UserError(f"{where}: needs two classes or more with test images, to tell them apart")
    return found


def seeds_words(seeds: int) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{seeds} seed" + "s" * (seeds != 1)


def heading(job: PublishedJob, cells: Sequence[Cell]) -> str:
    """What was measured, for the first line of a title: dataset, imbalance, number of seeds and subsets."""
    seeds, subsets = len({cell.seed for cell in cells}), len({cell.subset_seed for cell in cells})
    each = f" on each of {subsets} subsets" if subsets > 1 else ""
    return f"{job.dataset}, {cells[0].imbalance_words}, {seeds_words(seeds)}{each}"


def thresholds(job: PublishedJob) -> tuple[float, float]:
    """Class sizes between which lines part few from medium and medium from many."""
    return job.groups.few_below - 0.5, job.groups.many_above + 0.5


def number_axis(axis: Axes, which: str = "x") -> None:
    """A logarithmic axis with plain numbers (1, 2, 5, 10, 20)."""
    getattr(axis, f"set_{which}scale")("log")
    scale: Axis = getattr(axis, f"{which}axis")
    plain_numbers(scale)


def plain_numbers(scale: Axis) -> None:
    """Plain numbers (1, 2, 5, 10, 20) on an axis that is logarithmic already."""
    scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
    scale.set_major_formatter(StrMethodFormatter("{x:g}"))
    scale.set_minor_formatter(NullFormatter())


def size_colours() -> Colormap:
    """Colours of class sizes, without the palest end."""
    colours = mpl.colormaps[SIZES](np.linspace(0.08, 1, 256))
    return ListedColormap(colours)


def mean_and_spread(values: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sample standard deviation (0 with one seed) over seeds, of lists of equal length."""
    stacked = np.array(values, dtype=float)
    spread = stacked.std(0, ddof=1) if len(stacked) > 1 else np.zeros(stacked.shape[1])
    return stacked.mean(0), spread


def binned_means(sizes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Geometric mean size and mean value of neighbouring classes by size; classes without one are left out.

    Ten classes or so a bin, but at least five bins where there are as many classes.
    """
    known = ~np.isnan(values)
    sizes, values = sizes[known], values[known]
    number = min(len(sizes), max(5, min(10, len(sizes) // 10)))
    bins = np.array_split(np.argsort(-sizes, kind="stable"), number)
    return (
        np.array([np.exp(np.log(sizes[part].clip(1)).mean()) for part in bins]),
        np.array([values[part].mean() for part in bins]),
    )
