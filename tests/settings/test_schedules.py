"""How gamma(t) and the learning rate move."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from longtail.settings.schedules import Constant, Cosine, Exponential, Gamma, LearningRate, Length, Power

GROWING = [
    Power(a=1.0, b=0.5),
    Power(a=1.0, b=1.0),
    Power(a=1.0, b=2.0),
    Exponential(form="exponential", b=3.0),
    Exponential(form="exponential", b=-3.0),
    Exponential(form="exponential", b=0.0),
    Cosine(form="cosine"),
]
TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize("gamma", GROWING)
def test_gamma_rises_from_nought_to_one(gamma):
    values = gamma(TIMES)
    assert float(values[0]) == 0
    assert float(values[-1]) == pytest.approx(1, abs=1e-12)
    assert (values.diff() > 0).all()


@pytest.mark.parametrize(
    ("gamma", "bend"),
    [
        (Power(b=0.5), -1),
        (Power(b=2.0), 1),
        (Exponential(form="exponential", b=2.0), 1),
        (Exponential(form="exponential", b=-2.0), -1),
        (Cosine(form="cosine"), 1),
    ],
)
def test_gamma_is_convex_or_concave_as_its_form_says(gamma, bend):
    assert (gamma(TIMES).diff().diff() * bend > 0).all()


@pytest.mark.parametrize("gamma", [Power(b=1.0), Exponential(form="exponential", b=0.0)])
def test_gamma_is_linear_between_convex_and_concave(gamma):
    torch.testing.assert_close(gamma(TIMES), TIMES)


@given(tau=st.floats(0, 3), progress=st.floats(0, 1))
def test_a_constant_gamma_stays(tau, progress):
    assert float(Constant(a=tau)(torch.tensor(progress, dtype=torch.float64))) == tau


@given(a=st.floats(0, 3), progress=st.floats(0, 1))
def test_a_scales_every_form(a, progress):
    now = torch.tensor(progress, dtype=torch.float64)
    for unit in GROWING:
        torch.testing.assert_close(unit.model_copy(update={"a": a})(now), a * unit(now))


def test_a_gamma_without_a_form_is_a_power():
    read = TypeAdapter(Gamma).validate_python
    assert read({"a": 1.0, "b": 3.0}) == Power(b=3.0)
    assert read({"form": "constant", "a": 1.5}) == Constant(a=1.5)
    with pytest.raises(ValidationError):
        read({"form": "constant", "a": 1.0, "b": 2.0})


def test_a_phase_has_epochs_or_iterations_not_both():
    assert Length(epochs=200).steps(85) == 17_000
    assert Length(iterations=13_000).steps(85) == 13_000
    for wrong in ({}, {"epochs": 1, "iterations": 1}):
        with pytest.raises(ValidationError, match="one of the two"):
            Length(**wrong)


def test_warm_up_is_linear_and_ends_at_the_peak():
    rate, length = LearningRate(peak=0.1, warmup=5), Length(epochs=200)
    warm = [rate.at(step, length, 10) for step in range(50)]
    assert warm == pytest.approx([0.1 * (step + 1) / 50 for step in range(50)])
    assert rate.at(50, length, 10) == pytest.approx(0.1)


@given(
    epochs=st.integers(2, 300), steps=st.integers(1, 100), warmup=st.integers(0, 1), peak=st.floats(1e-4, 1)
)
def test_the_cosine_falls_from_peak_to_nought(epochs, steps, warmup, peak):
    rate, length = LearningRate(peak=peak, warmup=warmup), Length(epochs=epochs)
    first, total = warmup * steps, epochs * steps
    values = [rate.at(step, length, steps) for step in range(first, total)]
    assert values[0] == pytest.approx(peak)
    assert all(a > b for a, b in itertools.pairwise(values))
    assert rate.at(total, length, steps) == pytest.approx(0, abs=1e-12)
    if (total - first) % 2 == 0:
        assert rate.at((first + total) // 2, length, steps) == pytest.approx(peak / 2)


def test_ldam_s_steps_fall_at_their_epochs():
    decay = {"form": "step", "at": [160, 180], "factors": [0.01, 0.0001]}
    rate = LearningRate.model_validate({"peak": 0.1, "warmup": 5, "decay": decay})
    length = Length(epochs=200)
    at = [rate.at(epoch * 85, length, 85) for epoch in (5, 159, 160, 179, 180, 199)]
    assert at == pytest.approx([0.1, 0.1, 0.001, 0.001, 0.00001, 0.00001])


def test_iterations_measure_warm_up_and_milestones_in_iterations():
    decay = {"form": "step", "at": [50], "factors": [0.1]}
    rate = LearningRate.model_validate({"peak": 1.0, "warmup": 10, "decay": decay})
    length = Length(iterations=100)
    assert [rate.at(step, length, 7) for step in (0, 9, 10, 49, 50)] == pytest.approx([0.1, 1, 1, 1, 0.1])
    assert math.isclose(LearningRate(peak=1.0).at(50, length, 7), 0.5)


def test_a_step_decay_needs_a_factor_a_milestone_in_order():
    for at, factors in (([1, 2], [0.1]), ([2, 1], [0.1, 0.01])):
        with pytest.raises(ValidationError, match="one factor a milestone"):
            LearningRate.model_validate(
                {"peak": 1.0, "decay": {"form": "step", "at": at, "factors": factors}}
            )
