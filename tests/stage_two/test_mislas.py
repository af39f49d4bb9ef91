import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from longtail.stage_two import joint, mislas
from longtail.stage_two.classifier import class_accuracy
from longtail.stage_two.mislas import Settings, smoothed_loss, smoothing_of

from .test_afg import mixture, silent

torch.set_num_threads(1)
COUNTS = torch.tensor([500, 200, 50, 5])


@pytest.mark.parametrize("form", ["concave", "linear", "convex"])
def test_smoothing_goes_from_the_tails_to_the_heads(form):
    """Equations 5 a to c of the paper, one class at a time."""
    head, tail = 0.4, 0.1
    expected = {
        "concave": lambda r: tail + (head - tail) * math.sin(r * math.pi / 2),
        "linear": lambda r: tail + (head - tail) * r,
        "convex": lambda r: head + (head - tail) * math.sin(1.5 * math.pi + r * math.pi / 2),
    }[form]
    found = smoothing_of(COUNTS, Settings(smooth_head=head, smooth_tail=tail, form=form)).tolist()
    assert found == pytest.approx([expected((n - 5) / 495) for n in COUNTS.tolist()], abs=1e-6)
    assert (found[0], found[-1]) == pytest.approx((head, tail), abs=1e-6)
    assert found == sorted(found, reverse=True)


def test_concave_smooths_middle_classes_more_than_linear_and_linear_more_than_convex():
    concave, linear, convex = (
        smoothing_of(COUNTS, Settings(form=form))[1:3] for form in ("concave", "linear", "convex")
    )
    assert (concave > linear).all()
    assert (linear > convex).all()


def test_equal_counts_are_smoothed_as_the_tail():
    assert smoothing_of(torch.tensor([7, 7]), Settings()).tolist() == pytest.approx([0.1, 0.1])


@given(eps=st.floats(0, 0.9), seed=st.integers(0, 50))
def test_equal_smoothing_over_all_classes_is_torchs(eps, seed):
    random = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(9, 5, generator=random), torch.randint(5, (9,), generator=random)
    found = smoothed_loss(logits, labels, torch.full((9,), eps), "all")
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, label_smoothing=eps))


def test_smoothing_over_the_others_leaves_the_right_class_exactly_1_minus_eps():
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 4, generator=random), torch.tensor([0, 1, 2, 3, 0, 1])
    eps = torch.tensor([0.3, 0.2, 0.1, 0.0, 0.3, 0.2])
    target = (eps / 3).unsqueeze(1).repeat(1, 4)
    target[torch.arange(6), labels] = 1 - eps
    torch.testing.assert_close(smoothed_loss(logits, labels, eps, "others"), F.cross_entropy(logits, target))


def test_weights_move_more_slowly_than_scales_and_not_at_all_at_factor_0():
    data, *_ = mixture()
    still = mislas.fit(data, Settings(classifier_factor=0), 0, silent)
    scale = still.tensors["scale"]
    torch.testing.assert_close(still.weight, scale[:, None] * data.head_weight)
    moved = mislas.fit(data, Settings(), 0, silent)
    assert not torch.allclose(moved.weight / moved.tensors["scale"][:, None], data.head_weight, atol=1e-3)


def test_it_trades_large_classes_for_small_ones():
    data, tested, labels = mixture()
    before = class_accuracy(joint.fit(data, joint.Settings(), 0, silent).logits(tested), labels, 6)
    after = class_accuracy(mislas.fit(data, Settings(), 0, silent).logits(tested), labels, 6)
    assert after[3:].mean() > before[3:].mean() + 0.05
    assert after.mean() > before.mean()


def test_a_tail_that_is_smoothed_more_than_the_head_is_refused():
    with pytest.raises(ValidationError, match=r"smooth_head 0\.1 is below smooth_tail 0\.2"):
        Settings(smooth_head=0.1, smooth_tail=0.2)
