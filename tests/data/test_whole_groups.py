"""No group of pictures is parted, and each class gives as many as whole groups can."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.data import holding_out, split
from longtail.data.whole_groups import choose
from longtail.errors import UserError
from longtail.settings.data import HeldOut
from longtail.settings.split import SplitSettings

# the sizes of the groups of each class
CLASSES = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=7), min_size=2, max_size=5)


def pictures(classes: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and groups of pictures whose groups each have one class."""
    labels = [label for label, sizes in enumerate(classes) for size in sizes for _ in range(size)]
    names = [
        f"{c}/{g}" for c, sizes in enumerate(classes) for g, size in enumerate(sizes) for _ in range(size)
    ]
    return np.array(labels), np.unique(names, return_inverse=True)[1]


def sums(sizes: list[int]) -> set[int]:
    """Every number of pictures that some of the groups have, but not all and not none: literally."""
    return {sum(some) for number in range(1, len(sizes)) for some in combinations(sizes, number) if sum(some)}


def held(labels: np.ndarray, groups: np.ndarray | None, **options) -> np.ndarray:
    rows = [(str(number), label) for number, label in enumerate(labels.tolist())]
    _, test = holding_out.held_out("pets", rows, max(labels) + 1, HeldOut(**options), groups)
    out = np.zeros(len(labels), dtype=bool)
    out[[int(name) for name, _ in test]] = True
    return out


@given(CLASSES, st.integers(1, 12), st.integers(0, 5))
def test_of_groups_of_one_class_the_number_is_the_nearest_that_can_be(classes, per_class, seed):
    labels, groups = pictures(classes)
    total = np.bincount(labels)
    wanted = [per_class if per_class < count else 0 for count in total]
    ranks = np.random.default_rng(seed).permutation(len(labels))
    chosen = choose(labels, groups, wanted, ranks)
    for group in np.unique(groups):
        assert len(set(chosen[groups == group])) == 1
    for label, sizes in enumerate(classes):
        got, can = chosen[labels == label].sum(), sums(sizes)
        if not wanted[label] or not can:
            assert got == 0
        else:
            assert got in can
            assert abs(got - per_class) == min(abs(other - per_class) for other in can)


@given(CLASSES, st.floats(0.05, 0.6), st.integers(0, 5))
def test_where_every_picture_is_a_group_the_choice_is_the_plain_one(classes, share, seed):
    labels, _ = pictures(classes)
    if np.bincount(labels).min() < 2:
        return
    own = np.random.default_rng(seed).permutation(len(labels))
    assert (held(labels, own, share=share, seed=seed) == held(labels, None, share=share, seed=seed)).all()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=8, max_size=60),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_groups_of_several_classes_are_never_parted_and_no_class_is_emptied(rows, per_class, seed):
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3, *(label for label, _ in rows)])
    groups = np.array([20, 21, 22, 23, 24, 25, 26, 27, *(group for _, group in rows)])
    options = {"per_class": per_class, "seed": seed, "untested": True}
    if np.bincount(labels).max() <= per_class:
        with pytest.raises(UserError, match="leaves no class to test"):
            held(labels, groups, **options)
        return
    test = held(labels, groups, **options)
    assert not set(groups[test]) & set(groups[~test])
    assert set(labels[~test]) == {0, 1, 2, 3}
    total, got = np.bincount(labels), np.bincount(labels[test], minlength=4)
    assert (got[total <= per_class] == 0).all()
    assert (got[total > per_class] >= 1).all()  # each has two pictures that are groups by themselves
    distance = abs(got - np.where(total > per_class, per_class, 0)).sum()
    for group in np.unique(groups):  # no single group brings all classes together nearer
        own = np.bincount(labels[groups == group], minlength=4)
        after = got + own * (-1 if test[groups == group][0] else 1)
        touched = own > 0
        allowed = (total > per_class)[touched].all() and (after[touched] > 0).all()
        if allowed and (after < total)[touched].all():
            assert abs(after - np.where(total > per_class, per_class, 0)).sum() >= distance


def test_a_burst_goes_to_one_side_and_the_rest_makes_up_the_number():
    labels, groups = pictures([[7, 1, 1, 1, 1, 1], [2] * 5])
    for seed in range(6):
        test = held(labels, groups, per_class=4, seed=seed)
        assert np.bincount(labels[test]).tolist() == [4, 4]
        assert not test[:7].any()


def test_the_nearest_number_may_be_above_or_below():
    labels, groups = pictures([[3, 3, 3], [5, 9]])
    assert np.bincount(labels[held(labels, groups, per_class=4)]).tolist() == [3, 5]
    assert np.bincount(labels[held(labels, groups, per_class=5)]).tolist() == [6, 5]


def test_a_class_that_is_one_group_is_one_line_or_untested():
    labels, groups = pictures([[6], [1, 1, 1, 1]])
    with pytest.raises(
        UserError, match=r"the 6 images of label 0 cannot be parted \(1 of 2 classes are so\)"
    ):
        held(labels, groups, per_class=2)
    test = held(labels, groups, per_class=2, untested=True)
    assert np.bincount(labels[test], minlength=2).tolist() == [0, 2]


def divided(labels, groups, validation, imbalance=None) -> split.Chosen:
    given = {"dataset": "pets", "imbalance": imbalance or {"profile": "natural"}, "validation": validation}
    return split.split(labels, int(max(labels)) + 1, SplitSettings.model_validate(given), groups)


@given(CLASSES, st.floats(0.05, 0.5))
def test_a_holdout_parts_no_group_and_leaves_every_class_some(classes, share):
    labels, groups = pictures(classes)
    parts = divided(labels, groups, {"source": "holdout", "share": share})
    assert not set(groups[parts.train]) & set(groups[parts.validation])
    assert sorted([*parts.train, *parts.validation]) == list(range(len(labels)))
    assert set(labels[parts.train]) == set(range(len(classes)))
    for label, sizes in enumerate(classes):
        wanted = min(max(1, round(sum(sizes) * share)), sum(sizes) - 1)
        got, can = (labels[parts.validation] == label).sum(), sums(sizes)
        assert got == (min(can, key=lambda n: (abs(n - wanted), n != got)) if can and wanted else 0)


def test_a_holdout_without_groups_is_what_it_was():
    labels, _ = pictures([[1] * 9, [1] * 4])
    plain = divided(labels, None, {"source": "holdout", "share": 0.3})
    single = divided(labels, np.arange(13), {"source": "holdout", "share": 0.3})
    assert plain.train.tolist() == single.train.tolist()
    assert sorted(plain.validation) == sorted(single.validation)


def test_unused_images_that_belong_to_training_images_validate_nothing():
    labels, groups = pictures([[2] * 10, [2] * 10])
    parts = divided(
        labels,
        groups,
        {"source": "unused", "per_class": 20},
        {"profile": "exponential", "ratio": 4},
    )
    assert len(parts.validation)
    assert not set(groups[parts.train]) & set(groups[parts.validation])
