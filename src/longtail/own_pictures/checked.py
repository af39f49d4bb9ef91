"""A dataset of picture files as a check found it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from longtail.data import manifest
from longtail.data.held_out import tested, trained
from longtail.data.lists import Named
from longtail.own_pictures.near_duplicates import NearGroup
from longtail.own_pictures.problems import Demands, Finding


@dataclass(frozen=True)
class Checked:
    """A dataset as it was found.

    Attributes:
        dataset: its name.
        demands: what the settings want of it.
        entries: its files, in the order of their paths.
        parts: (path, class name) of every picture, those that cannot be used included.
        broken: why pictures of the parts cannot be used, by path.
        findings: all there is to say, worst first.
        near: groups of pictures that look nearly alike.
        planned: the part in which each usable picture will be, by its path; None where counts say enough.
        read: how many files were read now, the others being known.
        seconds: that this took.
    """

    dataset: str
    demands: Demands
    entries: list[manifest.Entry]
    parts: Mapping[str, Named]
    broken: dict[str, str]
    findings: list[Finding]
    near: list[NearGroup]
    planned: Mapping[str, str] | None
    read: int
    seconds: float

    def held_and_left(self) -> dict[str, tuple[int, int]]:
        """Of each class the test images that are held out, and what is left to train on.

        By the rule of `held_out`; where groups stay whole, as they will be.
        """
        held = None if "test" in self.parts else self.demands.data.held_out
        usable = Counter(name for path, name in self.parts["train"] if path not in self.broken)
        if self.planned is None:
            validation = self.demands.validation
            return {
                name: (min(usable[name], tested(usable[name], held)), trained(usable[name], held, validation))
                for _, name in self.parts["train"]
            }
        planned = Counter((self.planned.get(path), name) for path, name in self.parts["train"])
        return {name: (planned["test", name], planned["train", name]) for _, name in self.parts["train"]}
