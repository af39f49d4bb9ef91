"""A picture is known by its looks at any size and in any format; every pair is found."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from longtail.data.near_duplicates import joined, near_pairs
from longtail.data.perceptual_hash import BITS, FLAT, perceptual_hash, words


def scene(seed: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """A smooth random picture, as photographs are: noise of 6 x 5 pixels, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def saved(picture: Image.Image, kind: str, **options) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return Image.open(io.BytesIO(out.getvalue()))


def distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


@pytest.mark.parametrize("seed", range(8))
def test_copies_of_other_size_format_quality_and_brightness_are_near(seed):
    own = scene(seed)
    first = perceptual_hash(own)
    width, height = own.size
    cut = (round(0.025 * width), round(0.025 * height), round(0.975 * width), round(0.975 * height))
    copies = [
        own.resize((120, 90), Image.Resampling.LANCZOS),
        own.resize((960, 720), Image.Resampling.BICUBIC),
        saved(own, "JPEG", quality=40),
        saved(own, "WEBP", quality=60),
        own.convert("L"),
        own.point(lambda value: int(20 + value * 0.8)),
        own.crop(cut),
    ]
    assert max(distance(first, perceptual_hash(copy)) for copy in copies) <= 24


def test_different_pictures_are_far_apart():
    hashes = [perceptual_hash(scene(seed)) for seed in range(40)]
    assert min(distance(a, b) for n, a in enumerate(hashes) for b in hashes[:n]) > 48
    assert near_pairs(hashes, 24)[0].shape == (0, 2)


def test_a_hash_of_a_gradient_is_what_the_definition_says():
    """Brighter from left to right everywhere, and the same from top to bottom."""
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (64, 1)))
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(perceptual_hash(ramp)), np.uint8))
    assert len(bits) == BITS
    assert bits[:64].all()
    assert not bits[64:128].any()


def test_the_frequencies_are_those_of_scipy():
    from scipy.fft import dctn

    grey = scene(3, (64, 64)).convert("L")
    seen = np.asarray(grey.convert("F").resize((32, 32), Image.Resampling.BILINEAR))
    low = dctn(seen.astype(np.float64), norm="ortho")[:8, :8].ravel()
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(perceptual_hash(grey)), np.uint8))[128:]
    assert (bits == (low > np.median(low[1:]))).mean() > 0.98  # a tie with the median may fall either way


@pytest.mark.parametrize("colour", ["white", "black", (12, 200, 90)])
def test_a_picture_that_shows_nothing_has_no_hash(colour):
    assert perceptual_hash(Image.new("RGB", (50, 40), colour)) == FLAT


def test_very_small_and_very_long_pictures_have_a_hash():
    for size in [(1, 1), (2, 300), (3000, 40)]:
        assert perceptual_hash(scene(1, size)) == FLAT or len(perceptual_hash(scene(1, size))) == BITS // 4


@given(
    st.lists(st.integers(0, 2**BITS - 1), min_size=0, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, BITS - 1), max_size=30)), max_size=12),
    st.integers(0, 40),
)
def test_pairs_are_those_of_comparing_each_with_each(own, changes, most):
    hashes = [f"{number:048x}" for number in own]
    for place, bits in changes:
        if place < len(own):
            hashes.append(f"{own[place] ^ sum(1 << bit for bit in bits):048x}")
    expected = [
        (one, other, distance(hashes[one], hashes[other]))
        for one in range(len(hashes))
        for other in range(one + 1, len(hashes))
        if distance(hashes[one], hashes[other]) <= most
    ]
    pairs, bits = near_pairs(hashes, most)
    assert [
        (*pair, differing) for pair, differing in zip(pairs.tolist(), bits.tolist(), strict=True)
    ] == expected


def test_no_pair_is_missed_between_blocks_of_rows_and_columns():
    random = np.random.default_rng(0)
    raw = random.integers(0, 256, (4200, 24), dtype=np.uint8)
    for one, other in [(0, 4199), (63, 64), (2047, 2048), (100, 3000)]:
        raw[other] = raw[one]
        raw[other, 3] ^= 0b1010
    pairs, bits = near_pairs([row.tobytes().hex() for row in raw], 24)
    assert pairs.tolist() == [[0, 4199], [63, 64], [100, 3000], [2047, 2048]]
    assert bits.tolist() == [2] * 4


@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_groups_are_the_connected_components(count, given_pairs):
    pairs = [(a % count, b % count) for a, b in given_pairs]
    groups = {number: {number} for number in range(count)}
    for one, other in pairs:
        both = groups[one] | groups[other]
        for number in both:
            groups[number] = both
    found = joined(count, np.array(pairs, dtype=np.int64).reshape(-1, 2))
    assert found.tolist() == [min(groups[number]) for number in range(count)]


def test_words_are_the_bits_in_their_order():
    assert words(["00000000000000010000000000000002ffffffffffffffff"]).tolist() == [[1, 2, 2**64 - 1]]
