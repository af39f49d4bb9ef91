"""A dataset of picture files as a check found it."""

from collections.abc import Mapping
from dataclasses import dataclass

from longtail.data import manifest
from longtail.data.lists import Named
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
        read: how many files were read now, the others being known.
        seconds: that this took.
    """

    dataset: str
    demands: Demands
    entries: list[manifest.Entry]
    parts: Mapping[str, Named]
    broken: dict[str, str]
    findings: list[Finding]
    read: int
    seconds: float
