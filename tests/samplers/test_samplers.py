"""Which training images make up an epoch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from longtail.samplers import class_balanced, instance

LONG_TAIL = torch.arange(5).repeat_interleave(torch.tensor([500, 100, 20, 4, 1]))


def draw(sampler, labels, seed=0, progress=0.0):
    return sampler.indices(labels, torch.Generator().manual_seed(seed), progress, sampler.Settings())


@settings(deadline=None)
@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=200), seed=st.integers(0, 1000))
def test_instance_sampling_shows_every_image_once(labels, seed):
    indices = draw(instance, torch.tensor(labels), seed)
    assert indices.dtype == torch.int64
    assert sorted(indices.tolist()) == list(range(len(labels)))


@settings(deadline=None)
@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=200), seed=st.integers(0, 1000))
def test_class_balanced_sampling_draws_as_many_images_as_there_are(labels, seed):
    indices = draw(class_balanced, torch.tensor(labels), seed)
    assert indices.dtype == torch.int64
    assert indices.shape == (len(labels),)
    assert indices.min() >= 0
    assert indices.max() < len(labels)


def test_class_balanced_sampling_draws_classes_equally_and_images_equally_within_them():
    shuffled = LONG_TAIL[torch.randperm(len(LONG_TAIL), generator=torch.Generator().manual_seed(3))]
    drawn = torch.cat([draw(class_balanced, shuffled, seed) for seed in range(64)])
    assert chisquare(shuffled[drawn].bincount(minlength=5)).pvalue > 1e-3
    for label in range(4):
        images = (shuffled == label).nonzero().flatten()
        assert chisquare(drawn.bincount(minlength=len(shuffled))[images]).pvalue > 1e-3


def test_class_balanced_sampling_passes_over_a_class_without_images():
    labels = torch.tensor([0, 0, 0, 4, 4, 7])
    drawn = torch.cat([draw(class_balanced, labels, seed) for seed in range(500)])
    assert chisquare(labels[drawn].bincount()[[0, 4, 7]]).pvalue > 1e-3


@pytest.mark.parametrize("sampler", [instance, class_balanced])
def test_a_key_gives_one_order(sampler):
    assert torch.equal(draw(sampler, LONG_TAIL, 5), draw(sampler, LONG_TAIL, 5))
    assert not torch.equal(draw(sampler, LONG_TAIL, 5), draw(sampler, LONG_TAIL, 6))
