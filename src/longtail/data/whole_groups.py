"""Choose some pictures of every class so that no group of pictures is parted.

A group is chosen or left as a whole; it may have pictures of several classes. Of each class as many pictures
are chosen as are wanted, or as near to it as groups allow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass
class _Choice:
    """Groups that are chosen, and how many pictures of each class these are.

    Attributes:
        wanted: pictures of each class; a class of which none is wanted gives none.
        total: pictures of each class.
        sizes: by group, its pictures of each class.
        held: pictures of each class that are chosen.
        chosen: groups.
    """

    wanted: Sequence[int]
    total: Sequence[int]
    sizes: Mapping[int, Mapping[int, int]]
    held: list[int]
    chosen: set[int] = field(default_factory=set)

    def gain(self, group: int) -> int:
        """By how much nearer the wanted numbers are, in pictures, once a group has changed sides."""
        sign = -1 if group in self.chosen else 1
        gain = 0
        for label, size in self.sizes[group].items():
            missing = self.wanted[label] - self.held[label]
            gain += abs(missing) - abs(missing - sign * size)
        return gain

    def may(self, group: int) -> bool:
        """Whether a group that is not chosen may be: some of each of its classes stay behind."""
        return all(
            self.wanted[label] > 0 and self.held[label] + size < self.total[label]
            for label, size in self.sizes[group].items()
        )

    def keeps(self, group: int) -> bool:
        """Whether a chosen group may be given back: each of its classes keeps some that are chosen."""
        return all(self.held[label] > size for label, size in self.sizes[group].items())

    def move(self, group: int) -> None:
        """Let a group change sides."""
        sign = -1 if group in self.chosen else 1
        for label, size in self.sizes[group].items():
            self.held[label] += sign * size
        self.chosen ^= {group}


def choose(labels: Indices, groups: Indices, wanted: Sequence[int], ranks: Indices) -> NDArray[np.bool_]:
    """Which pictures are chosen, (N,), whole groups only.

    Where every picture is a group of its own, they are the first of each class by rank. Where no group has
    pictures of two classes, the number of each class is the nearest to the wanted one that whole groups can
    have, at least one picture chosen and at least one left (of two that are as near, the smaller). Groups
    of several classes change sides as long as that brings all classes together nearer.

    Args:
        labels: class of each picture, (N,).
        groups: name of each picture's group, (N,).
        wanted: pictures of each class, (C,), fewer than it has.
        ranks: the order in which pictures are asked for, (N,): a group's is that of its first picture.

    Returns:
        Of a class whose pictures cannot be parted, e.g. since they are one group, none is chosen.
    """
    sizes: dict[int, dict[int, int]] = {}
    rank: dict[int, int] = {}
    for label, group, place in zip(labels.tolist(), groups.tolist(), ranks.tolist(), strict=True):
        of_group = sizes.setdefault(group, {})
        of_group[label] = of_group.get(label, 0) + 1
        rank.setdefault(group, place)
    order = sorted(sizes, key=lambda group: rank[group])
    total = np.bincount(labels, minlength=len(wanted)).tolist()
    choice = _Choice(list(wanted), total, sizes, [0] * len(wanted))
    for group in order:  # in the order of their ranks, as long as there is room
        room = all(choice.held[label] + size <= wanted[label] for label, size in sizes[group].items())
        if room and choice.may(group):
            choice.move(group)
    single: dict[int, list[int]] = {label: [] for label in range(len(wanted))}
    for group in order:
        if len(sizes[group]) == 1:
            single[next(iter(sizes[group]))].append(group)
    several = [group for group in order if len(sizes[group]) > 1]
    while True:
        for label, own in single.items():
            _exact(choice, label, own)
        if not _swap_one(choice, several):
            break
    return np.isin(groups, np.array(sorted(choice.chosen), dtype=np.int64))


def _swap_one(choice: _Choice, several: Sequence[int]) -> bool:
    """Let one group of several classes change sides where that is nearer, or gives a class its first one."""
    for group in several:
        inside = group in choice.chosen
        if choice.gain(group) > 0 and (choice.keeps(group) if inside else choice.may(group)):
            choice.move(group)
            return True
    for group in sorted(several, key=lambda one: -choice.gain(one)):
        blind = any(choice.wanted[label] and not choice.held[label] for label in choice.sizes[group])
        if blind and group not in choice.chosen and choice.may(group):
            choice.move(group)
            return True
    return False


def _exact(choice: _Choice, label: int, own: Sequence[int]) -> None:
    """Choose anew among the groups of one class alone, where their number of pictures can be nearer."""
    inside = [group for group in own if group in choice.chosen]
    sizes = [choice.sizes[group][label] for group in own]
    now = sum(choice.sizes[group][label] for group in inside)
    others = choice.held[label] - now  # chosen in groups of several classes
    if choice.held[label] == choice.wanted[label] or not own:
        return
    least, most = max(0, 1 - others), choice.total[label] - 1 - others
    sums = _reachable(sizes, most)
    reached = [value for value in _bits(sums[-1]) if least <= value <= most]
    if not choice.wanted[label] or not reached:
        return
    best = min(reached, key=lambda value: (abs(others + value - choice.wanted[label]), value))
    if now >= least and abs(choice.held[label] - choice.wanted[label]) <= abs(
        others + best - choice.wanted[label]
    ):
        return
    for group in inside:
        choice.move(group)
    for number, group in enumerate(own):  # those of the smallest ranks are taken where they can be
        size = sizes[number]
        if best >= size and (sums[len(own) - 1 - number] >> (best - size)) & 1:
            choice.move(group)
            best -= size


def _reachable(sizes: Sequence[int], most: int) -> list[int]:
    """Which sums the last 0, 1, 2, ... of some numbers can have, as the bits of a whole number each."""
    sums = [1]
    within = (1 << (max(0, most) + 1)) - 1
    for size in reversed(sizes):
        sums.append((sums[-1] | (sums[-1] << size)) & within)
    return sums


def _bits(number: int) -> list[int]:
    return [place for place in range(number.bit_length()) if (number >> place) & 1]
