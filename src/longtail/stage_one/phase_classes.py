"""Which classes a phase is about and which images it sees: of all classes, the data-rich or the data-poor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.errors import UserError
from longtail.settings.phase import PhaseSettings
from longtail.settings.phases import phases
from longtail.settings.recipe import Recipe
from longtail.settings.rich_classes import rich_classes


@dataclass(frozen=True)
class PhaseClasses:
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


def phase_classes(recipe: Recipe, class_counts: Tensor) -> PhaseClasses:
    """Which classes and images the last phase is about.

    Raises:
        UserError: if all classes are data-rich, or none is.
    """
    everything = torch.ones(len(class_counts), dtype=torch.bool)
    rich = None
    if any(phase.classes != "all" for phase in phases(recipe)):
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

    own = [classes(phase) for phase in phases(recipe)]
    before = torch.stack([~everything, *own[:-1]]).any(dim=0)
    return PhaseClasses(rich=rich, own=own[-1], seen=before | own[-1], new=own[-1] & ~before)
