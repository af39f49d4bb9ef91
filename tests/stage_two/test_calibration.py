import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.random import generator
from longtail.stage_two.feature_calibration import Calibrated, calibrated, draw, sources
from longtail.stage_two.gaussian import ClassGaussians

from .test_gaussian import features_of

torch.set_num_threads(1)


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_calibration_is_that_of_free_lunch_one_sample_at_a_time(k):
    """All classes may be near, the own one and smaller ones too; k is cut to the number of classes."""
    features, labels = features_of([30, 10, 4, 1], 5)
    means = torch.stack([features[labels == c].mean(0) for c in range(4)])
    found = calibrated(features, means, k)
    for i, x in enumerate(features.double().numpy()):
        distances = np.linalg.norm(means.double().numpy() - x, axis=1)
        nearest = np.argsort(distances, kind="stable")[: min(k, 4)]
        assert found.classes[i].tolist() == nearest.tolist()
        expected = (x + means.double().numpy()[nearest].sum(0)) / (len(nearest) + 1)
        np.testing.assert_allclose(found.means[i], expected, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.21])
def test_draws_have_the_mean_covariance_of_the_neighbours_with_alpha_in_every_entry(alpha):
    features, labels = features_of([40, 12, 3], 4)
    gaussians = ClassGaussians(features, labels, 3)
    classes = torch.tensor([[0, 1], [1, 2]])
    of = Calibrated(torch.tensor([[9.0, 9, 9, 9], [0.0, 1, 2, 3]]), classes)
    rows = torch.ones(200_000, dtype=torch.int64)
    drawn = draw(gaussians, of, rows, alpha, generator(0)).double().numpy()
    covariances = [np.cov(features[labels == c].double().numpy().T) for c in range(3)]
    expected = (covariances[1] + covariances[2]) / 2 + alpha
    np.testing.assert_allclose(drawn.mean(0), [0, 1, 2, 3], atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.03 * np.abs(expected).max())


@given(counts=st.lists(st.integers(1, 20), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_every_class_is_filled_up_to_the_largest_by_all_its_images_equally(counts, seed):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    drawn = sources(labels, torch.tensor(counts), generator(seed))
    per_class = labels[drawn].bincount(minlength=len(counts))
    assert (per_class + torch.tensor(counts)).tolist() == [max(counts)] * len(counts)
    uses = drawn.bincount(minlength=len(labels))
    for label in range(len(counts)):
        own = uses[labels == label]
        assert own.max() - own.min() <= 1


def test_a_class_without_an_image_is_named():
    with pytest.raises(ValueError, match=r"classes \[1\] have no training image"):
        sources(torch.tensor([0, 0]), torch.tensor([2, 0]), generator(0))
