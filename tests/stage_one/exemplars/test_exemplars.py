"""Which images of a class stand for it in a memory."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from longtail.settings.methods import method_names, settings_of
from longtail.stage_one.exemplars import herding, nearest, random

METHODS = [herding, nearest, random]
BY_FEATURES = [herding, nearest]


def choose(method, features: Tensor, number: int, seed: int = 0, **settings) -> list[int]:
    chosen = method.choose(features, number, torch.Generator().manual_seed(seed), method.Settings(**settings))
    assert chosen.dtype == torch.int64
    assert chosen.device.type == "cpu"
    assert chosen.shape == (min(number, len(features)),)
    return chosen.tolist()


@st.composite
def classes(draw) -> Tensor:
    """Features of one class; few whole numbers, so that zeros, equal images and ties are common."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 4)))
    return torch.from_numpy(draw(arrays("float32", shape, elements=st.integers(-3, 3).map(float))))


def blob(images: int, seed: int, dimensions: int = 16) -> Tensor:
    """Features as behind a ReLU."""
    return torch.randn(images, dimensions, generator=torch.Generator().manual_seed(seed)).relu()


def as_points(features: Tensor, normalise: bool) -> tuple[list[Tensor], Tensor]:
    """phi of every image, and mu."""
    images = list(features.double())
    if normalise:
        images = [image / image.norm() if image.norm() > 0 else image for image in images]
    mean = torch.stack(images).mean(0)
    # whole numbers cancel exactly, their normalised vectors do so up to rounding
    return images, mean / mean.norm().clamp_min(1e-12) if normalise else mean


@given(features=classes(), number=st.integers(1, 10), normalise=st.booleans())
def test_herding_takes_at_every_rank_an_image_that_the_papers_formula_finds_best(features, number, normalise):
    images, mean = as_points(features, normalise)
    chosen: list[int] = []
    for best in choose(herding, features, number, normalise=normalise):
        k = len(chosen) + 1
        distance = {
            image: (mean - (images[image] + sum(images[j] for j in chosen)) / k).norm()
            for image in range(len(images))
            if image not in chosen
        }
        assert distance[best] <= min(distance.values()) + 1e-7  # the root of float64's rounding, at ties
        chosen.append(best)


@pytest.mark.parametrize("normalise", [True, False])
def test_herding_is_the_literal_greedy_search_where_there_are_no_ties(normalise):
    features = blob(40, seed=5)
    images, mean = as_points(features, normalise)
    chosen: list[int] = []
    for k in range(1, 16):
        left = [image for image in range(len(images)) if image not in chosen]
        total = sum((images[j] for j in chosen), torch.zeros_like(mean))
        chosen.append(min(left, key=lambda x: float((mean - (images[x] + total) / k).norm())))
    assert choose(herding, features, 15, normalise=normalise) == chosen


@pytest.mark.parametrize("number", [2, 5, 10, 20])
def test_the_mean_of_herded_exemplars_is_nearer_to_that_of_the_class_than_chance(number):
    def error(method, seed: int) -> float:
        images, mean = as_points(blob(100, seed), normalise=True)
        return float(
            (
                torch.stack([images[i] for i in choose(method, blob(100, seed), number, seed)]).mean(0) - mean
            ).norm()
        )

    herded, drawn = (sum(error(method, seed) for seed in range(20)) for method in (herding, random))
    assert herded < 0.9 * drawn


@given(features=classes(), normalise=st.booleans())
def test_nearest_sorts_the_images_by_their_distance_to_the_mean(features, normalise):
    images, mean = as_points(features, normalise)
    chosen = choose(nearest, features, len(images), normalise=normalise)
    distances = torch.stack([(images[i] - mean).norm() for i in chosen])
    assert (distances.diff() >= -1e-7).all()


@given(features=classes(), fewer=st.integers(0, 9), more=st.integers(0, 12), seed=st.integers(0, 99))
@pytest.mark.parametrize("method", METHODS)
def test_a_smaller_memory_is_the_beginning_of_a_larger_one(method, features, fewer, more, seed):
    fewer = min(fewer, more)
    assert choose(method, features, fewer, seed) == choose(method, features, more, seed)[:fewer]


@given(features=classes(), number=st.integers(0, 12), seed=st.integers(0, 99))
@pytest.mark.parametrize("method", METHODS)
def test_no_image_is_chosen_twice_and_all_are_where_there_are_no_more(method, features, number, seed):
    chosen = choose(method, features, number, seed)
    assert len(set(chosen)) == len(chosen)
    if number >= len(features):
        assert sorted(chosen) == list(range(len(features)))


@pytest.mark.parametrize("method", METHODS)
def test_a_class_of_one_image_is_that_image(method):
    assert choose(method, torch.tensor([[1.0, 2.0]]), 20) == [0]


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("method", BY_FEATURES)
def test_equal_images_come_in_their_order(method, normalise):
    features = blob(1, seed=2, dimensions=33).expand(50, -1)
    assert choose(method, features, 7, normalise=normalise) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("method", BY_FEATURES)
def test_an_image_without_any_feature_is_the_last_when_lengths_count_for_nothing(method):
    features = torch.cat([torch.zeros(1, 16), blob(5, seed=1) + 1])
    assert choose(method, features, 6)[-1] == 0
    assert choose(method, torch.zeros(3, 4), 3) == [0, 1, 2]


@pytest.mark.parametrize("method", BY_FEATURES)
def test_with_normalised_features_the_length_of_an_image_changes_nothing(method):
    features, lengths = blob(30, seed=3), torch.linspace(0.25, 4, 30)[:, None]
    assert choose(method, features, 30) == choose(method, F.normalize(features) * lengths, 30)
    assert choose(method, features, 30) != choose(method, features, 30, normalise=False)


def test_chance_has_the_generators_choice_and_every_image_its_equal_share():
    features = blob(10, seed=0)
    assert choose(random, features, 3, seed=4) == choose(random, features, 3, seed=4)
    counts = torch.tensor([choose(random, features, 3, seed) for seed in range(1000)]).flatten().bincount()
    assert ((counts - 300).abs() < 5 * (1000 * 0.3 * 0.7) ** 0.5).all()


def test_settings_are_found_without_importing_torch():
    assert method_names("exemplars") == ["herding", "nearest", "random"]
    assert settings_of("exemplars", "herding")().resolved() == {"normalise": True}
    assert settings_of("exemplars", "random")().resolved() == {}
