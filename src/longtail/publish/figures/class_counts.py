"""Training images a class at every imbalance, or of datasets beside each other (GLAG, figure 1a).

Datasets need no run: a built-in list of counts, a published list of pictures (`path label` a line), a file of
counts, or a profile. One whose file is not at hand is left out, and the figure says so.
"""

import json
import textwrap
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import Field, model_validator

from longtail.data.imbalance import exponential_counts, published
from longtail.data.lists import read_list
from longtail.errors import UserError
from longtail.groups import GROUPS
from longtail.publish.figures.drawing import COLOURS, DASHES, GROUP_COLOURS, number_axis, thresholds
from longtail.publish.job import PublishedJob
from longtail.runs.identity import file_digest
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.split import published_counts

LETTERS = 80  # of size 10 that fit beside one another


class Profile(BaseSettings):
    """An exponential profile, as of CIFAR-100-LT: 100 classes, 500 images of the largest."""

    classes: int = Field(100, ge=2, le=1_000_000)
    largest: int = Field(500, ge=1, le=1_000_000_000)
    ratio: float = Field(ge=1, lt=1e6)


class ClassSizes(BaseSettings):
    """The class sizes of one dataset, from one of four places."""

    label: str = Field(min_length=1, max_length=80)
    counts: str | None = None  # a built-in list: a file of src/longtail/data/counts
    list: str | None = None  # a published list, `path label` a line
    numbers: str | None = None  # a file of counts: a number a line, or a list of JSON
    exponential: Profile | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "ClassSizes":
        given = [self.counts, self.list, self.numbers, self.exponential]
        if sum(place is not None for place in given) != 1:
            raise ValueError("needs counts, list, numbers or exponential, one of them")
        if self.counts is not None and self.counts not in published_counts():
            raise ValueError(
                f"counts: there is no {self.counts!r}; there are {', '.join(published_counts())}"
            )
        return self

    @property
    def file(self) -> str | None:
        """The file that is read, which may be absent."""
        return self.list if self.list is not None else self.numbers


class Settings(BaseSettings):
    """Whose splits are drawn: a table's, or with `datasets` those instead."""

    table: str | None = "table2"  # null: datasets alone
    datasets: Annotated[list[ClassSizes], Field(max_length=20)] = Field([])  # beside the splits of the table
    reads: ClassVar[tuple[str, ...]] = ("split",)

    @model_validator(mode="after")
    def _something_is_drawn(self) -> "Settings":
        if self.table is None and not self.datasets:
            raise ValueError("table: null needs datasets")
        labels = [dataset.label for dataset in self.datasets]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"datasets: {', '.join(twice)} stands there twice")
        return self

    @property
    def built_in(self) -> list[str]:
        """The built-in lists that are drawn."""
        return [dataset.counts for dataset in self.datasets if dataset.counts is not None]

    @property
    def files(self) -> list[str]:
        """The files that are read where they are at hand; the plan says which are, and their digests."""
        return [dataset.file for dataset in self.datasets if dataset.file is not None]


def draw(job: PublishedJob) -> Figure:
    """Sorted class sizes on a logarithmic axis, the groups as bands behind them."""
    splits = {cell.imbalance_words: cell for cell in job.cells}
    counts = {words: sorted(cell.class_counts(), reverse=True) for words, cell in splits.items()}
    settings: Settings = job.settings
    if settings.datasets:
        counts = {f"{job.dataset}, {words}": sizes for words, sizes in counts.items()}
    absent = []
    for dataset in settings.datasets:
        if (found := _sizes(job, dataset)) is None:
            absent.append(f"{dataset.label} ({dataset.file})")
        else:
            counts[dataset.label] = sorted(found, reverse=True)
    if not counts:
        why = (
            f"none of its lists is at hand: {', '.join(absent)}"
            if absent
            else "its table has no row with a method"
        )
        raise UserError(f"figures.{job.name}: {why}; nothing to draw")
    figure = Figure(figsize=(6.4, 4.0 + 0.22 * max(0, len(counts) - 4) * bool(settings.datasets)))
    axis = figure.add_subplot()
    alike = len({len(sizes) for sizes in counts.values()}) == 1
    for place, (words, sizes) in enumerate(counts.items()):
        axis.plot(
            np.arange(1, len(sizes) + 1) if alike else 100 * (np.arange(len(sizes)) + 0.5) / len(sizes),
            sizes,
            color=COLOURS[place % len(COLOURS)],
            linestyle=DASHES[place % len(DASHES)],
            label=_label(job, words, sizes, bool(settings.datasets)),
        )
    number_axis(axis, "y")
    largest = max(sizes[0] for sizes in counts.values())
    smallest = max(1, min(sizes[-1] for sizes in counts.values()))
    axis.set_ylim(0.7 * smallest, 1.25 * largest)
    _bands(job, axis)
    if alike:
        classes = len(next(iter(counts.values())))
        axis.set_xlim(1, classes)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("class, largest first")
        title = f"training images of the {classes} classes"
    else:
        axis.set_xlim(0, 100)
        axis.set_xlabel("share of the classes, largest first (%)")
        title = "training images of a class"
    axis.set_ylabel("training images (log scale)")
    heads = {"title": "many / medium / few", "title_fontsize": 8, "alignment": "left"}
    if settings.datasets:
        figure.legend(**heads, loc="outside lower left")
        axis.set_title(title.capitalize() + _note(absent))
    else:
        axis.legend(**heads, loc="lower left")
        axis.set_title(f"{job.dataset}: {title}")
    return figure


def _sizes(job: PublishedJob, dataset: ClassSizes) -> list[int] | None:
    """Training images of each class of a dataset; None where its file was not at hand when it was planned."""
    if dataset.exponential is not None:
        profile = dataset.exponential
        sizes: list[int] = exponential_counts(profile.classes, profile.largest, profile.ratio).tolist()
        return sizes
    if dataset.counts is not None:
        return [int(size) for size in published(dataset.counts)]
    file = str(dataset.file)
    if not (planned := job.files.get(file)):
        return None
    path = Path(file).expanduser()
    try:
        changed = file_digest(path) != planned
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); type the command again") from None
    if changed:
        raise UserError(f"{file}: has changed since this was planned; type the command again")
    if dataset.list is None:
        return _numbers(path)
    labels = np.array([label for _, label in read_list(file)])
    found: list[int] = np.unique(labels, return_counts=True)[1].tolist()  # a gap is no class
    return found


def _numbers(file: Path) -> list[int]:
    """The counts in a file, a number a line (a heading above them counts for nothing) or a list of JSON.

    Raises:
        UserError: if it holds anything else, or a class without an image.
    """
    example = "a number a line, or a list of JSON, e.g. [500, 90, 5]"
    try:
        text = file.read_text("utf-8-sig").strip()
        lines = text.splitlines()
        if lines and not lines[0].strip().isdecimal() and not text.startswith("["):
            lines = lines[1:]
        found = json.loads(text) if text.startswith("[") else [int(line) for line in lines if line.strip()]
    except (ValueError, RecursionError):
        raise UserError(f"{file}: holds no counts; they are {example}") from None
    if not found or not all(type(size) is int and 0 < size < 2**53 for size in found):
        raise UserError(f"{file}: holds something else than numbers of images above 0; counts are {example}")
    return list(found)


def _label(job: PublishedJob, words: str, sizes: list[int], ratio: bool) -> str:
    groups = [job.group(size) for size in sizes]
    numbers = " / ".join(f"{groups.count(name):,}" for name in GROUPS)
    if not ratio:
        return f"{words}: {sum(sizes):,} images; {numbers} classes"
    ends = f"{sizes[0]:,} to {sizes[-1]:,} a class"
    return f"{words}: {sum(sizes):,} images, {ends}; {numbers} classes"


def _note(absent: list[str]) -> str:
    if not absent:
        return ""
    words = f"not drawn, as its list is not at hand: {'; '.join(absent)}"
    return "\n" + textwrap.fill(words, LETTERS, break_on_hyphens=False)


def _bands(job: PublishedJob, axis: Axes) -> None:
    """The groups by the settings' borders."""
    low, high = thresholds(job)
    bottom, top = axis.get_ylim()
    bands = {"few": (bottom, low), "medium": (low, high), "many": (high, top)}
    for name, (first, last) in bands.items():
        start, end = max(first, bottom), min(last, top)
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
