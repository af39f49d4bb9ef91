"""Test images of a dataset of files that names none: some of every class, chosen by a seed."""

import numpy as np
from numpy.typing import NDArray

from longtail.data.whole_groups import Indices, choose
from longtail.errors import UserError
from longtail.settings.data import HeldOut


def held_out(
    dataset: str,
    rows: list[tuple[str, int]],
    classes: int,
    held: HeldOut | None,
    groups: Indices | None = None,
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Training rows without some of each class, and these: the test images of a dataset that names none.

    One legacy random state, as a split's, shuffles the rows of each class in label order; the last ones are
    held out. At least one image of each class stays. With `untested` a class that has no more than would be
    held out stays as a whole. With groups the same, as near as it can be without parting one.

    Args:
        dataset: its name, for errors.
        rows: (path, label).
        classes: number of classes.
        held: how many of each; None where the dataset should have said which are its test images.
        groups: name of each row's group, (N,); None: each is for itself.

    Raises:
        UserError: if none are asked for, or a class has too few.
    """
    if held is None:
        raise UserError(
            f"{dataset}: has no test images; name them in data, or hold some out: "
            "data.held_out: {per_class: 10}, or {share: 0.2}"
        )
    labels = np.array([label for _, label in rows])
    state = np.random.RandomState(held.seed)
    ranks = np.zeros(len(rows), dtype=np.int64)
    wanted = [0] * classes
    for label in range(classes):
        indices = np.flatnonzero(labels == label)
        state.shuffle(indices)
        ranks[indices[::-1]] = np.arange(len(indices))
        share = asked(len(indices), held)
        if share < len(indices):
            wanted[label] = share
        elif not held.untested:
            raise UserError(
                f"{dataset}: data.held_out takes {share} images of every class, but one has {len(indices)} "
                f"(label {label}), of which at least one has to stay; data.held_out.untested: true trains on "
                "such classes without testing them"
            )
    if groups is None:
        tested = ranks < np.array(wanted)[labels]
    else:
        tested = choose(labels, groups, wanted, ranks)
        _refuse_untested(dataset, labels, tested, wanted, held)
    if not tested.any():
        raise UserError(f"{dataset}: data.held_out leaves no class to test; hold fewer of each out")
    train = [row for row, out in zip(rows, tested, strict=True) if not out]
    return train, [row for row, out in zip(rows, tested, strict=True) if out]


def asked(pictures: int, held: HeldOut) -> int:
    """Pictures of a class that are asked for as test images, whether it has so many or not."""
    return max(1, round(pictures * held.share)) if held.share else held.per_class or 0


def _refuse_untested(
    dataset: str, labels: Indices, tested: NDArray[np.bool_], wanted: list[int], held: HeldOut
) -> None:
    got = np.bincount(labels[tested], minlength=len(wanted))
    without = [label for label, number in enumerate(wanted) if number and not got[label]]
    if without and not held.untested:
        raise UserError(
            f"{dataset}: data.held_out.groups: {held.groups}: the {(labels == without[0]).sum()} images of "
            f"label {without[0]} cannot be parted ({len(without)} of {len(wanted)} classes are so), so that "
            "none is left for testing; use other groups, or data.held_out.untested: true trains on such "
            "classes without testing them"
        )
