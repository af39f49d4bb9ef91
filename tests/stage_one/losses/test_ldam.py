"""LDAM and LDAM-DRW."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longtail.stage_one.losses.effective_number import class_weights
from longtail.stage_one.losses.ldam import ReweightSettings, Settings, build

from .test_logit_adjusted import batches

DRW = ReweightSettings()


def literal(logits: Tensor, labels: Tensor, counts: Tensor, options: Settings, late: bool) -> Tensor:
    """-log e^(s (cos_y - m_y)) / (e^(s (cos_y - m_y)) + sum_{c != y} e^(s cos_c)), weighted mean."""
    raw = [n**-0.25 for n in counts.tolist()]
    s, total, divisor = options.scale, torch.zeros((), dtype=torch.float64), 0.0
    weights = class_weights(counts, options.reweight.beta) if late else torch.ones(len(counts))
    for row, label in zip(logits / s, labels.tolist(), strict=True):
        margin = options.max_margin * raw[label] / max(raw)
        own = (s * (row[label] - margin)).exp()
        others = sum((s * row[c]).exp() for c in range(len(row)) if c != label)
        weight = float(weights[label])
        total = total - weight * (own / (own + others)).log()
        divisor += weight
    return total / divisor


@settings(deadline=None)
@given(
    batch=batches(),
    scale=st.sampled_from([1.0, 16.0, 30.0]),
    max_margin=st.sampled_from([0.0, 0.1, 0.5]),
    reweight=st.sampled_from([None, DRW]),
    progress=st.sampled_from([0.0, 0.79, 0.8, 0.99]),
)
def test_value_and_gradient_are_those_of_the_printed_equation(batch, scale, max_margin, reweight, progress):
    logits, labels, counts = batch
    options = Settings(scale=scale, max_margin=max_margin, reweight=reweight)
    fast, slow = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = build(options, counts)(fast, labels, torch.tensor(progress))
    expected = literal(slow, labels, counts, options, reweight is not None and progress >= 0.8)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)  # margins and weights are float32
    gradients = (*torch.autograd.grad(value, fast), *torch.autograd.grad(expected, slow))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(batch=batches(), reweight=st.sampled_from([None, DRW]))
def test_without_a_margin_and_without_weights_it_is_cross_entropy(batch, reweight):
    logits, labels, counts = batch
    loss = build(Settings(max_margin=0, reweight=reweight), counts)
    torch.testing.assert_close(loss(logits, labels, torch.tensor(0.5)), F.cross_entropy(logits, labels))


def test_margins_go_with_the_fourth_root_and_the_rarest_class_has_the_largest():
    margins = build(Settings(), torch.tensor([10000, 625, 1])).margins / 30
    torch.testing.assert_close(margins, torch.tensor([0.05, 0.1, 0.5]))


def test_a_margin_is_what_the_own_logit_has_to_be_above_the_others():
    loss = build(Settings(), torch.tensor([1, 1]))
    logits = torch.tensor([[15.0, 0.0]])  # cosines 0.5 and 0: just the margin
    torch.testing.assert_close(loss(logits, torch.tensor([0]), torch.tensor(0.0)), torch.tensor(math.log(2)))


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match=r"classes \[0\] have no training image"):
        build(Settings(), torch.tensor([0, 3]))
