"""The paired bootstrap against its slow definition, scipy's, and the normal approximation."""

import numpy as np
import pytest
from scipy import stats

from longtail.publish import bootstrap


def answers(shape: tuple[int, int, int], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1, 0, 1], p=[0.2, 0.5, 0.3], size=shape)


def slow(differences: np.ndarray, resamples: int) -> tuple[float, float]:
    """Draw subsets, then seeds of each drawn subset, then images, one resample after another."""
    subsets, seeds, images = differences.shape
    random = np.random.default_rng(5)
    means = []
    for _ in range(resamples):
        columns = random.integers(images, size=images)
        drawn = [
            differences[subset, random.integers(seeds)][columns].mean()
            for subset in random.integers(subsets, size=subsets)
            for _ in range(seeds)
        ]
        means.append(np.mean(drawn))
    return tuple(np.quantile(means, [0.025, 0.975]))


@pytest.mark.parametrize("shape", [(1, 1, 60), (1, 3, 60), (3, 1, 60), (2, 3, 60)])
def test_the_interval_is_that_of_the_slow_definition(shape):
    differences = answers(shape)
    differences[0, 0] = np.sort(differences[0, 0])  # runs that differ from one another
    differences[-1, -1, :30] = 1
    expected = slow(differences, 6000)
    assert bootstrap.interval(differences) == pytest.approx(expected, abs=0.02)
    assert expected[1] - expected[0] > 0.15


def test_with_one_run_it_is_scipys():
    differences = answers((1, 1, 500))
    found = stats.bootstrap(
        (differences[0, 0],), np.mean, method="percentile", n_resamples=4000, rng=0
    ).confidence_interval
    assert bootstrap.interval(differences) == pytest.approx(tuple(found), abs=0.006)


def test_with_many_images_it_is_the_normal_one():
    differences = answers((1, 1, 20_000))
    half = 1.96 * differences.std() / np.sqrt(20_000)
    mean = differences.mean()
    assert bootstrap.interval(differences) == pytest.approx((mean - half, mean + half), rel=0.05)


def test_seeds_that_disagree_widen_it():
    same = np.repeat(answers((1, 1, 400)), 3, axis=1)
    disagreeing = same.copy()
    disagreeing[0, 0], disagreeing[0, 1] = -1, 1
    low, high = bootstrap.interval(same)
    wide_low, wide_high = bootstrap.interval(disagreeing)
    assert wide_high - wide_low > 3 * (high - low)


def test_the_same_answers_give_the_same_interval_whatever_their_order():
    differences = answers((1, 2, 300))
    assert bootstrap.interval(differences) == bootstrap.interval(differences)
    assert bootstrap.interval(differences) == bootstrap.interval(differences[:, :, ::-1])


def test_methods_that_agree_on_every_image_differ_by_nothing():
    assert bootstrap.interval(np.zeros((1, 3, 50), int)) == (0, 0)


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="needs a test image"):
        bootstrap.interval(np.zeros((1, 1, 0), int))
