"""Which classes a phase is about and which images it sees: of all classes, the data-rich or the data-poor.

A phase that leaves classes out may see exemplars of them, a memory bank: some images of each, chosen by the
features of the network as the phase before has left it.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from longtail.data_rich import rich_classes
from longtail.errors import UserError
from longtail.params import PhaseSettings, Recipe
from longtail.parts import Part
from longtail.picture_files import Images
from longtail.random import generator
from longtail.settings import method_module


@dataclass(frozen=True)
class Scope:
    """What the last phase of a recipe has to do with classes and images.

    Attributes:
        rich: data-rich classes, bool (C,); None where no phase up to this one tells them apart.
        own: classes of which the phase sees all images, bool (C,).
        seen: classes that this phase or one before it has seen, bool (C,).
        new: classes that this is the first phase to see; bool (C,).
    """

    rich: Tensor | None
    own: Tensor
    seen: Tensor
    new: Tensor

    @property
    def left_out(self) -> Tensor:
        """Classes that a phase before has seen and this one does not, but for exemplars; bool (C,)."""
        return self.seen & ~self.own

    def members(self, labels: Tensor, bank: Tensor) -> Tensor:
        """Indices of the images that the phase sees, its own and the bank's, in order, of labels (N,)."""
        return torch.cat([self.own[labels].nonzero().flatten(), bank]).sort().values


def scope(recipe: Recipe, class_counts: Tensor) -> Scope:
    """The scope of the last phase.

    Raises:
        UserError: if all classes are data-rich, or none is.
    """
    everything = torch.ones(len(class_counts), dtype=torch.bool)
    rich = None
    if any(phase.classes != "all" for phase in recipe.phases):
        rich = torch.tensor(rich_classes(recipe.rich, class_counts.tolist()))
        if bool(rich.all()) or not bool(rich.any()):
            which = "every" if bool(rich.all()) else "no"
            raise UserError(
                f"rich: {which} class is data-rich ({recipe.rich.words}); the classes have "
                f"{int(class_counts.min())} to {int(class_counts.max())} training images: set rich.above "
                "between these, or rich: {share: 0.8}"
            )

    def classes(phase: PhaseSettings) -> Tensor:
        if rich is None or phase.classes == "all":
            return everything
        return rich if phase.classes == "rich" else ~rich

    own = [classes(phase) for phase in recipe.phases]
    before = torch.stack([~everything, *own[:-1]]).any(dim=0)
    return Scope(rich=rich, own=own[-1], seen=before | own[-1], new=own[-1] & ~before)


def choose_bank(
    phase: PhaseSettings,
    left_out: Tensor,
    training: Part,
    features: Callable[[Images], Tensor],
    seed: int,
) -> Tensor:
    """The exemplars of a phase: indices of training images, by class and then by rank; none without a bank.

    Args:
        phase: whose `bank` says how many, and by what they are chosen.
        left_out: classes that the bank stands for, bool (C,).
        training: all training images.
        features: images uint8 (n, C, H, W) to features (n, d), of the network as the phase finds it.
        seed: of the run.
    """
    if phase.bank is None:
        return torch.empty(0, dtype=torch.int64)
    method = phase.bank.choice
    choose = method_module("exemplars", method.name).choose
    found = []
    for label in left_out.nonzero().flatten().tolist():
        images = (training.labels == label).nonzero().flatten()
        key = generator(seed, "exemplars", phase.name, label)
        chosen = choose(features(training.images[images]), phase.bank.per_class, key, method.options)
        found.append(images[chosen])
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)


def write_bank(path: Path, bank: Tensor, training: Part) -> None:
    """The bank as CSV: class, rank from 1 and sample number (as in train.csv) of each exemplar."""
    rank: dict[int, int] = {}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "rank", "sample"])
        for label, sample in zip(
            training.labels[bank].tolist(), training.samples[bank].tolist(), strict=True
        ):
            rank[label] = rank.get(label, 0) + 1
            writer.writerow([label, rank[label], sample])
