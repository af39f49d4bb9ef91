"""Which training images make up an epoch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from longtail.stage_one.samplers import (
    class_aware,
    class_balanced,
    instance,
    progressive,
    reversed,
    square_root,
)

LONG_TAIL = torch.arange(5).repeat_interleave(torch.tensor([500, 100, 20, 4, 1]))


SHUFFLED = LONG_TAIL[torch.randperm(len(LONG_TAIL), generator=torch.Generator().manual_seed(3))]
COUNTS = [500, 100, 20, 4, 1]


def draw(sampler, labels, seed=0, progress=0.0, **settings):
    return sampler.indices(
        labels, torch.Generator().manual_seed(seed), progress, sampler.Settings(**settings)
    )


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


def test_reversed_sampling_has_chances_that_turn_the_sizes_round():
    """Zhou et al. 2020: the rarest class is to the largest as the largest was to the rarest."""
    chances = reversed.chances(LONG_TAIL)
    assert float(chances.sum()) == pytest.approx(1)
    assert float(chances[4] / chances[0]) == pytest.approx(500)
    with_a_gap = reversed.chances(torch.tensor([0, 0, 2]))
    assert with_a_gap.tolist() == pytest.approx([1 / 3, 0, 2 / 3])
    drawn = SHUFFLED[torch.cat([draw(reversed, SHUFFLED, seed) for seed in range(64)])]
    assert chisquare(drawn.bincount(minlength=5), len(drawn) * chances).pvalue > 1e-3


def test_square_root_sampling_has_the_chances_of_the_roots():
    torch.testing.assert_close(
        square_root.chances(torch.arange(3).repeat_interleave(torch.tensor([100, 25, 1]))),
        torch.tensor([10, 5, 1], dtype=torch.float64) / 16,
    )


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0.0, [0.8, 0.2]), (0.5, [0.65, 0.35]), (1.0, [0.5, 0.5])],
)
def test_progressive_sampling_goes_from_the_classes_sizes_to_equal_chances(progress, expected):
    chances = progressive.chances(torch.tensor([0, 0, 0, 0, 1]), progress)
    torch.testing.assert_close(chances, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("sampler", "progress", "weights"),
    [
        (square_root, 0.0, [n**0.5 for n in COUNTS]),
        (progressive, 0.0, COUNTS),
        (progressive, 0.4, [0.6 * n / 625 + 0.4 / 5 for n in COUNTS]),
        (progressive, 1.0, [1] * 5),
    ],
)
def test_classes_are_drawn_by_their_chances_and_images_equally_within_them(sampler, progress, weights):
    drawn = torch.cat([draw(sampler, SHUFFLED, seed, progress) for seed in range(64)])
    expected = torch.tensor(weights, dtype=torch.float64) * len(drawn) / sum(weights)
    assert chisquare(SHUFFLED[drawn].bincount(minlength=5), expected).pvalue > 1e-3
    for label in range(4):
        images = (label == SHUFFLED).nonzero().flatten()
        assert chisquare(drawn.bincount(minlength=len(SHUFFLED))[images]).pvalue > 1e-3


@pytest.mark.parametrize("sampler", [square_root, progressive])
def test_a_class_without_images_is_never_drawn(sampler):
    labels = torch.tensor([0, 0, 0, 4, 4, 7])
    for progress in (0.0, 0.5, 1.0):
        drawn = labels[torch.cat([draw(sampler, labels, seed, progress) for seed in range(200)])]
        assert set(drawn.tolist()) == {0, 4, 7}


@settings(deadline=None)
@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=200),
    seed=st.integers(0, 1000),
    each=st.integers(1, 6),
)
def test_class_aware_sampling_goes_round_the_classes_and_their_images(labels, seed, each):
    """Read one image after another, as the public code gives them."""
    labels = torch.tensor(labels)
    drawn = draw(class_aware, labels, seed, samples_per_class=each)
    assert len(drawn) == len(labels)
    present = set(labels.tolist())
    turns = [labels[turn].tolist() for turn in drawn.split(each)]
    assert all(len(set(turn)) == 1 for turn in turns)
    in_turn = [turn[0] for turn in turns]
    for start in range(0, len(in_turn), len(present)):
        cycle = in_turn[start : start + len(present)]
        assert len(set(cycle)) == len(cycle)  # no class twice before every other had its turn
        if len(cycle) == len(present):
            assert set(cycle) == present
    for label in present:
        own = (labels == label).nonzero().flatten().tolist()
        shown = [image for image in drawn.tolist() if image in own]
        for start in range(0, len(shown), len(own)):
            cycle = shown[start : start + len(own)]
            assert len(set(cycle)) == len(cycle)


def test_class_aware_sampling_is_shuffled_in_every_cycle():
    labels = torch.arange(3).repeat_interleave(torch.tensor([40, 40, 40]))
    drawn = draw(class_aware, labels)
    turns = labels[drawn.view(30, 4)[:, 0]].view(10, 3).tolist()
    assert len({tuple(cycle) for cycle in turns}) > 1
    first = drawn[labels[drawn] == 0].tolist()
    assert first != sorted(first)


SAMPLERS = [instance, class_balanced, square_root, progressive, class_aware]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_epoch_is_as_long_as_there_are_images_also_of_one_class_or_one_image(sampler):
    for labels in (torch.zeros(1, dtype=torch.int64), torch.full((7,), 3), SHUFFLED):
        drawn = draw(sampler, labels, progress=0.5)
        assert drawn.dtype == torch.int64
        assert drawn.shape == labels.shape
        assert drawn.min() >= 0
        assert drawn.max() < len(labels)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_key_gives_one_order(sampler):
    assert torch.equal(draw(sampler, LONG_TAIL, 5), draw(sampler, LONG_TAIL, 5))
    assert not torch.equal(draw(sampler, LONG_TAIL, 5), draw(sampler, LONG_TAIL, 6))
