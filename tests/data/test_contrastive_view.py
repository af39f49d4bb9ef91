"""The second look at an image: parts, colours, grey and mirror image, against torchvision's."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from longtail.data.contrastive_view import ContrastiveView, hue_shifted, resized
from longtail.data.images import in_batches
from longtail.data.picture_loader import PictureFiles
from longtail.settings.augmentation import Jitter
from longtail.settings.data import Pictures

NOTHING = {"smallest": 1.0, "jitter_chance": 0.0, "grey_chance": 0.0, "flip": False}


def images(count, channels=3, height=12, width=12):
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), generator=random, dtype=torch.uint8)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def test_parts_are_torchvisions_at_the_size_of_the_image():
    given = images(4, height=12, width=9)
    boxes = torch.tensor([[0, 0, 9, 12], [3, 2, 5, 7], [8, 11, 1, 1], [0, 5, 9, 3]], dtype=torch.float32)
    found = resized(given, boxes)
    assert torch.equal(found[0], given[0])
    for image, box, own in zip(given, boxes.int().tolist(), found, strict=True):
        left, top, width, height = box
        expected = functional.resized_crop(
            image, top, left, height, width, [12, 9], InterpolationMode.BILINEAR, antialias=False
        )
        assert (own.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.07, 0.5])
def test_hue_is_torchvisions(shift):
    given = images(3)
    given[0] = 77  # grey has no hue
    found = hue_shifted(given, torch.full((3,), shift))
    expected = functional.adjust_hue(given.float() / 255, shift).mul(255).round()
    assert (found.int() - expected.int()).abs().max() <= 1
    if shift == 0:
        assert torch.equal(found, given)
    assert bool((found[0] == 77).all())


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_is_the_identity(channels):
    given = images(20, channels)
    assert torch.equal(ContrastiveView(**NOTHING)(given, chance()), given)


def test_each_happens_as_often_as_it_says():
    given = images(2000, height=6, width=6)
    grey = ContrastiveView(**{**NOTHING, "grey_chance": 0.2})(given, chance())
    is_grey = (grey == grey[:, :1]).flatten(1).all(1).double().mean().item()
    assert abs(is_grey - 0.2) < 4 * (0.16 / 2000) ** 0.5
    still = {**NOTHING, "jitter": Jitter(brightness=0.4, contrast=0.0, saturation=0.0), "hue": 0.0}
    bright = torch.full((2000, 3, 6, 6), 100, dtype=torch.uint8)
    jittered = ContrastiveView(**{**still, "jitter_chance": 0.8})(bright, chance())
    changed = (jittered != 100).flatten(1).any(1).double().mean().item()
    assert abs(changed - 0.8 * (1 - 1 / 80)) < 4 * (0.16 / 2000) ** 0.5  # one in eighty rounds to 100
    assert jittered.min() >= 60
    assert jittered.max() <= 140
    ramp = torch.arange(6, dtype=torch.uint8).expand(2000, 3, 6, 6)
    flipped = ContrastiveView(**{**NOTHING, "flip": True})(ramp, chance())
    mirrored = (flipped[:, 0, 0, 0] > flipped[:, 0, 0, 5]).double().mean().item()
    assert abs(mirrored - 0.5) < 4 * (0.25 / 2000) ** 0.5


def test_it_is_the_same_again_and_leaves_the_images_as_they_are():
    given = images(50)
    before = given.clone()
    one, other, again = (ContrastiveView()(given, chance(seed)) for seed in (1, 2, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(given, before)
    assert one.shape == given.shape
    assert one.dtype == torch.uint8


def test_pieces_of_any_size_are_the_same(monkeypatch):
    given = images(50)
    expected = ContrastiveView()(given, chance())
    monkeypatch.setattr("longtail.data.contrastive_view.CACHED", 3 * 12 * 12 * 7)
    assert torch.equal(ContrastiveView()(given, chance()), expected)


def test_picture_files_are_seen_when_they_are_decoded(tmp_path):
    from PIL import Image

    picture = images(1, height=16, width=16)[0].permute(1, 2, 0).numpy()
    for name in ("a.png", "b.png"):
        Image.fromarray(picture).save(tmp_path / name)
    look = Pictures.model_validate({"size": 8})
    files = PictureFiles(tmp_path, ["a.png", "b.png"], look, torch.arange(2))
    seen = ContrastiveView()(files, chance())
    (batch,) = in_batches(seen, 2)
    assert batch.shape == (2, 3, 8, 8)
    assert not torch.equal(batch[0], batch[1])
    (again,) = in_batches(ContrastiveView()(files, chance()), 2)
    assert torch.equal(batch, again)
