"""What the training loop expects of any loss."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.settings.methods import method_module, method_names
from longtail.stage_one.losses.ldam import ReweightSettings

from .test_logit_adjusted import batches

OPTIONS = [
    *((name, {}) for name in method_names("losses")),
    ("class_balanced", {"start": 0.5, "base": "focal", "average": "images"}),
    ("ldam", {"reweight": ReweightSettings(start=0.5)}),
]
every_loss = pytest.mark.parametrize(("name", "options"), OPTIONS)


def loss_of(name, options, counts):
    module = method_module("losses", name)
    return module.build(module.Settings(**options), counts)


@every_loss
def test_no_value_on_the_device_is_read_by_the_host(name, options):
    """Meta tensors have no values: a branch on progress, `.item()` or `.nonzero()` raises on them."""
    loss = loss_of(name, options, torch.tensor([5, 3, 1])).to("meta")
    logits = torch.zeros(4, 3, device="meta", requires_grad=True)
    labels = torch.zeros(4, dtype=torch.int64, device="meta")
    progress, weights = torch.zeros((), device="meta"), torch.ones(4, device="meta")
    for more in ((), (weights,), (weights[0],)):
        value = loss(logits, labels, progress, *more)
        assert value.shape == ()
        value.backward()
    assert logits.grad.shape == (4, 3)


@every_loss
@settings(deadline=None)
@given(batch=batches(), share=st.floats(0, 1), progress=st.sampled_from([0.0, 0.5, 0.9]))
def test_a_pair_of_equal_labels_is_one_label(name, options, batch, share, progress):
    logits, labels, counts = batch
    loss, now = loss_of(name, options, counts).double(), torch.tensor(progress)
    for weight in (torch.tensor(share), torch.full((len(labels),), share)):
        weight = weight.double()
        pair = loss(logits, labels, now, weight) + loss(logits, labels, now, 1 - weight)
        torch.testing.assert_close(pair, loss(logits, labels, now))


@every_loss
def test_classes_of_one_image_and_a_batch_of_one_are_finite(name, options):
    loss = loss_of(name, options, torch.ones(3, dtype=torch.int64))
    logits = torch.zeros(1, 3, requires_grad=True)
    for progress in (0.0, 0.99):
        value = loss(logits, torch.tensor([2]), torch.tensor(progress))
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert gradient.isfinite().all()


@every_loss
def test_nothing_of_it_is_learnt(name, options):
    assert not list(loss_of(name, options, torch.tensor([5, 3, 1])).parameters())
