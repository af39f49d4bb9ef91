"""Picture files in place of a tensor of images: what is seen of them, in which order."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from longtail.data.augmentation import ATTEMPTS, augment, jittered, resized_crops
from longtail.data.decode import center, square
from longtail.data.images import evaluation_batch, in_batches
from longtail.data.operations import randaugment_space
from longtail.data.picture_loader import AHEAD, Batches, PictureFiles, decoders
from longtail.errors import UserError
from longtail.own_pictures.inspection import inspect
from longtail.settings.augmentation import Augmentation, Jitter, RandAugment, ResizedCrop
from longtail.settings.data import Pictures

PLAIN = {"crop": 0, "flip": False, "autoaugment": "none", "cutout": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Forty pictures of different sizes, of which every one has a grey level of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(40):
        size = (20 + number, 60 - number)
        Image.new("RGB", size, (5 * number, 5 * number, 5 * number)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def files(folder) -> PictureFiles:
    return PictureFiles(folder, [f"{n}.png" for n in range(40)], Pictures(size=16), torch.arange(40))


def levels(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0] // 5).tolist()


def test_it_is_indexed_and_split_like_a_tensor(files):
    assert files.shape == (40, 3, 16, 16)
    chosen = torch.tensor([7, 3, 3, 39, 0])
    batches = files[chosen].split(2)
    assert [levels(batch) for batch in batches] == [[7, 3], [3, 39], [0]]
    assert [len(batch) for batch in files.split([1, 4, 2])] == [1, 4, 2]
    assert levels(files[10:13].split(3)[0]) == [10, 11, 12]
    assert levels(files[torch.arange(20, 30)][torch.tensor([1, 0])].split(2)[0]) == [21, 20]


def test_batches_out_of_their_order_are_the_same(files):
    batches = files.split(4)
    expected = [batch.clone() for batch in files.split(4)]
    for index in (5, 0, 9, 1, 2, 0, 3):
        assert torch.equal(batches[index], expected[index])
    with pytest.raises(IndexError):
        batches[10]


def test_no_more_than_a_few_batches_are_in_memory(files, monkeypatch):
    begun: list[int] = []
    original = Batches._begun
    monkeypatch.setattr(Batches, "_begun", lambda self, i: begun.append(i) or original(self, i))
    batches = files.split(2)
    for index in range(5):
        batches[index]
        assert max(begun) <= index + AHEAD
        assert len(batches._waiting) <= AHEAD
    assert sorted(begun) == sorted(set(begun))  # none twice


def test_chance_does_not_depend_on_batches_or_order(files):
    settings = Augmentation(
        **{
            **PLAIN,
            "flip": True,
            "resized_crop": {},
            "jitter": {},
            "randaugment": {},
            "autoaugment": "cifar10",
        }
    )
    whole = augment(files, settings, torch.Generator().manual_seed(3))
    expected = torch.cat(list(whole.split(40)))
    again = augment(files, settings, torch.Generator().manual_seed(3))
    for size in (1, 7):
        assert torch.equal(torch.cat(list(again.split(size))), expected)
    backwards = torch.arange(39, -1, -1)
    assert torch.equal(torch.cat(list(again[backwards].split(9))), expected[backwards])
    other = augment(files, settings, torch.Generator().manual_seed(4))
    assert not torch.equal(torch.cat(list(other.split(40))), expected)


def test_evaluation_sees_the_middle(tmp_path):
    """The side of the square is a share of the shorter side; all else is outside."""
    values = np.zeros((40, 80, 3), np.uint8)
    values[5:35, 25:55] = 200
    Image.fromarray(values).save(tmp_path / "picture.png")
    found = square(tmp_path / "picture.png", 3, 30, center(0.75))
    assert (found == 200).all()
    assert not (square(tmp_path / "picture.png", 3, 30, center(0.9)) == 200).all()


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_cropped_upright(tmp_path, orientation, suffix):
    upright = np.zeros((48, 96, 3), np.uint8)
    upright[:, :48, 0], upright[:, 48:, 2] = 200, 200
    upright[:24, :, 1] = 100
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"turned.{suffix}"
    Image.fromarray(np.ascontiguousarray(turned)).save(file, exif=exif)
    left_half = square(file, 3, 24, lambda w, h: (0, 0, w / 2, h))
    entry = inspect(str(tmp_path), file.name).entry
    assert (entry.width, entry.height) == (96, 48)
    assert left_half[12, 12].tolist()[::2] == [200, 0]
    assert left_half[2, 12, 1] == 100
    assert left_half[21, 12, 1] == 0


def test_decoding_a_jpeg_at_a_fraction_changes_little(tmp_path):
    """What is decoded at a quarter and resized is what all of it would give, but for rounding."""
    ramp = np.linspace(0, 255, 400)
    values = np.stack(
        [np.tile(ramp, (400, 1)), np.tile(ramp[:, None], (1, 400)), np.full((400, 400), 90.0)], 2
    )
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    quick = square(tmp_path / "a.jpg", 3, 50, center(1.0)).astype(int)
    slow = square(tmp_path / "a.png", 3, 50, center(1.0)).astype(int)
    assert np.abs(quick - slow).max() <= 4


def test_a_file_that_cannot_be_read_is_named(files, folder):
    broken = PictureFiles(folder, ["0.png", "gone.png"], Pictures(size=16), torch.tensor([0, 1, 0]))
    with pytest.raises(UserError, match=r"gone.png: there is no such file; check-data with these settings"):
        list(broken.split(2))


def test_random_parts_are_those_of_torchvision():
    """Area and aspect of the parts have torchvision's distribution, which is also drawn here."""
    crop = resized_crops(4000, ResizedCrop(scale=(0.1, 0.8)), torch.Generator().manual_seed(0))
    ours = torch.tensor([crop(place, 300, 200) for place in range(4000)])
    torch.manual_seed(0)
    transform = v2.RandomResizedCrop(10, scale=(0.1, 0.8))
    drawn = [transform.make_params([torch.empty(3, 200, 300)]) for _ in range(4000)]
    other = torch.tensor([[d["left"], d["top"], d["width"], d["height"]] for d in drawn])
    for column in range(4):
        one, two = ours[:, column].double(), other[:, column].double()
        spread = math.sqrt(float(one.var() + two.var()) / 4000)
        assert abs(float(one.mean() - two.mean())) < 4 * spread
        assert float(one.std()) == pytest.approx(float(two.std()), rel=0.06)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 1000))
def test_a_random_part_lies_inside_the_picture(width, height, seed):
    crop = resized_crops(1, ResizedCrop(), torch.Generator().manual_seed(seed))
    left, top, across, down = crop(0, width, height)
    assert 0 <= left <= left + across <= width
    assert 0 <= top <= top + down <= height
    assert across >= 1
    assert down >= 1
    assert ATTEMPTS == 10


def test_colour_jitter_is_torchvisions_one_after_another():
    images = torch.randint(
        0, 256, (6, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    chance = 2 * torch.rand(6, 3, generator=torch.Generator().manual_seed(1)) - 1
    settings = Jitter(brightness=0.4, contrast=0.3, saturation=0.2)
    found = jittered(images, chance, settings).float()
    for image, factors, own in zip(images, chance, found, strict=True):
        expected = image / 255
        expected = v2.functional.adjust_brightness(expected, 1 + 0.4 * float(factors[0]))
        expected = v2.functional.adjust_contrast(expected, 1 + 0.3 * float(factors[1]))
        expected = v2.functional.adjust_saturation(expected, 1 + 0.2 * float(factors[2]))
        assert (own - 255 * expected).abs().max() <= 0.51
    assert torch.equal(jittered(images, torch.zeros(6, 3), settings), images)


def test_randaugment_has_torchvisions_operations_and_uses_all():
    space = randaugment_space(9, 16, 16)
    assert [pair[0][0] for pair in space] == list(v2.RandAugment._AUGMENTATION_SPACE)
    settings = Augmentation(**PLAIN, randaugment=RandAugment(operations=1, magnitude=9))
    images = torch.randint(
        0, 256, (400, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    found = augment(images, settings, torch.Generator().manual_seed(0))
    same = (found == images).flatten(1).all(1).float().mean()
    assert 1 / 14 - 0.05 < float(same) < 4 / 14  # Identity, and operations that leave noise alone


def test_resized_crops_are_of_picture_files_only():
    with pytest.raises(UserError, match="resized_crop is for picture files"):
        augment(torch.zeros(2, 3, 8, 8).byte(), Augmentation(**PLAIN, resized_crop={}), torch.Generator())
    with pytest.raises(ValueError, match="exclude each other"):
        Augmentation(resized_crop={})


def test_batches_of_evaluation_fit_into_memory():
    assert evaluation_batch(torch.empty(5, 3, 32, 32)) == 1000
    assert evaluation_batch(torch.empty(5, 3, 224, 224)) == 83
    assert evaluation_batch(torch.empty(5, 3, 4096, 4096)) == 1
    assert [len(batch) for batch in in_batches(torch.empty(5, 3, 2, 2), [2, 3])] == [2, 3]


def test_the_number_of_threads_is_a_number(monkeypatch):
    monkeypatch.setenv("LONGTAIL_DECODERS", "3")
    assert decoders() == 3
    monkeypatch.setenv("LONGTAIL_DECODERS", "none")
    with pytest.raises(UserError, match="LONGTAIL_DECODERS=none"):
        decoders()
