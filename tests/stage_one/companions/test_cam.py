"""Bag of tricks' images: how many, of what, and what is moved where."""

import math
from types import SimpleNamespace

import pytest
import torch

from longtail.data.imbalance import exponential_counts
from longtail.data.labelled_images import Part
from longtail.random import generator
from longtail.settings.augmentation import Augmentation
from longtail.stage_one.companions import cam
from longtail.stage_one.companions.cam import FLIPPED, ROTATED, SHIFTED, Moves, Settings
from longtail.stage_one.networks import resnet_cifar


def moves(kind, degrees=0.0, size=1.0, place=(0.0, 0.0)):
    """Of one image."""
    return Moves(
        torch.tensor([kind]),
        torch.tensor([degrees]),
        torch.tensor([size]),
        torch.tensor([place], dtype=torch.float64),
    )


def pictures(count=1, side=8, channels=3, low=1):
    random = torch.Generator().manual_seed(0)
    return torch.randint(low, 256, (count, channels, side, side), generator=random).to(torch.uint8)


def map_of(rows, columns, side=8):
    """255 in a rectangle, 0 elsewhere."""
    found = torch.zeros(1, side, side, dtype=torch.uint8)
    found[0, rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = 255
    return found


@pytest.mark.parametrize(("ratio", "total"), [(100, 50_500), (50, 51_000)])
def test_every_class_has_as_many_as_the_largest_and_the_smallest(ratio, total):
    counts = torch.from_numpy(exponential_counts(100, 500, ratio))
    labels = torch.arange(100).repeat_interleave(counts)
    of = cam.chosen(labels, torch.Generator().manual_seed(0))
    together = counts + labels[of].bincount(minlength=100)
    assert together.tolist() == [500 + 500 // ratio] * 100
    assert int(together.sum()) == total
    # the class of 5 or 10 images is drawn from about 500 times: each of its images is
    assert set(of[labels[of] == 99].tolist()) == set((labels == 99).nonzero().flatten().tolist())


def test_labels_in_any_order_and_classes_without_images():
    labels = torch.tensor([3, 0, 3, 0, 0, 3, 3, 1])
    of = cam.chosen(labels, torch.Generator().manual_seed(1))
    assert (labels.bincount() + labels[of].bincount(minlength=4)).tolist() == [5, 5, 0, 5]


def test_moves_are_of_three_kinds_alike_and_of_the_authors_ranges():
    found = cam.drawn(30_000, torch.Generator().manual_seed(0))
    shares = found.kind.bincount() / 30_000
    assert (shares - 1 / 3).abs().max() < 4 * (2 / 9 / 30_000) ** 0.5
    assert sorted(set(found.degrees.tolist())) == list(range(-45, 45))
    assert sorted({round(100 * size) for size in found.size.tolist()}) == list(range(80, 120))


def test_a_map_is_the_weighted_sum_from_least_to_most():
    maps = torch.zeros(2, 2, 2, 2)
    maps[0, 0] = torch.tensor([[0.0, 1.0], [2.0, 4.0]])
    maps[0, 1] = torch.tensor([[9.0, 0.0], [0.0, 0.0]])
    maps[1] = 7.0  # the same everywhere
    found = cam.activation(maps, torch.tensor([[1.0, -1.0], [1.0, 2.0]]))
    # -9, 1, 2, 4: 10/13, 11/13 and 13/13 of 255, cut off
    assert found[0].tolist() == [[0, 196], [215, 255]]
    assert found[1].tolist() == [[0, 0], [0, 0]]
    assert cam.foreground(cam.resized(found[1:], 4, 4)).all()


def test_the_foreground_of_one_hot_cell():
    """By hand: a cell of 8 x 8 spreads over 8 x 8 of 32 x 32 pixels, the least of which is 255/64, rounded 4.

    Its mean is 16 cells' worth of pixels' 255, 3.98: 3/4 of that is below 4.
    """
    maps = torch.zeros(1, 8, 8, dtype=torch.uint8)
    maps[0, 2, 5] = 255
    large = cam.resized(maps, 32, 32)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[6:14, 18:26] = True
    assert torch.equal(cam.foreground(large)[0], inside)
    weights = torch.tensor([1.0, 3, 5, 7, 7, 5, 3, 1]) / 8
    by_hand = (255 * weights[:, None] * weights).round().to(torch.uint8)
    assert (large[0, 6:14, 18:26].int() - by_hand.int()).abs().max() <= 1  # halves may round either way
    for axis, (first, last) in ((2, (6, 13)), (1, (18, 25))):
        found = cam.edges(cam.foreground(large).any(axis), "whole")
        assert [int(edge) for edge in found] == [first, last]
        assert [int(edge) for edge in cam.edges(cam.foreground(large).any(axis), "code")] == [
            first,
            first + 1,
        ]


def test_the_codes_box_ends_with_the_second_place_that_is_not_empty():
    inside = torch.tensor([[0, 1, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0]]).bool()
    assert [edge.tolist() for edge in cam.edges(inside, "whole")] == [[1, 2], [5, 2]]
    assert [edge.tolist() for edge in cam.edges(inside, "code")] == [[1, 2], [4, 2]]


def test_everything_is_foreground_and_nothing_moves():
    images, everywhere = pictures(), torch.full((1, 8, 8), 255, dtype=torch.uint8)
    assert torch.equal(cam.pasted(images, everywhere, moves(ROTATED)), images)
    # a box as large as the image has one place
    assert torch.equal(cam.pasted(images, everywhere, moves(SHIFTED, place=(0.999, 0.5))), images)


def test_flipping_twice_is_the_image():
    images, everywhere = pictures(low=0), torch.full((1, 8, 8), 255, dtype=torch.uint8)
    images[images == 0] = 1
    once = cam.pasted(images, everywhere, moves(FLIPPED))
    assert torch.equal(once, images.flip(3))
    assert torch.equal(cam.pasted(once, everywhere, moves(FLIPPED)), images)


def test_an_object_is_mirrored_over_its_picture():
    """F and its mirror image show the mirrored picture, all else the picture itself."""
    images = pictures()
    found = cam.pasted(images, map_of((2, 4), (0, 1)), moves(FLIPPED))
    expected = images.clone()
    for columns in (slice(0, 2), slice(6, 8)):
        expected[:, :, 2:5, columns] = images.flip(3)[:, :, 2:5, columns]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.2), (0.999, 0.999)])
def test_a_box_is_shifted_to_a_place_inside(place):
    """A box of 2 columns and 3 rows has 7 and 6 places."""
    images = pictures()
    found = cam.pasted(images, map_of((3, 5), (4, 5)), moves(SHIFTED, place=place))
    right, down = int(place[0] * 7) - 4, int(place[1] * 6) - 3
    expected = images.clone()
    for y in range(8):
        for x in range(8):
            front = 3 <= y <= 5 and 4 <= x <= 5
            new_front = 3 <= y - down <= 5 and 4 <= x - right <= 5
            inside = 0 <= y - down < 8 and 0 <= x - right < 8
            if (front or new_front) and inside:
                expected[0, :, y, x] = images[0, :, y - down, x - right]
    assert torch.equal(found, expected)


def rotated_by_hand(image, maps, degrees, size, middle):
    """One image (C, H, W), pixel by pixel, by OpenCV's rotation and bilinear sampling with a border of 0."""
    channels, height, width = image.shape
    cos, sin = (function(math.radians(degrees)) for function in (math.cos, math.sin))

    def value(plane, y, x):
        total = 0.0
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    total += (1 - abs(y - row)) * (1 - abs(x - column)) * float(plane[row, column])
        return total

    front = maps.double() >= 0.75 * maps.double().mean()
    result = image.clone()
    for y in range(height):
        for x in range(width):
            # the inverse of x' = size (cos dx + sin dy), y' = size (-sin dx + cos dy): counter-clockwise
            away_x, away_y = (x - middle[0]) / size, (y - middle[1]) / size
            from_x, from_y = cos * away_x - sin * away_y + middle[0], sin * away_x + cos * away_y + middle[1]
            if front[y, x] or round(value(torch.where(front, maps, 0), from_y, from_x)) > 0:
                for channel in range(channels):
                    new = round(value(image[channel], from_y, from_x))
                    if new:
                        result[channel, y, x] = new
    return result


@pytest.mark.parametrize(("degrees", "size"), [(30, 0.8), (-45, 1.19), (0, 1.1), (44, 1.0)])
def test_rotation_is_that_of_a_loop_over_pixels(degrees, size):
    image = pictures(side=9)[0]
    maps = torch.randint(0, 60, (1, 9, 9), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    maps[0, 2:6, 3:8] += 150
    box = [[int(edge) for edge in cam.edges(cam.foreground(maps).any(axis), "whole")] for axis in (1, 2)]
    middle = [sum(edges) / 2 for edges in box]
    expected = rotated_by_hand(image, maps[0], degrees, size, middle)
    found = cam.pasted(image[None], maps, moves(ROTATED, float(degrees), size))[0]
    assert (found.int() - expected.int()).abs().max() <= 1  # halves may round either way
    assert (found != image).any()


def test_a_positive_angle_turns_counter_clockwise():
    """A quarter turn takes what is right of the middle to above it."""
    images = torch.full((1, 1, 9, 9), 9, dtype=torch.uint8)
    images[0, 0, 4, 7] = 200
    everywhere = torch.full((1, 9, 9), 255, dtype=torch.uint8)
    found = cam.pasted(images, everywhere, moves(ROTATED, 90.0))
    assert found[0, 0, 1, 4] == 200
    assert found[0, 0, 4, 7] == 9


def test_what_comes_from_outside_or_is_black_leaves_the_picture():
    images, everywhere = pictures(), torch.full((1, 8, 8), 255, dtype=torch.uint8)
    images[0, 1] = 0  # a colour that is nought everywhere
    images[0, 1, :, :4] = 77
    found = cam.pasted(images, everywhere, moves(FLIPPED))
    assert (found[0, 1] == 77).all()  # nought was not put over it
    assert torch.equal(found[0, 0], images[0, 0].flip(1))
    small = cam.pasted(images, everywhere, moves(ROTATED, 0.0, 0.5))  # a border comes from outside
    assert torch.equal(small[0, :, 0], images[0, :, 0])


LABELS = torch.arange(4).repeat_interleave(torch.tensor([9, 5, 3, 1]))


def context(network=None, side=8, **changes):
    """What `make` reads of a phase's context."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = network or resnet_cifar.build(resnet_cifar.Settings(depth=8, width=4), 3, 4)
    found = {
        "network": network.eval(),
        "training": Part(pictures(len(LABELS), side), LABELS, torch.arange(len(LABELS)) + 100),
        "prepare": lambda images: images.float() / 127.5 - 1,
        "device": torch.device("cpu"),
        "precision": "float32",
        "generator": lambda *key: generator(changes.get("seed", 0), *key),
        "recipe": SimpleNamespace(
            network=SimpleNamespace(name="bbn"),
            augmentation=Augmentation(crop=1, autoaugment="none", cutout=0),
        ),
    }
    return SimpleNamespace(**{**found, **changes})


@pytest.mark.parametrize("view", ["clean", "augmented"])
@pytest.mark.parametrize("box", ["whole", "code"])
def test_images_are_those_of_the_seed(view, box):
    settings = Settings(view=view, box=box)
    one, again, other = (cam.make(settings, context(seed=seed)) for seed in (0, 0, 1))
    assert one.images.shape == (4 * 10 - 18, 3, 8, 8)
    assert one.images.dtype == torch.uint8
    assert (LABELS.bincount() + one.labels.bincount()).tolist() == [10] * 4
    assert torch.equal(LABELS[one.samples - 100], one.labels)
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.samples, again.samples)
    assert not torch.equal(one.images, other.images)


def test_settings_choose_the_map_and_the_box():
    made = {
        (view, box): cam.make(Settings(view=view, box=box), context()).images
        for view in ("clean", "augmented")
        for box in ("whole", "code")
    }
    first = made.pop(("clean", "whole"))
    assert all(not torch.equal(first, other) for other in made.values())


def test_the_map_is_that_of_the_networks_last_maps_and_the_images_own_class(monkeypatch):
    given, seen, resized = context(), [], cam.resized

    def noted(maps, height, width):
        seen.append(maps)
        return resized(maps, height, width)

    monkeypatch.setattr(cam, "resized", noted)
    made = cam.make(Settings(), given)
    network, of = given.network, made.samples - 100
    with torch.no_grad():
        maps = network.maps(given.prepare(given.training.images), 3)
    weights = network.head.weight.detach()
    for found, place in zip(torch.cat(seen), of.tolist(), strict=True):
        values = sum(weights[LABELS[place], channel] * maps[place, channel] for channel in range(16))
        values = (values - values.min()) / (values.max() - values.min()) * 255
        assert (found.float() - values.floor()).abs().max() <= 1
