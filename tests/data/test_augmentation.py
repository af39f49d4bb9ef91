"""The augmentation of Balanced Meta-Softmax, held against torchvision image by image."""

from collections import Counter
from itertools import product

import pytest
import torch
import torchvision.transforms.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.v2 import functional as v2

from longtail.data import augmentation, operations
from longtail.data.augmentation import Draws, apply, augment, crop_and_flip, draw
from longtail.data.device_operations import WITHOUT_WAITING
from longtail.data.normalisation import normalise
from longtail.data.operations import operate
from longtail.errors import UserError
from longtail.settings.augmentation import Augmentation

OFF = Augmentation(crop=0, flip=False, autoaugment="none", cutout=0)
FILL = 128
OPERATIONS = augmentation.cifar10_policy(32, 32).operations
# torchvision has two sets of kernels. Ours are those that work on batches (v2); a single image is held
# against the older ones, which scale and truncate in another order where the result is no whole number.
WITHIN_ONE_LEVEL = {"AutoContrast", "Color", "Sharpness"}


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def short(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def pictures(channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    """Noise, gradients, narrow ranges and flat images: what contrast and histograms may stumble over."""
    size, generator = (channels, height, width), random(1)
    ramp = torch.linspace(0, 255, height * width).view(1, height, width).expand(size)
    noise = [torch.randint(0, 256, size, generator=generator) for _ in range(24)]
    narrow = [torch.randint(low, low + 12, size, generator=generator) for low in (0, 90, 243)]
    flat = [torch.full(size, level) for level in (0, 1, 127, 255)]
    spike = torch.zeros(size)
    spike[:, height // 2, width // 3] = 255
    return torch.stack([image.byte() for image in (*noise, ramp, ramp.flip(-1), *narrow, *flat, spike)])


def only(**on: object) -> Augmentation:
    return Augmentation.model_validate({**OFF.model_dump(), **on})


def test_policy_is_the_published_one():
    """Cubuk et al., appendix: 25 sub-policies of two operations, magnitudes in ten steps."""
    policy = augmentation.cifar10_policy(32, 32)
    torchvision = AutoAugment(AutoAugmentPolicy.CIFAR10)
    space = torchvision._augmentation_space(10, (32, 32))
    assert policy.number.shape == (25, 2, 2)
    for s, pair in enumerate(torchvision.policies):
        for i, (name, probability, step) in enumerate(pair):
            magnitudes, signed = space[name]
            magnitude = 0.0 if step is None else magnitudes[step].item()
            negative, positive = (policy.operations[n] for n in policy.number[s, i].tolist())
            assert positive == (name, magnitude)
            assert negative == (name, -magnitude if signed else magnitude)
            assert policy.probability[s, i].item() == pytest.approx(probability)


def drawn_of(draws):
    """What was drawn by name, without what the settings do not ask for."""
    return {name: value for name, value in vars(draws).items() if value is not None}


@pytest.mark.parametrize(
    ("operation", "amount"),
    [("Rotate", 30 * 2 / 9), ("TranslateX", 32 * 150 / 331), ("ShearY", 0.3 * 8 / 9), ("Sharpness", 0.9)],
)
def test_magnitudes_are_those_of_the_paper(operation, amount):
    assert max(m for name, m in OPERATIONS if name == operation) == pytest.approx(amount)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "magnitude"), OPERATIONS, ids=short)
def test_an_operation_on_a_batch_is_torchvisions_on_each_image(name, magnitude, channels):
    images = pictures(channels)
    fill = [float(FILL)] * channels
    expected = torch.stack(
        [_apply_op(image, name, magnitude, InterpolationMode.NEAREST, fill) for image in images]
    )
    difference = (operate(images, name, magnitude, FILL).int() - expected.int()).abs()
    assert difference.max() <= (name in WITHIN_ONE_LEVEL)


@pytest.mark.parametrize(("name", "magnitude"), OPERATIONS, ids=short)
def test_an_operation_does_not_touch_its_input(name, magnitude):
    images = pictures()
    before = images.clone()
    operate(images, name, magnitude, FILL)
    assert torch.equal(images, before)


def test_an_unknown_operation_is_an_error():
    with pytest.raises(ValueError, match="'Twirl' is no operation"):
        operate(pictures(), "Twirl", 1.0, FILL)


@pytest.mark.parametrize("padding", [1, 4])
@pytest.mark.parametrize("size", [(32, 32), (7, 9)])
def test_crop_is_torchvisions_at_every_offset(padding, size):
    offsets = list(product(range(2 * padding + 1), repeat=2))
    images = torch.randint(1, 256, (len(offsets), 3, *size), generator=random(2), dtype=torch.uint8)
    top, left = torch.tensor(offsets).unbind(1)
    cropped = crop_and_flip(images, top, left, torch.zeros(len(offsets), dtype=torch.bool), padding)
    for image, (y, x), result in zip(images, offsets, cropped, strict=True):
        assert torch.equal(result, tv.crop(tv.pad(image, [padding]), y, x, *size))


def test_a_flip_mirrors_left_and_right_after_the_crop():
    images = pictures()
    count = len(images)
    top, left = torch.randint(9, (2, count), generator=random(3)).unbind()
    flipped = torch.arange(count) % 2 == 0
    plain = crop_and_flip(images, top, left, torch.zeros_like(flipped), 4)
    mirrored = crop_and_flip(images, top, left, flipped, 4)
    for i in range(count):
        assert torch.equal(mirrored[i], tv.hflip(plain[i]) if flipped[i] else plain[i])


def literal_cutout(image: Tensor, y: int, x: int, side: int) -> Tensor:
    """The public code of Cutout (DeVries and Taylor 2017), which knows even sides only."""
    height, width = image.shape[-2:]
    y1, y2 = max(y - side // 2, 0), min(y + side // 2, height)
    x1, x2 = max(x - side // 2, 0), min(x + side // 2, width)
    image = image.clone()
    image[:, y1:y2, x1:x2] = 0
    return image


@pytest.mark.parametrize(("size", "side"), [((32, 32), 16), ((8, 8), 4), ((9, 13), 6), ((5, 5), 20)])
def test_cutout_is_the_public_codes_at_every_centre(size, side):
    centres = list(product(range(size[0]), range(size[1])))
    images = torch.randint(1, 256, (len(centres), 3, *size), generator=random(4), dtype=torch.uint8)
    draws = draw(len(images), size, OFF, random(5))
    draws = Draws(**{**vars(draws), "hole": torch.tensor(centres)})
    for image, centre, result in zip(images, centres, apply(images, draws, only(cutout=side)), strict=True):
        assert torch.equal(result, literal_cutout(image, *centre, side))


@pytest.mark.parametrize("side", [1, 2, 5, 16])
def test_a_hole_away_from_the_border_has_its_side(side):
    draws = draw(1, (33, 33), OFF, random(6))
    draws = Draws(**{**vars(draws), "hole": torch.tensor([[16, 16]])})
    holed = apply(torch.full((1, 1, 33, 33), 7, dtype=torch.uint8), draws, only(cutout=side))
    assert (holed == 0).sum() == side**2


def one_by_one(images: Tensor, draws: Draws, chain: Augmentation) -> Tensor:
    """The chain written out for one image after the other."""
    results = []
    policies = AutoAugment(AutoAugmentPolicy.CIFAR10).policies
    space = AutoAugment()._augmentation_space(10, images.shape[-2:])
    for n, image in enumerate(images):
        y, x = draws.top[n].item(), draws.left[n].item()
        image = tv.crop(tv.pad(image, [chain.crop]), y, x, *image.shape[-2:])
        image = tv.hflip(image) if draws.flip[n] else image
        for i, (name, probability, step) in enumerate(policies[draws.policy[n]]):
            if draws.chance[n, i] < probability:
                magnitudes, signed = space[name]
                magnitude = 0.0 if step is None else magnitudes[step].item()
                magnitude = -magnitude if signed and not draws.positive[n, i] else magnitude
                image = operate(image[None], name, magnitude, chain.fill)[0]
        results.append(literal_cutout(image, *draws.hole[n].tolist(), chain.cutout))
    return torch.stack(results)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 8, 12)])
def test_the_chain_on_a_batch_is_the_chain_on_each_image(shape):
    images = torch.randint(0, 256, (300, *shape), generator=random(7), dtype=torch.uint8)
    chain = Augmentation(cutout=6)
    draws = draw(len(images), shape[1:], chain, random(8))
    assert torch.equal(apply(images, draws, chain), one_by_one(images, draws, chain))


def test_chunks_change_no_result(monkeypatch):
    images = torch.randint(0, 256, (100, 3, 16, 16), generator=random(9), dtype=torch.uint8)
    whole = augment(images, Augmentation(), random(10))
    monkeypatch.setattr(augmentation, "CHUNK_BYTES", 7 * 3 * 16 * 16)
    assert torch.equal(augment(images, Augmentation(), random(10)), whole)


COUNT = 50_000


@pytest.fixture(scope="module")
def many() -> Draws:
    return draw(COUNT, (32, 24), Augmentation(), random(11))


@pytest.mark.parametrize(
    ("name", "values"), [("policy", 25), ("top", 9), ("left", 9), ("flip", 2), ("hole_y", 32), ("hole_x", 24)]
)
def test_draws_are_uniform(many, name, values):
    """Offsets of a 4-pixel border in 0 ... 8, the centre of the hole anywhere in the 32 x 24 image."""
    drawn = {"hole_y": many.hole[:, 0], "hole_x": many.hole[:, 1], **vars(many)}[name]
    counts = drawn.long().bincount()
    assert len(counts) == values
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_draws_of_an_image_are_independent_of_each_other(many):
    columns = [value.double().view(COUNT, -1) for value in drawn_of(many).values()]
    correlation = torch.corrcoef(torch.cat(columns, dim=1).T)
    correlation.fill_diagonal_(0)
    assert correlation.abs().max() < 5 / COUNT**0.5


def test_draws_of_neighbouring_images_are_independent(many):
    for column in torch.cat([value.double().view(COUNT, -1) for value in drawn_of(many).values()], dim=1).T:
        assert torch.corrcoef(torch.stack([column[1:], column[:-1]]))[0, 1].abs() < 5 / COUNT**0.5


def test_each_operation_meets_the_share_of_images_that_the_policy_says(many, monkeypatch):
    met: Counter[tuple[str, float]] = Counter()

    def count(images: Tensor, name: str, magnitude: float, fill: int) -> Tensor:
        met[name, magnitude] += len(images)
        return images

    monkeypatch.setattr(operations, "operate", count)
    apply(torch.zeros(COUNT, 1, 32, 32, dtype=torch.uint8), many, only(autoaugment="cifar10"))
    expected: Counter[tuple[str, float]] = Counter()
    space = AutoAugment()._augmentation_space(10, (32, 32))
    for pair in AutoAugment(AutoAugmentPolicy.CIFAR10).policies:
        for name, probability, step in pair:
            magnitudes, signed = space[name]
            magnitude = 0.0 if step is None else magnitudes[step].item()
            for sign in (-1, 1):
                expected[name, sign * magnitude if signed else magnitude] += probability / 50
    for operation, share in expected.items():
        assert abs(met[operation] / COUNT - share) < 5 * (share / COUNT) ** 0.5
    assert met.total() / COUNT == pytest.approx(sum(expected.values()), abs=0.02)


def test_an_operation_of_probability_zero_never_happens():
    """Sub-policy 14 inverts with probability 0; a chance of exactly 0 must not let it."""
    images, draws = pictures(), draw(34, (32, 32), OFF, random(12))
    fixed = {"policy": torch.full((34,), 14), "chance": torch.tensor([[0.99, 0.0]]).expand(34, 2)}
    assert torch.equal(apply(images, Draws(**{**vars(draws), **fixed}), only(autoaugment="cifar10")), images)


def test_what_is_off_shifts_no_other_number():
    """So that two recipes differ in what they do, not in what chance does."""
    all_on, cutout_off = (draw(50, (32, 32), s, random(13)) for s in (Augmentation(), Augmentation(cutout=0)))
    assert all(
        torch.equal(a, b)
        for a, b in zip(drawn_of(all_on).values(), drawn_of(cutout_off).values(), strict=True)
    )


def test_the_generator_decides_everything():
    images = pictures()
    torch.manual_seed(0)
    first = augment(images, Augmentation(), random(14))
    torch.manual_seed(1)
    assert torch.equal(augment(images, Augmentation(), random(14)), first)
    assert not torch.equal(augment(images, Augmentation(), random(15)), first)


def test_all_off_is_the_identity_and_a_copy():
    images = pictures()
    same = augment(images, OFF, random(16))
    assert torch.equal(same, images)
    assert same.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("crop", [0, 4])
def test_without_flip_no_image_is_mirrored_and_with_it_half_are(crop):
    ramp = torch.arange(20, 52, dtype=torch.uint8).expand(2000, 1, 32, 32)
    for flip, share in ((False, 0.0), (True, 0.5)):
        middle = augment(ramp, only(crop=crop, flip=flip), random(22))[:, 0, 16]
        mirrored = (middle[:, 15] > middle[:, 16]).float().mean()
        assert mirrored == pytest.approx(share, abs=0.06 if flip else 0)


chains = st.builds(
    Augmentation,
    crop=st.integers(0, 5),
    flip=st.booleans(),
    autoaugment=st.sampled_from(["none", "cifar10"]),
    fill=st.integers(0, 255),
    cutout=st.integers(0, 20),
)


@settings(deadline=None)
@given(
    chain=chains,
    count=st.integers(0, 6),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_shape_and_dtype_stay_and_the_input_is_untouched(chain, count, channels, height, width, seed):
    images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)
    before = images.clone()
    result = augment(images, chain, random(seed))
    assert (result.shape, result.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)


def test_the_memory_layout_of_the_images_does_not_matter():
    images = pictures()
    strided = images.contiguous(memory_format=torch.channels_last)
    expected = augment(images, Augmentation(), random(17))
    assert torch.equal(augment(strided, Augmentation(), random(17)), expected)


def test_other_numbers_of_channels_are_refused_in_one_line_by_autoaugment_only():
    images = torch.zeros(2, 4, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"autoaugment: .* have 4 channels; set autoaugment: none"):
        augment(images, Augmentation(), random(18))
    assert augment(images, Augmentation(autoaugment="none"), random(18)).shape == images.shape


def test_images_that_are_not_uint8_are_an_error():
    with pytest.raises(TypeError, match="float32"):
        augment(torch.zeros(2, 3, 8, 8), Augmentation(), random(19))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("AutoContrast", lambda images, _: v2.autocontrast(images)),
        ("Equalize", lambda images, _: v2.equalize(images)),
        ("Sharpness", lambda images, magnitude: v2.adjust_sharpness(images, 1 + magnitude)),
    ],
)
def test_operations_that_wait_for_nothing_are_torchvision_s_to_the_bit(name, theirs, channels):
    levels = torch.tensor([1, 2, 5, 256]).repeat_interleave(50)[:, None, None, None]  # flat images too
    drawn = torch.randint(0, 1 << 30, (200, channels, 12, 12), generator=random(22)) % levels
    images = (drawn * 7 % 256).to(torch.uint8)
    images[::3] = images[::3] // 2 + 90
    for size in (12, 2, 1):
        some = images[:, :, :size, :size].contiguous()
        for magnitude in (-0.9, 0.0, 0.7):
            assert torch.equal(WITHOUT_WAITING[name](some, magnitude), theirs(some, magnitude))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_does_what_the_cpu_does():
    images = torch.randint(0, 256, (500, 3, 32, 32), generator=random(20), dtype=torch.uint8)
    on_gpu = augment(images.cuda(), Augmentation(), random(21))
    assert on_gpu.device.type == "cuda"
    # Equal but for roundings, which a following equalisation may widen in a few images.
    same = (on_gpu.cpu() == augment(images, Augmentation(), random(21))).float().mean()
    assert same > 0.99


MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.286,), (0.353,))])
def test_normalise_is_to_tensor_and_normalize(mean, std):
    images = pictures(channels=len(mean))
    expected = tv.normalize(images / 255, mean, std)
    result = normalise(images, mean, std)
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-6)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_normalise_makes_the_mean_zero_and_a_deviation_one():
    levels = torch.tensor([[MEAN, tuple(m + s for m, s in zip(MEAN, STD, strict=True))]]) * 255
    images = levels.round().byte().view(2, 3, 1, 1)
    result = normalise(images, MEAN, STD).flatten(1)
    torch.testing.assert_close(result, torch.tensor([[0.0] * 3, [1.0] * 3]), rtol=0, atol=0.01)


def test_normalise_takes_a_batch_of_none_and_of_one():
    for count in (0, 1):
        images = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
        assert normalise(images, MEAN, STD).shape == images.shape
