"""Random numbers are a function of what they are for."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from longtail.random import Normals, generator

KEYS = st.lists(st.one_of(st.integers(), st.text(max_size=6)), min_size=1, max_size=4)


@given(key=KEYS)
def test_equal_keys_draw_equal_numbers(key):
    assert torch.equal(*(torch.rand(4, generator=generator(*key)) for _ in range(2)))


def test_parts_of_a_key_keep_their_borders_and_types():
    keys = [("a", 1), ("a", "1"), ("a1",), (1, "a"), ("a", 1, 0), ('a", 1',), ("a", 11), (11, "a")]
    draws = {tuple(torch.rand(4, generator=generator(*key)).tolist()) for key in keys}
    assert len(draws) == len(keys)


def test_seeds_purposes_and_epochs_have_streams_of_their_own():
    keys = itertools.product(range(5), ("augment", "order", "head"), range(100))
    assert len({generator(*key).initial_seed() for key in keys}) == 1500


def test_the_stream_of_a_key_is_the_same_on_every_machine():
    drawn = torch.randint(2**31, (3,), generator=generator(0, "augment", 1))
    assert drawn.tolist() == [456818146, 1031693964, 1091228580]


def test_numbers_are_drawn_on_the_cpu_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    made = generator(0)
    torch.rand(3, generator=made)
    assert made.device.type == "cpu"
    assert torch.equal(torch.get_rng_state(), before)


def test_an_empty_key_is_refused():
    with pytest.raises(ValueError, match="needs a key"):
        generator()


def normals(*key, stock=1 << 20):
    return Normals(generator(*key), torch.device("cpu"), stock)


def test_normals_are_normal_into_the_tails_and_independent():
    count = 1 << 22
    drawn = normals(0, "normals")(count, 1).flatten().numpy()
    exact = drawn.astype(np.float64)
    for power, (moment, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert abs((exact**power).mean() - moment) < 4 * (variance / count) ** 0.5
    assert kstest(exact[: 1 << 21], "norm").pvalue > 1e-3
    for edge in (3, 4, 5):
        expected = 2 * norm.sf(edge) * count
        assert abs((np.abs(drawn) > edge).sum() - expected) < 4 * expected**0.5
    block = 2 * Normals._PAIRS  # the halves of a block are the two normals of the same pairs
    for lag in (1, 2, block // 2, block):
        assert abs((exact[:-lag] * exact[lag:]).mean()) < 4 * count**-0.5
        assert abs((exact[:-lag] ** 2 * exact[lag:] ** 2).mean() - 1) < 4 * (8 / count) ** 0.5


def test_extreme_bits_give_finite_normals():
    stream = normals(0, stock=8)
    words = np.array([[0, 0], [-(2**31), -(2**31)], [2**31 - 1, 2**31 - 1], [-1, -1]], np.int32)
    stream._bits = SimpleNamespace(random_raw=lambda pairs: words.T.copy().view(np.uint64).ravel())
    drawn = stream(8, 1)
    assert bool(drawn.isfinite().all())
    radius = (drawn[:4] ** 2 + drawn[4:] ** 2).sqrt().flatten()
    assert radius[0] == pytest.approx(np.sqrt(2 * 32 * np.log(2)))  # 6.66, the longest tail


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (0, 4), (700, 1), (33, 64)])
def test_equal_keys_draw_equal_normals_and_what_comes_next_is_another(shape):
    one, two = (normals(1, stock=256) for _ in range(2))
    for _ in range(3):
        assert torch.equal(one(*shape), two(*shape))
    drawn = [one(*shape) for _ in range(2)]
    assert drawn[0].shape == shape
    assert drawn[0].numel() == 0 or not torch.equal(*drawn)


def test_normals_stay_when_further_ones_are_drawn():
    stream = normals(2, stock=64)
    first = stream(5, 4)
    kept = first.clone()
    for _ in range(20):
        stream(5, 4)
    assert torch.equal(first, kept)


def test_streams_of_one_generator_are_unrelated_and_its_own_numbers_go_on():
    random = generator(3)
    drawn = [Normals(random, torch.device("cpu"))(1000, 1) for _ in range(2)]
    assert abs(float((drawn[0] * drawn[1]).mean())) < 0.15
    assert not torch.equal(torch.rand(3, generator=random), torch.rand(3, generator=generator(3)))


def test_normals_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    drawn = []
    for number in (1, 2):
        torch.set_num_threads(number)
        drawn.append(normals(4)(1000, 100))
    torch.set_num_threads(threads)
    assert torch.equal(*drawn)
