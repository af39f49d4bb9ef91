"""Training images a class at every imbalance, and the groups many, medium and few (GLAG, figure 1a)."""

from typing import ClassVar

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from longtail.errors import UserError
from longtail.groups import GROUPS
from longtail.publish.figures.drawing import COLOURS, DASHES, GROUP_COLOURS, number_axis, thresholds
from longtail.publish.job import PublishedJob
from longtail.settings.base import Settings as BaseSettings


class Settings(BaseSettings):
    """Whose splits are drawn."""

    table: str = "table2"
    reads: ClassVar[tuple[str, ...]] = ("split",)


def draw(job: PublishedJob) -> Figure:
    """Sorted class sizes on a logarithmic axis, the groups as bands behind them."""
    if not job.cells:
        raise UserError(f"figures.{job.name}: its table has no row with a method; nothing to draw")
    splits = {cell.imbalance_words: cell for cell in job.cells}
    figure = Figure(figsize=(6.4, 4.0))
    axis = figure.add_subplot()
    counts = {words: sorted(cell.class_counts(), reverse=True) for words, cell in splits.items()}
    for place, (words, sizes) in enumerate(counts.items()):
        groups = [job.group(size) for size in sizes]
        numbers = " / ".join(str(groups.count(name)) for name in GROUPS)
        axis.plot(
            range(1, len(sizes) + 1),
            sizes,
            color=COLOURS[place % len(COLOURS)],
            linestyle=DASHES[place % len(DASHES)],
            label=f"{words}: {sum(sizes):,} images; {numbers} classes",
        )
    number_axis(axis, "y")
    classes = max(len(sizes) for sizes in counts.values())
    largest = max(sizes[0] for sizes in counts.values())
    smallest = max(1, min(sizes[-1] for sizes in counts.values()))
    axis.set_xlim(1, classes)
    axis.set_ylim(0.7 * smallest, 1.25 * largest)
    low, high = thresholds(job)
    bottom, top = axis.get_ylim()
    bands = {"few": (bottom, min(low, top)), "medium": (low, min(high, top)), "many": (high, top)}
    for name, (start, end) in bands.items():
        if start < end:
            axis.axhspan(start, end, color=GROUP_COLOURS[name], alpha=0.09, linewidth=0)
            axis.annotate(
                job.group_words()[name].replace(" (", "\n("),
                xy=(1, (start * end) ** 0.5),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color="#444444",
            )
    axis.set_ylim(bottom, top)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("class, largest first")
    axis.set_ylabel("training images (log scale)")
    axis.legend(title="many / medium / few", title_fontsize=8, alignment="left", loc="lower left")
    axis.set_title(f"{job.dataset}: training images of the {classes} classes")
    return figure
