"""Class weights by effective numbers, and when and how they enter a mean."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.stage_one.losses.effective_number import Reweighting, class_weights

from .test_logit_adjusted import batches

COUNTS = st.lists(st.integers(1, 5000), min_size=1, max_size=20)


@settings(deadline=None)
@given(counts=COUNTS, thousandths=st.integers(0, 9999))
def test_weights_are_the_inverse_of_the_geometric_series_and_sum_to_the_classes(counts, thousandths):
    """E_n = 1 + beta + ... + beta^(n-1), the definition behind the closed form."""
    beta = thousandths / 10000
    inverse = [1 / sum((beta**k for k in range(n)), 0.0) for n in counts]
    expected = [len(counts) * value / sum(inverse) for value in inverse]
    found = class_weights(torch.tensor(counts), beta)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


def test_the_effective_number_of_two_images_is_exact():
    weights = class_weights(torch.tensor([1, 2]), 0.5)
    assert Fraction(float(weights[1] / weights[0])).limit_denominator(1000) == Fraction(2, 3)


@settings(deadline=None)
@given(counts=COUNTS)
def test_beta_zero_weighs_classes_alike_and_beta_near_one_by_inverse_frequency(counts):
    n = torch.tensor(counts)
    assert torch.equal(class_weights(n, 0.0), torch.ones(len(n), dtype=torch.float64))
    inverse = 1 / n.double()
    torch.testing.assert_close(
        class_weights(n, 1 - 1e-9), inverse * len(n) / inverse.sum(), rtol=1e-4, atol=0
    )


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match=r"classes \[1, 3\] have no training image"):
        class_weights(torch.tensor([4, 0, 2, 0]), 0.9)


@pytest.mark.parametrize("epochs", [5, 60, 90, 200, 300, 400])
def test_weights_apply_from_the_epoch_at_which_the_share_is_reached(epochs):
    """0.8 of 200 epochs is epoch 160 of LDAM-DRW, also in float32."""
    mean = Reweighting(torch.tensor([100, 1]), 0.9999, 0.8, "images")
    progress = torch.tensor([epoch / epochs for epoch in range(epochs)], dtype=torch.float32)
    losses, rare = torch.ones(1), torch.tensor([1])
    late = [bool(mean(losses, rare, now) != 1) for now in progress]
    assert late == [epoch >= epochs * 4 // 5 for epoch in range(epochs)]


@settings(deadline=None)
@given(batch=batches(), beta=st.floats(0, 0.9999))
def test_it_is_the_weighted_cross_entropy_of_torch_or_the_mean_over_images(batch, beta):
    logits, labels, counts = batch
    losses = F.cross_entropy(logits, labels, reduction="none")
    late, early = torch.tensor(0.8), torch.tensor(0.79)
    by_weights = Reweighting(counts, beta, 0.8, "weights").double()
    weight = by_weights.class_weights
    expected = F.cross_entropy(logits, labels, weight=weight)
    torch.testing.assert_close(by_weights(losses, labels, late), expected)
    by_images = Reweighting(counts, beta, 0.8, "images").double()
    torch.testing.assert_close(by_images(losses, labels, late), (weight[labels] * losses).mean())
    for mean in (by_weights, by_images):
        torch.testing.assert_close(mean(losses, labels, early), losses.mean())


def test_it_is_no_loss_that_a_recipe_could_name():
    from longtail.settings.methods import method_names

    assert "class_balanced" in method_names("losses")
    assert "effective_number" not in method_names("losses")
