"""BFR: places that look like background count less."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longtail.stage_one.networks.place_weights import EPSILON, background, weighted_mean
from longtail.stage_one.networks.resnet_cifar import Settings, build


@st.composite
def maps_of_images(draw: st.DrawFn) -> Tensor:
    """Maps (N, d, H, W) in float64, >= 0 as behind a ReLU, some channels dead."""
    shape = [draw(st.integers(1, top)) for top in (3, 6, 4, 4)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    alive = (torch.rand(shape[1], 1, 1, generator=generator) < 0.7).double()
    return torch.randn(*shape, generator=generator, dtype=torch.float64).relu() * alive


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def spread(values: list[float]) -> float:
    return math.sqrt(mean([(value - mean(values)) ** 2 for value in values]))


def literal(image: Tensor) -> list[float]:
    """Features of one image, channel by channel and place by place, as written in the source."""
    channels = [[float(v) for v in channel.flatten()] for channel in image]
    places = range(len(channels[0]))
    s = [
        [sigmoid((f[u] - mean(f)) ** 2 / (4 * (spread(f) ** 2 + EPSILON))) for u in places] for f in channels
    ]
    t = []
    for u in places:
        column = [row[u] for row in s]
        chosen = [value for value in column if value >= mean(column) - 1e-12]
        t.append(mean(chosen))
    b = [sigmoid((mean(t) - t[u]) / (max(spread(t), EPSILON) + EPSILON)) for u in places]
    return [mean([(1 - 0.5 * b[u]) * f[u] for u in places]) for f in channels]


@settings(deadline=None)
@given(maps=maps_of_images())
def test_features_are_those_of_the_literal_definition(maps):
    expected = torch.tensor([literal(image) for image in maps], dtype=torch.float64)
    torch.testing.assert_close(weighted_mean(maps), expected, rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(maps=maps_of_images())
def test_features_lie_between_half_the_mean_and_the_mean(maps):
    found, middle = weighted_mean(maps), maps.mean(dim=(2, 3))
    assert (found >= middle / 2 - 1e-12).all()
    assert (found <= middle + 1e-12).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (4, 4)])
def test_maps_without_any_difference_between_places_have_three_quarters_of_the_mean(size):
    maps = torch.rand(2, 5, 1, 1).expand(2, 5, *size).clone().requires_grad_()
    found = weighted_mean(maps)
    torch.testing.assert_close(found, 0.75 * maps.mean(dim=(2, 3)))
    found.sum().backward()
    assert maps.grad.isfinite().all()


def test_the_place_that_stands_out_counts_most():
    maps = torch.full((1, 4, 3, 3), 0.1)
    maps[:, :, 1, 2] = 1.0  # the object
    looks = background(maps)[0, 0]
    assert looks[1, 2] == looks.min() < 0.1
    assert (looks.flatten().sort().values[1:] > 0.5).all()


@settings(deadline=None)
@given(maps=maps_of_images(), seed=st.integers(0, 2**31))
def test_the_order_of_places_and_of_channels_changes_nothing(maps, seed):
    random = torch.Generator().manual_seed(seed)
    channels = torch.randperm(maps.shape[1], generator=random)
    places = torch.randperm(maps[0, 0].numel(), generator=random)
    moved = maps.flatten(2)[:, channels][:, :, places].view_as(maps)
    torch.testing.assert_close(weighted_mean(moved), weighted_mean(maps)[:, channels], rtol=1e-4, atol=1e-6)


def test_an_image_does_not_depend_on_its_batch():
    maps = torch.rand(4, 8, 4, 4)
    alone = torch.cat([weighted_mean(image[None]) for image in maps])
    torch.testing.assert_close(weighted_mean(maps), alone)


def test_gradients_are_those_of_the_function():
    maps = torch.rand(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(weighted_mean, maps.requires_grad_())


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (5, 7)])
def test_a_network_pools_by_it_in_training_and_in_evaluation(size):
    torch.manual_seed(0)
    network = build(Settings(depth=8, width=4, pooling="bfr"), 3, 5)
    images = torch.randn(6, 3, *size)
    seen: list[Tensor] = []
    network.stage3.register_forward_hook(lambda *hook: seen.append(hook[-1]))
    for training in (True, False):
        network.train(training)
        features = network.features(images)
        assert torch.equal(features, weighted_mean(seen[-1]))
        assert (features >= 0).all()


def test_the_pooling_has_no_parameters_and_other_weights_are_the_same():
    networks = []
    for pooling in ("mean", "bfr"):
        torch.manual_seed(0)
        networks.append(build(Settings(depth=8, width=4, pooling=pooling), 3, 5).state_dict())
    assert list(networks[0]) == list(networks[1])
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_maps_in_bfloat16_are_weighted_in_float32():
    maps = torch.rand(2, 8, 4, 4).bfloat16()
    found = weighted_mean(maps)
    assert found.dtype == torch.float32
    assert torch.equal(found, weighted_mean(maps.float()))


def test_no_value_on_the_device_is_read_by_the_host():
    maps = torch.zeros(2, 8, 4, 4, device="meta", requires_grad=True)
    weighted_mean(maps).sum().backward()
    assert maps.grad.shape == maps.shape
