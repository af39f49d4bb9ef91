"""Class-balanced loss, and CE-DRW, which is it from some moment on."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longtail.stage_one.losses.class_balanced import Settings, build
from longtail.stage_one.losses.focal import Settings as Focal
from longtail.stage_one.losses.focal import build as build_focal

from .test_logit_adjusted import batches

NOW = torch.tensor(0.5)


def literal(logits: Tensor, labels: Tensor, counts: Tensor, options: Settings) -> Tensor:
    """Cui et al. 2019: (1 - beta) / (1 - beta^n_y) L(p, y), weights scaled so that they sum to C."""
    beta, gamma = options.beta, options.gamma if options.base == "focal" else 0.0
    raw = [(1 - beta) / (1 - beta**n) for n in counts.tolist()]
    total, weight_of_batch = torch.zeros((), dtype=torch.float64), 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        weight = raw[label] * len(raw) / sum(raw)
        p = row[label].exp() / row.exp().sum()
        total = total - weight * (1 - p) ** gamma * p.log()
        weight_of_batch += weight
    return total / (weight_of_batch if options.average == "weights" else len(labels))


@settings(deadline=None)
@given(
    batch=batches(),
    beta=st.sampled_from([0.0, 0.9, 0.99, 0.9999]),
    base=st.sampled_from(["cross_entropy", "focal"]),
    average=st.sampled_from(["weights", "images"]),
)
def test_value_and_gradient_are_those_of_the_printed_equation(batch, beta, base, average):
    logits, labels, counts = batch
    options = Settings(beta=beta, base=base, average=average)
    fast, slow = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = build(options, counts)(fast, labels, NOW)
    expected = literal(slow, labels, counts, options)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)  # the module's weights are float32
    gradients = (*torch.autograd.grad(value, fast), *torch.autograd.grad(expected, slow))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(batch=batches())
def test_deferred_it_is_the_base_loss_until_then(batch):
    logits, labels, counts = batch
    early, late = torch.tensor(0.79), torch.tensor(0.8)
    drw = build(Settings(start=0.8), counts)
    torch.testing.assert_close(drw(logits, labels, early), F.cross_entropy(logits, labels))
    assert torch.equal(drw(logits, labels, late), build(Settings(), counts)(logits, labels, late))
    focal = build(Settings(start=0.8, base="focal", gamma=2), counts)
    expected = build_focal(Focal(gamma=2), counts)(logits, labels, early)
    torch.testing.assert_close(focal(logits, labels, early), expected)


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match=r"classes \[2\] have no training image"):
        build(Settings(), torch.tensor([4, 1, 0]))
