"""Focal loss."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longtail.stage_one.losses.focal import Settings, build

from .test_logit_adjusted import batches

NOW = torch.tensor(0.5)


def literal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Lin et al. 2017, eq. 4: FL(p) = -(1 - p)^gamma log p."""
    losses = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        p = row[label].exp() / row.exp().sum()
        losses.append(-((1 - p) ** gamma) * p.log())
    return torch.stack(losses).mean()


@settings(deadline=None)
@given(batch=batches(), gamma=st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_value_and_gradient_are_those_of_the_printed_equation(batch, gamma):
    logits, labels, counts = batch
    fast, slow = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value, expected = build(Settings(gamma=gamma), counts)(fast, labels, NOW), literal(slow, labels, gamma)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*torch.autograd.grad(value, fast), *torch.autograd.grad(expected, slow))


@settings(deadline=None)
@given(batch=batches())
def test_gamma_zero_is_cross_entropy(batch):
    logits, labels, counts = batch
    torch.testing.assert_close(
        build(Settings(gamma=0), counts)(logits, labels, NOW), F.cross_entropy(logits, labels)
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_an_image_that_is_sure_has_no_loss_and_a_finite_gradient(gamma):
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    value = build(Settings(gamma=gamma), torch.tensor([1, 1]))(logits, torch.tensor([0]), NOW)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value == 0
    assert torch.equal(gradient, torch.zeros(1, 2))
