import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from longtail.random import generator
from longtail.stage_two import gaussian
from longtail.stage_two.gaussian import ClassGaussians

torch.set_num_threads(1)


def features_of(sizes, dimensions, seed=0):
    """Correlated features >= 0, `sizes[c]` of class c."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    mix = torch.randn(dimensions, dimensions, generator=random)
    values = torch.randn(len(labels), dimensions, generator=random) @ mix + 2 * labels.unsqueeze(1)
    return values.relu(), labels


def check_moments(draws, mean, covariance):
    """Draws against an exact mean and covariance (float64): whitened, they have the moments of normals.

    Directions that the covariance does not have must not be in the draws either.
    """
    m = len(draws)
    values, vectors = np.linalg.eigh(covariance)
    real = values > 1e-9 * values.max()
    centred = draws.double().numpy() - mean
    if not real.all():
        assert np.abs(centred @ vectors[:, ~real]).max() < 3e-5 * max(1.0, draws.abs().max())
    white = centred @ (vectors[:, real] / np.sqrt(values[real]))
    second = white.T @ white / m
    upper = np.triu_indices(len(second), 1)
    for name, z in {
        "mean": white.mean(0) * np.sqrt(m),
        "covariance": second[upper] * np.sqrt(m),
        "variance": (np.diag(second) - 1) * np.sqrt(m / 2),
        "kurtosis": ((white**4).mean(0) - 3) * np.sqrt(m / 96),
    }.items():
        q = len(z)
        assert np.abs(z).max(initial=0) < norm.isf(1e-4 / (2 * max(q, 1))), name  # Bonferroni
        if q > 1:
            assert np.mean(z**2) == pytest.approx(1, abs=4.5 * np.sqrt(2 / q)), name


def noise(gaussians: ClassGaussians, label: int, count: int, random: torch.Generator) -> torch.Tensor:
    """Draws (count, d) from N(0, Sigma) of a class."""
    labels = torch.full((count, 1), label)
    return gaussians.draw(torch.zeros(count, gaussians.dimensions), labels, torch.ones(count, 1), random)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8, 9, 40, 500])
def test_noise_of_a_class_has_the_unbiased_covariance_whatever_n_is(n):
    features, labels = features_of([n], 8)
    gaussians = ClassGaussians(features, labels, 1)
    expected = np.cov(features.double().numpy(), rowvar=False) if n > 1 else np.zeros((8, 8))
    np.testing.assert_allclose(gaussians.means[0].numpy(), features.double().mean(0), rtol=1e-6)
    check_moments(noise(gaussians, 0, 200_000, generator(0, "noise", n)), np.zeros(8), expected)


@pytest.mark.parametrize("sorted_by_class", [True, False])
@pytest.mark.parametrize("chunk", [1 << 23, 1 << 15])  # all noise at once, or class by class
def test_draws_are_exact_in_every_order_of_the_features_and_size_of_a_chunk(
    sorted_by_class, chunk, monkeypatch
):
    monkeypatch.setattr(gaussian, "CHUNK", chunk)
    features, labels = features_of([3, 30, 200], 13)
    if not sorted_by_class:
        order = torch.randperm(len(labels), generator=generator(0))
        features, labels = features[order], labels[order]
    before = features.clone()
    gaussians = ClassGaussians(features, labels, 3)
    m, shares = 200_000, torch.tensor([0.5, 0.3, 0.2])
    draws = gaussians.draw(
        torch.zeros(1, 13).expand(m, -1), torch.arange(3).expand(m, -1), shares.expand(m, -1), generator(1)
    )
    exact = sum(
        share * np.cov(features[labels == label].double().numpy(), rowvar=False)
        for label, share in enumerate(shares.tolist())
    )
    check_moments(draws, np.zeros(13), exact)
    assert torch.equal(features, before)


@pytest.mark.parametrize("sizes", [(3, 30, 200), (12, 13, 14)])
@pytest.mark.parametrize("shares", [(1, 0, 0), (0.6, 0.3, 0.1), (0.0, 0.25, 0.75)])
def test_draws_have_exactly_the_mixed_covariance(sizes, shares):
    features, labels = features_of(sizes, 13)
    gaussians = ClassGaussians(features, labels, 3)
    exact = sum(
        share * np.cov(features[labels == label].double().numpy(), rowvar=False)
        for label, share in enumerate(shares)
    )
    m = 200_000
    mean = features[0]
    draws = gaussians.draw(
        mean.expand(m, -1),
        torch.arange(3).expand(m, -1),
        torch.tensor(shares, dtype=torch.float32).expand(m, -1),
        generator(0, "draws"),
    )
    check_moments(draws, mean.double().numpy(), exact)


def test_draws_are_independent_of_each_other():
    features, labels = features_of([5, 50], 4)
    gaussians = ClassGaussians(features, labels, 2)
    m = 100_000
    classes = torch.arange(2).expand(m, -1)
    draws = gaussians.draw(torch.zeros(m, 4), classes, torch.full((m, 2), 0.5), generator(1)).double()
    draws = draws / draws.std(0)
    assert ((draws[::2] * draws[1::2]).mean(0) * (m / 2) ** 0.5).abs().max() < 4


@pytest.mark.parametrize("n", [1, 2, 5, 9, 300])
@pytest.mark.parametrize("value", [0.0, 0.1, 3.7])
def test_a_feature_that_is_constant_in_a_class_is_constant_in_its_draws_up_to_rounding(n, value):
    features, labels = features_of([n], 8)
    features[:, 3] = value
    gaussians = ClassGaussians(features, labels, 1)
    means = gaussians.means.expand(100, -1)
    draws = gaussians.draw(means, torch.zeros(100, 1, dtype=torch.int64), torch.ones(100, 1), generator(0))
    torch.testing.assert_close(draws[:, 3], torch.full((100,), value), rtol=2e-6, atol=0)


def test_draws_of_dependent_features_stay_in_their_subspace():
    features, labels = features_of([400], 6)
    features = torch.cat([features, features[:, :2].sum(1, keepdim=True)], 1)  # the 7th is the sum of two
    gaussians = ClassGaussians(features, labels, 1)
    means = gaussians.means.expand(1000, -1)
    draws = gaussians.draw(means, torch.zeros(1000, 1, dtype=torch.int64), torch.ones(1000, 1), generator(0))
    torch.testing.assert_close(draws[:, 6], draws[:, 0] + draws[:, 1], atol=1e-4, rtol=0)
    assert draws[:, 6].std() > 1


def test_a_class_with_one_feature_vector_draws_it_again_and_again():
    features, labels = features_of([1, 20], 8)
    gaussians = ClassGaussians(features, labels, 2)
    drawn = noise(gaussians, 0, 10, generator(0))
    assert drawn.shape == (10, 8)
    assert not drawn.any()


def test_a_class_without_a_feature_is_named():
    with pytest.raises(ValueError, match=r"classes \[1, 3\] have no training image"):
        ClassGaussians(torch.rand(4, 2), torch.tensor([0, 0, 2, 2]), 4)


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_equal_keys_draw_equal_features_and_no_request_draws_none(sizes, seed):
    features, labels = features_of(sizes, 5, seed)
    gaussians = ClassGaussians(features, labels, len(sizes))
    means, classes, shares = features, labels.unsqueeze(1), torch.ones(len(labels), 1)
    one, two = (gaussians.draw(means, classes, shares, generator(seed)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(gaussians.draw(means, classes, 0 * shares, generator(seed)), means)
    assert gaussians.draw(means[:0], classes[:0], shares[:0], generator(seed)).shape == (0, 5)
