"""One loss for four rows of the tables: cross-entropy, logit adjustment, Balanced Softmax, GraLoss."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longtail.settings.schedules import Constant, Power
from longtail.stage_one.losses.logit_adjusted import LogitAdjustedLoss, Settings, build


def literal(logits: Tensor, labels: Tensor, counts: Tensor, gamma: float) -> Tensor:
    """GLAG eq. 3 as printed: -log( exp(f_y + gamma log pi_y) / sum_c exp(f_c + gamma log pi_c) )."""
    total = sum(counts.tolist())
    losses = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        terms = [torch.exp(row[c] + gamma * math.log(n / total)) for c, n in enumerate(counts.tolist())]
        losses.append(-torch.log(terms[label] / torch.stack(terms).sum()))
    return torch.stack(losses).mean()


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, C) in float64, labels (B,), training images per class (C,)."""
    classes, size = draw(st.integers(2, 12)), draw(st.integers(1, 8))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    counts = torch.tensor(draw(st.lists(st.integers(1, 5000), min_size=classes, max_size=classes)))
    logits = 4 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (size,), generator=generator), counts


def loss_of(counts: Tensor, gamma: dict[str, object]) -> LogitAdjustedLoss:
    return build(Settings.model_validate({"gamma": gamma}), counts).double()


@settings(deadline=None)
@given(batch=batches(), progress=st.floats(0, 1), a=st.floats(0, 2), b=st.floats(0.25, 4))
def test_value_and_gradient_are_those_of_the_printed_equation(batch, progress, a, b):
    logits, labels, counts = batch
    fast, slow = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = loss_of(counts, {"form": "power", "a": a, "b": b})
    loss.log_prior = (counts.double() / counts.sum()).log()  # the module keeps it in float32
    value = loss(fast, labels, torch.tensor(progress, dtype=torch.float64))
    expected = literal(slow, labels, counts, a * progress**b)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*torch.autograd.grad(value, fast), *torch.autograd.grad(expected, slow))


@settings(deadline=None)
@given(batch=batches(), progress=st.floats(0, 1))
def test_a_strength_of_zero_is_cross_entropy_exactly(batch, progress):
    logits, labels, counts = batch
    loss = loss_of(counts, {"form": "constant", "a": 0})
    assert torch.equal(loss(logits, labels, torch.tensor(progress)), F.cross_entropy(logits, labels))


@settings(deadline=None)
@given(batch=batches(), tau=st.floats(0, 3))
def test_a_constant_strength_is_logit_adjustment_at_any_time(batch, tau):
    logits, labels, counts = batch
    loss = loss_of(counts, {"form": "constant", "a": tau})
    early, late = (loss(logits, labels, torch.tensor(t, dtype=torch.float64)) for t in (0.0, 1.0))
    assert torch.equal(early, late)
    torch.testing.assert_close(early, F.cross_entropy(logits + tau * loss.log_prior, labels))


@settings(deadline=None)
@given(batch=batches())
def test_a_strength_of_one_is_balanced_softmax(batch):
    logits, labels, counts = batch
    weighted = counts * logits.exp()  # Ren et al. 2020, eq. 4
    expected = -(weighted.gather(1, labels[:, None])[:, 0] / weighted.sum(1)).log().mean()
    loss = loss_of(counts, {"form": "constant", "a": 1})
    torch.testing.assert_close(loss(logits, labels, torch.tensor(0.3)), expected, rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(batch=batches(), times=st.integers(2, 50))
def test_a_constant_shift_of_all_log_priors_changes_nothing(batch, times):
    logits, labels, counts = batch
    loss, shifted = (loss_of(n, {"form": "constant", "a": 1}) for n in (counts, counts))
    shifted.log_prior = loss.log_prior + math.log(times)
    now = torch.tensor(1.0)
    torch.testing.assert_close(loss(logits, labels, now), shifted(logits, labels, now))


def test_the_shift_makes_rare_classes_harder_so_that_the_network_favours_them():
    counts, logits = torch.tensor([99, 1]), torch.zeros(1, 2)
    rare, frequent = torch.tensor([1]), torch.tensor([0])
    loss = build(Settings(gamma=Constant(a=1)), counts)
    assert loss(logits, rare, torch.tensor(1.0)) > loss(logits, frequent, torch.tensor(1.0))
    torch.testing.assert_close(loss(logits, rare, torch.tensor(1.0)), torch.tensor(-math.log(0.01)))


@settings(deadline=None)
@given(batch=batches(), share=st.floats(0, 1))
def test_a_pair_of_equal_labels_is_one_label(batch, share):
    logits, labels, counts = batch
    loss, now = loss_of(counts, {"a": 1}), torch.tensor(0.5)
    weight = torch.full((len(labels),), share, dtype=torch.float64)
    pair = loss(logits, labels, now, weight) + loss(logits, labels, now, 1 - weight)
    torch.testing.assert_close(pair, loss(logits, labels, now))


def test_the_default_is_graloss_convex_from_nought_to_one():
    assert Settings().gamma == Power(a=1, b=2)
    loss = build(Settings(), torch.tensor([5, 1]))
    assert [float(loss.curves(torch.tensor(t))["gamma"]) for t in (0.0, 0.5, 1.0)] == [0, 0.25, 1]


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match=r"classes \[1, 3\] have no training image"):
        build(Settings(), torch.tensor([4, 0, 2, 0]))
