"""Random numbers are a function of what they are for."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtail.random import generator

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
