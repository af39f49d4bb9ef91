"""DBM: margins by class and by image, on logit adjustment."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from longtail.settings.base import plain
from longtail.settings.methods import settings_of
from longtail.settings.recipe import Recipe
from longtail.settings.schedules import Constant, Power
from longtail.stage_one.losses.difficulty_margin import LARGEST, Settings, build
from longtail.stage_one.losses.logit_adjusted import Settings as Adjusted
from longtail.stage_one.losses.logit_adjusted import build as build_adjusted
from longtail.stage_one.networks.cosine import CosineHead

NOW = torch.tensor(0.5)


@st.composite
def cosine_batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines (B, C) in float64, labels (B,), training images per class (C,)."""
    classes, size = draw(st.integers(2, 12)), draw(st.integers(1, 8))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    counts = torch.tensor(draw(st.lists(st.integers(1, 5000), min_size=classes, max_size=classes)))
    cosines = 1.998 * torch.rand(size, classes, generator=generator, dtype=torch.float64) - 0.999
    return cosines, torch.randint(classes, (size,), generator=generator), counts


def literal(cosines: Tensor, labels: Tensor, counts: Tensor, options: Settings, progress: float) -> Tensor:
    """As printed, image by image and class by class; the difficulty is of the gradient or not."""
    n, losses = counts.tolist(), []
    gamma = float(options.gamma(torch.tensor(progress, dtype=torch.float64)))
    for row, y in zip(cosines, labels.tolist(), strict=True):
        of_class = options.max_margin / (n[y] / min(n)) ** options.power
        own = row[y].detach() if options.difficulty == "detached" else row[y]
        of_image = of_class * (1 - own) / 2 if int(row.argmax()) != y else 0.0
        angle = torch.arccos(row[y]) + of_class + options.instance * of_image
        terms = [
            (options.scale * (torch.cos(angle) if c == y else row[c]) + gamma * math.log(n[c] / sum(n))).exp()
            for c in range(len(n))
        ]
        losses.append(-(terms[y] / torch.stack(terms).sum()).log())
    return torch.stack(losses).mean()


@settings(deadline=None)
@given(
    batch=cosine_batches(),
    max_margin=st.sampled_from([0.0, 0.1, 0.5]),
    power=st.sampled_from([0.0, 0.5, 1.0]),
    instance=st.sampled_from([0.0, 1.0, 2.0]),
    difficulty=st.sampled_from(["learnt", "detached"]),
    scale=st.sampled_from([1.0, 32.0]),
    gamma=st.sampled_from([Constant(a=0.0), Constant(a=1.0), Power(a=1.0, b=2.0)]),
    progress=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_value_and_gradient_are_those_of_the_literal_definition(
    batch, max_margin, power, instance, difficulty, scale, gamma, progress
):
    cosines, labels, counts = batch
    options = Settings(
        gamma=gamma, max_margin=max_margin, power=power, instance=instance, difficulty=difficulty, scale=scale
    )
    fast, slow = cosines.clone().requires_grad_(), cosines.clone().requires_grad_()
    value = build(options, counts).double()(scale * fast, labels, torch.tensor(progress, dtype=torch.float64))
    expected = literal(slow, labels, counts, options, progress)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)  # margins and prior are float32
    gradients = (*torch.autograd.grad(value, fast), *torch.autograd.grad(expected, slow))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(batch=cosine_batches(), difficulty=st.sampled_from(["learnt", "detached"]))
def test_without_a_margin_it_is_logit_adjustment_of_scaled_cosines(batch, difficulty):
    cosines, labels, counts = batch
    loss = build(Settings(max_margin=0.0, difficulty=difficulty), counts).double()
    adjusted = build_adjusted(Adjusted(gamma=Constant(a=1.0)), counts).double()
    one, other = cosines.clone().requires_grad_(), cosines.clone().requires_grad_()
    value, expected = loss(32 * one, labels, NOW), adjusted(32 * other, labels, NOW)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*torch.autograd.grad(value, one), *torch.autograd.grad(expected, other))


def test_margins_go_with_the_class_and_the_rarest_has_the_largest():
    counts = torch.tensor([500, 50, 5])
    torch.testing.assert_close(build(Settings(), counts).margins, torch.tensor([0.001, 0.01, 0.1]))
    root = build(Settings(power=0.5), counts).margins
    torch.testing.assert_close(root, torch.tensor([0.01, 0.1 / 10**0.5, 0.1]))


def test_an_image_that_is_got_wrong_has_a_margin_of_its_own():
    """Angles of 60 degrees: cosine 0.5, difficulty a quarter."""
    loss = build(Settings(scale=32.0), torch.tensor([1, 1, 1]))
    logits = 32 * torch.tensor([[0.5, 0.2, 0.1], [0.5, 0.7, 0.1]])
    found = loss.with_margins(logits, torch.tensor([0, 0])) / 32
    expected = torch.tensor([math.cos(math.pi / 3 + 0.1), math.cos(math.pi / 3 + 0.1 * 1.25)])
    torch.testing.assert_close(found[:, 0], expected)
    torch.testing.assert_close(found[:, 1:], logits[:, 1:] / 32)


@settings(deadline=None)
@given(batch=cosine_batches())
def test_a_margin_makes_no_loss_smaller(batch):
    cosines, labels, counts = batch
    angles = cosines.arccos().clamp_max(math.pi - 0.2)  # beyond pi a larger angle is a smaller one
    values = [
        build(Settings(max_margin=margin, instance=instance), counts).double()(32 * angles.cos(), labels, NOW)
        for margin, instance in ((0.0, 0.0), (0.1, 0.0), (0.1, 1.0))
    ]
    assert values[0] <= values[1] + 1e-9 <= values[2] + 2e-9


@pytest.mark.parametrize("cosine", [1.0, -1.0, 1 + 1e-6, -1 - 1e-6])
@pytest.mark.parametrize("instance", [0.0, 1.0])
def test_at_the_ends_of_the_cosine_value_and_gradient_are_finite(cosine, instance):
    loss = build(Settings(instance=instance), torch.tensor([5, 1]))
    logits = torch.tensor([[0.0, 32 * cosine]], requires_grad=True)
    value = loss(logits, torch.tensor([1]), NOW)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()


def test_the_largest_cosine_is_below_one_in_float32():
    assert torch.tensor(LARGEST) < 1
    assert torch.tensor(LARGEST).arccos() > 0


def test_parameters_of_a_cosine_head_get_finite_gradients_where_feature_and_class_agree():
    head = CosineHead(4, 3, 32.0)
    features = head.weight.detach()[[2]].clone().requires_grad_()  # the angle is nought
    value = build(Settings(), torch.tensor([5, 3, 1]))(head(features), torch.tensor([2]), NOW)
    value.backward()
    assert features.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


def test_a_detached_difficulty_changes_gradients_of_wrong_images_alone():
    counts, labels = torch.tensor([1, 1]), torch.tensor([0, 0])
    logits = 32 * torch.tensor([[0.5, 0.2], [0.2, 0.5]])
    gradients = []
    for difficulty in ("learnt", "detached"):
        own = logits.clone().requires_grad_()
        value = build(Settings(difficulty=difficulty), counts)(own, labels, NOW)
        gradients += torch.autograd.grad(value, own)
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert not torch.equal(gradients[0][1], gradients[1][1])


def test_the_prior_is_not_part_of_who_is_got_wrong():
    """The cosine of the rare class is the largest, though the adjusted logit of the other one is."""
    loss = build(Settings(), torch.tensor([5000, 1]))
    logits = torch.tensor([[0.0, 1.0]])
    adjusted = loss.with_margins(logits, torch.tensor([1])) + loss.adjusted.log_prior
    assert adjusted.argmax() == 0
    expected = 32 * torch.cos(torch.arccos(torch.tensor(1 / 32)) + 0.1)
    torch.testing.assert_close(loss.with_margins(logits, torch.tensor([1]))[0, 1], expected)


def test_its_settings_are_read_without_torch():
    assert plain(settings_of("losses", "difficulty_margin")()) == {
        "gamma": {"form": "constant", "a": 1.0},
        "max_margin": 0.1,
        "power": 1.0,
        "instance": 1.0,
        "difficulty": "learnt",
        "scale": 32.0,
    }


@pytest.mark.parametrize("network", [{}, {"head": "cosine"}, {"head": "linear", "scale": 32.0}])
def test_a_network_without_the_cosine_head_of_its_scale_is_refused(network):
    with pytest.raises(ValidationError, match=r"scale.* head: cosine"):
        Recipe.model_validate(
            {"loss": {"name": "difficulty_margin"}, "network": {"name": "resnet_cifar", **network}}
        )


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match=r"classes \[0\] have no training image"):
        build(Settings(), torch.tensor([0, 3]))


def test_gradients_descend_to_the_right_class():
    """A few steps on features that can be told apart: the loss falls and every image is right."""
    torch.manual_seed(0)
    labels = torch.arange(3).repeat_interleave(torch.tensor([12, 4, 2]))
    features = F.one_hot(labels, 5).float() + 0.1 * torch.randn(18, 5)
    head, loss = CosineHead(5, 3, 32.0), build(Settings(), labels.bincount())
    first = float(loss(head(features).detach(), labels, NOW))
    optimiser = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(50):
        optimiser.zero_grad()
        value = loss(head(features), labels, NOW)
        value.backward()
        optimiser.step()
    assert value.item() < 0.1 * first
    assert torch.equal(head(features).argmax(dim=1), labels)
