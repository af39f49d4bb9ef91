"""Class counts of every imbalance profile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.data.imbalance import counts, exponential_counts, pareto_counts
from longtail.errors import UserError
from longtail.settings.split import ExponentialImbalance, NaturalImbalance, ParetoImbalance


@pytest.mark.parametrize(
    ("classes", "largest", "ratio", "total"),
    [
        (100, 500, 200, 9502),
        (100, 500, 100, 10847),
        (100, 500, 50, 12608),
        (100, 500, 10, 19573),
        (10, 5000, 200, 11203),
        (10, 5000, 100, 12406),
        (10, 5000, 50, 13996),
        (10, 5000, 10, 20431),
    ],
)
def test_cifar_lt_has_the_published_number_of_images(classes, largest, ratio, total):
    assert exponential_counts(classes, largest, ratio).sum() == total


@pytest.mark.parametrize(
    ("ratio", "groups"), [(200, (30, 31, 39)), (100, (35, 35, 30)), (50, (41, 41, 18)), (10, (69, 31, 0))]
)
def test_cifar100_lt_has_the_known_groups(ratio, groups):
    n = exponential_counts(100, 500, ratio)
    assert ((n > 100).sum(), ((n >= 20) & (n <= 100)).sum(), (n < 20).sum()) == groups


def test_the_pareto_formula_gives_the_known_total_and_groups():
    n = pareto_counts(1000, 1280, 5, 6.0)
    assert n.sum() == 121_449
    assert ((n > 100).sum(), ((n >= 20) & (n <= 100)).sum(), (n < 20).sum()) == (404, 456, 140)
    assert (n[0], n[-1]) == (1280, 5)


@given(
    classes=st.integers(1, 300),
    smallest=st.integers(1, 50),
    span=st.floats(1, 1000),
    alpha=st.floats(0.5, 20),
)
def test_counts_fall_from_the_largest_class_to_the_smallest(classes, smallest, span, alpha):
    largest = int(smallest * span)
    for n in (
        exponential_counts(classes, largest, span),
        pareto_counts(classes, largest, smallest, alpha),
    ):
        assert n[0] == largest
        assert (np.diff(n) <= 0).all()
        assert n[-1] >= min(smallest, largest) - 1  # int() of the published procedure may take one away


def test_natural_keeps_everything():
    available = np.array([3, 1, 7])
    assert (counts(NaturalImbalance(), available) == available).all()


def test_unequal_classes_all_have_what_their_rank_asks_for():
    available = np.array([30, 24, 50])
    assert counts(ExponentialImbalance(ratio=4), available).tolist() == [24, 12, 6]
    assert counts(ParetoImbalance(smallest=2), available)[[0, -1]].tolist() == [24, 2]


@pytest.mark.parametrize("ratio", [49.0, 1000.0])  # 49 * (1 / 49) is below 1 in floating point
def test_a_ratio_that_empties_classes_names_them_and_the_bound(ratio):
    with pytest.raises(UserError, match=r"imbalance\.ratios: .*classes \d to 2; .* a ratio below 49$"):
        counts(ExponentialImbalance(ratio=ratio), np.array([49, 60, 49]))


def test_pareto_never_gives_a_class_fewer_images_than_its_formula_says():
    with pytest.raises(UserError, match=r"imbalance\.largest: 1280 asks for more .* null takes 500"):
        counts(ParetoImbalance(largest=1280), np.full(10, 500))


@pytest.mark.parametrize("largest", [None, 3])
def test_pareto_is_never_turned_upside_down(largest):
    with pytest.raises(UserError, match=r"imbalance\.smallest: 60 is above"):
        counts(ParetoImbalance(largest=largest, smallest=60), np.full(10, 50))
