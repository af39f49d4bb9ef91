"""MetaSAug: shifts of logits, running covariances, the exact meta step without second derivatives."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from longtail.data.labelled_images import Part
from longtail.settings.recipe import Recipe
from longtail.settings.schedules import Constant
from longtail.stage_one.batch import Batch
from longtail.stage_one.losses.logit_adjusted import Settings as LossSettings
from longtail.stage_one.losses.logit_adjusted import build as build_loss
from longtail.stage_one.networks.resnet_cifar import Settings as NetworkSettings
from longtail.stage_one.networks.resnet_cifar import build as build_network
from longtail.stage_one.step import Stream
from longtail.stage_one.steps.metasaug import ClassStatistics, Settings, balanced, build, semantic_shift

CLASSES, WIDTH = 5, 2
COUNTS = torch.tensor([40, 20, 8, 3, 1])
VALIDATION = torch.tensor([4, 1, 1, 2, 4, 4, 3, 2, 1, 1])  # none of class 0


def images(count, seed=1):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(count=7, seed=1):
    labels = torch.randint(CLASSES, (count,), generator=torch.Generator().manual_seed(seed))
    return Batch(images(count, seed), labels)


def part(labels, level=7):
    pictures = torch.full((len(labels), 3, 8, 8), level, dtype=torch.uint8)
    return Part(pictures, labels, torch.arange(len(labels)))


def context(**changes):
    torch.manual_seed(0)
    network = build_network(NetworkSettings(depth=8, width=WIDTH), 3, CLASSES).double()
    values = {
        "network": network,
        "class_counts": COUNTS,
        "parts": {"validation": part(VALIDATION), "test": part(torch.arange(5), level=9)},
        "generator": lambda *key: torch.Generator().manual_seed(3),
        "device": torch.device("cpu"),
    }
    return SimpleNamespace(**{**values, **changes})


def made(**settings):
    """A step that has started, with covariances of some features, and its modules; float64."""
    own = context()
    step = build(Settings(**settings), own)
    modules = nn.ModuleDict(
        {"network": own.network, "loss": build_loss(LossSettings(gamma=Constant(a=0.0)), COUNTS)}
        | dict(step.modules())
    ).double()
    random = torch.Generator().manual_seed(2)
    features = torch.randn(60, 4 * WIDTH, generator=random, dtype=torch.float64)
    modules["statistics"].tell(features, torch.randint(CLASSES, (60,), generator=random))
    step.turn(0.8)
    return step, modules


def literal_shift(weight, labels, covariance, strength):
    found = torch.zeros(len(labels), len(weight), dtype=weight.dtype)
    for i, y in enumerate(labels.tolist()):
        for j in range(len(weight)):
            apart = weight[j] - weight[y]
            found[i, j] = strength / 2 * apart @ covariance[y] @ apart
    return found


@pytest.mark.parametrize("size", [3, 5, 9])  # a table of images or of classes
def test_the_shift_is_a_loop_over_images_and_classes(size):
    _, modules = made()
    weight, covariance = modules["network"].head.weight.detach(), modules["statistics"].covariance
    labels = batch(size).labels
    found = semantic_shift(weight, labels, covariance, torch.tensor(0.6))
    assert torch.allclose(found, literal_shift(weight, labels, covariance, 0.6), atol=1e-12)
    assert torch.equal(found.gather(1, labels[:, None]), torch.zeros(size, 1, dtype=torch.float64))
    assert found.max() > 0
    assert not semantic_shift(weight, labels, torch.zeros_like(covariance), torch.tensor(0.6)).any()


def test_running_statistics_are_those_of_all_features_at_once():
    random = torch.Generator().manual_seed(0)
    features = 3 + torch.randn(90, 4, generator=random)
    labels = torch.randint(CLASSES - 1, (90,), generator=random)  # none of the last
    statistics = ClassStatistics(CLASSES, 4)
    for start in (0, 17, 18, 60):  # one batch of one feature
        stop = {0: 17, 17: 18, 18: 60, 60: 90}[start]
        statistics.tell(features[start:stop], labels[start:stop])
    for c in range(CLASSES - 1):
        own = features[labels == c].double().numpy()
        assert statistics.count[c] == len(own)
        assert np.allclose(statistics.mean[c], own.mean(0), atol=1e-5)
        assert np.allclose(statistics.covariance[c], np.cov(own.T, bias=True), atol=1e-5)
    assert not statistics.covariance[-1].any()
    assert not statistics.mean[-1].any()


def test_class_weights_sum_to_the_number_of_classes_and_margins_have_no_scale():
    _, modules = made()
    weights, margins = modules["margins"].mean.class_weights, modules["margins"].margins
    assert weights.sum().item() == pytest.approx(CLASSES)
    effective = [(1 - 0.9999) / (1 - 0.9999**n) for n in COUNTS.tolist()]
    assert (weights[4] / weights[0]).item() == pytest.approx(effective[4] / effective[0], rel=1e-4)
    assert margins[4].item() == pytest.approx(0.5)
    assert margins[0].item() == pytest.approx(0.5 * 40**-0.25)


def literal_loss(step, network, covariance, seen, progress):
    """The printed loss of a network's logits, image by image."""
    features = network.features(seen.images)
    head = network.head
    z = F.linear(features, head.weight, head.bias)
    shifted = z + literal_shift(head.weight, seen.labels, covariance, 0.75 * progress)
    weights = [(1 - 0.9999) / (1 - 0.9999**n) for n in COUNTS.tolist()]
    total = divisor = 0.0
    for i, y in enumerate(seen.labels.tolist()):
        row = shifted[i].clone()
        row[y] = row[y] - 0.5 * COUNTS[y].item() ** -0.25  # the largest is of one image
        total = total - weights[y] * row.log_softmax(0)[y]
        divisor += weights[y]
    return total / divisor


def test_without_meta_step_the_loss_is_the_printed_equation():
    step, modules = made(meta="off")
    seen, progress = batch(), torch.tensor(0.9, dtype=torch.float64)
    covariance = modules["statistics"].covariance
    expected = literal_loss(step, modules["network"], covariance, seen, 0.9)
    outcome = step(modules, [seen], progress)
    assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert len(step.streams(Stream(sampler=None))) == 1


@pytest.mark.parametrize("progress", [0.8, 0.95])
def test_the_meta_step_is_that_of_a_double_backward(progress):
    step, modules = made(inner_rate=20.0)  # 0.2 and 0.002: the copy moves
    network, seen, meta = modules["network"], batch(), batch(6, seed=4)
    eta = 20.0 * (0.01 if progress < 0.9 else 0.0001)
    S = modules["statistics"].covariance.clone().requires_grad_()  # noqa: N806
    names, parameters = zip(*network.named_parameters(), strict=True)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    value = literal_loss(step, network, S, seen, progress)
    slope = torch.autograd.grad(value, parameters, create_graph=True)
    moved = {n: p - eta * g for n, p, g in zip(names, parameters, slope, strict=True)}
    answers = functional_call(network, moved | {n: b.clone() for n, b in before.items()}, (meta.images,))
    (expected,) = torch.autograd.grad(F.cross_entropy(answers, meta.labels), S)
    network.load_state_dict(before, strict=False)

    logits = network(seen.images)
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    time = torch.tensor(progress, dtype=torch.float64)
    found = step.covariance_gradient(modules, logits, seen, meta, time)
    assert expected.abs().max() > 0
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max())
    assert torch.allclose(found, found.transpose(1, 2), rtol=1e-6, atol=1e-12)
    assert all(torch.equal(buffer, kept[name]) for name, buffer in network.named_buffers())

    network.load_state_dict(before, strict=False)
    moved_to = modules["statistics"].covariance - 0.1 * expected
    outcome = step(modules, [seen, meta], time)
    network.load_state_dict(before, strict=False)
    assert outcome.loss.item() == pytest.approx(
        literal_loss(step, network, moved_to, seen, progress).item(), rel=1e-6
    )
    own = modules["statistics"].covariance  # S' is not kept
    assert torch.equal(own, S.detach())


def test_the_gradient_of_the_step_is_that_of_the_loss_with_the_moved_covariance():
    step, modules = made(inner_rate=20.0)
    network, seen, meta = modules["network"].eval(), batch(), batch(6, seed=4)
    time = torch.tensor(0.8, dtype=torch.float64)
    slope = step.covariance_gradient(modules, network(seen.images), seen, meta, time)
    moved = modules["statistics"].covariance - 0.1 * slope
    expected = torch.autograd.grad(literal_loss(step, network, moved, seen, 0.8), tuple(network.parameters()))
    step(modules, [seen, meta], time).loss.backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-5, atol=1e-6)


def test_statistics_of_the_network_move_once_a_step():
    step, modules = made()
    network, seen = modules["network"], batch()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(seen.images)
    once = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.load_state_dict(before, strict=False)
    step(modules, [seen, batch(6, seed=4)], torch.tensor(0.8, dtype=torch.float64))
    assert all(torch.equal(buffer, once[name]) for name, buffer in network.named_buffers())


def test_before_it_starts_it_is_the_recipes_loss_and_learns_no_statistics():
    step, modules = made()
    modules["network"].eval()
    told = modules["statistics"].covariance.clone()
    assert step.turn(0.79) != step.turn(0.8)
    step.turn(0.79)
    seen = batch()
    outcome = step(modules, [seen], torch.tensor(0.79))
    expected = F.cross_entropy(modules["network"](seen.images).float(), seen.labels)
    assert outcome.loss.item() == pytest.approx(expected.item())
    step.after(modules)
    assert torch.equal(modules["statistics"].covariance, told)
    step.turn(0.8)
    step(modules, [seen, batch(6, seed=4)], torch.tensor(0.8, dtype=torch.float64))
    step.after(modules)
    assert modules["statistics"].count.sum() == 60 + len(seen.labels)


def test_the_inner_rate_falls_as_the_rate_of_the_authors_code():
    step, _ = made()
    rates = [step.inner_rate(torch.tensor(epoch / 200)).item() for epoch in (159, 160, 179, 180)]
    assert rates == pytest.approx([0.1, 1e-3, 1e-3, 1e-5])


def test_meta_images_are_so_many_of_each_class_or_all_it_has():
    labels = torch.tensor([0] * 30 + [2] * 4 + [1] * 12 + [3])
    chosen = balanced(labels, 10, torch.Generator().manual_seed(0))
    assert labels[chosen].bincount().tolist() == [10, 10, 4, 1]
    assert len(set(chosen.tolist())) == 25
    other = balanced(labels, 10, torch.Generator().manual_seed(1))
    assert set(other.tolist()) != set(chosen.tolist())


def test_the_meta_stream_begins_with_the_method_and_has_images_of_validation():
    step = build(Settings(meta_images=2), context())
    own = Stream(sampler=None)
    first, second = step.streams(own)
    assert first is own
    assert second.start == 0.8
    assert second.labels.bincount().tolist() == [0, 2, 2, 1, 2]
    assert bool((second.images == 7).all())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"class_counts": torch.tensor([4, 0, 1, 1, 1])}, r"classes \[1\] have no training image"),
        (
            {"parts": {"validation": part(VALIDATION[:0]), "test": part(VALIDATION)}},
            "needs validation images",
        ),
        ({"parts": {"validation": part(VALIDATION), "test": part(VALIDATION)}}, "those of the test"),
    ],
)
def test_what_it_cannot_do_is_one_line(changes, line):
    with pytest.raises(ValueError, match=line):
        build(Settings(), context(**changes))
    if "parts" in changes:
        assert build(Settings(meta="off"), context(**changes))


def test_a_recipe_may_have_it_and_no_mixing():
    loss = {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}}
    step = Recipe.model_validate({"loss": loss, "step": "metasaug"}).step.options
    assert math.isclose(step.strength * 160 / 200, 0.6)
    with pytest.raises(ValueError, match=r"step metasaug .phase train. takes no transforms"):
        Recipe.model_validate({"loss": loss, "step": "metasaug", "transforms": ["mixup"]})
    with pytest.raises(ValueError, match=r"step metasaug .phase train.: takes a network with a linear head"):
        Recipe.model_validate(
            {"loss": loss, "step": "metasaug", "network": {"name": "resnet_cifar", "head": "cosine"}}
        )
    with pytest.raises(ValueError, match="at 180 is no share of the phase"):
        Settings(inner_decay={"form": "step", "at": [160, 180], "factors": [0.01, 0.0001]})


@pytest.mark.parametrize("classes", [3, 40])  # a table of a row a class, and of a row an image
def test_what_the_meta_step_changes_is_no_rounding_of_bfloat16(classes):
    weight, labels = torch.randn(classes, 8), torch.randint(classes, (16,))
    root = torch.randn(classes, 8, 8)
    covariance = root @ root.transpose(1, 2)
    moved = covariance * 1.001
    strength = torch.tensor(0.6)
    with torch.autocast("cpu", torch.bfloat16):
        before, after = (semantic_shift(weight, labels, one, strength) for one in (covariance, moved))
    assert before.dtype == torch.float32
    assert torch.equal(before, semantic_shift(weight, labels, covariance, strength))
    # bfloat16 would round to 0.4 % of it
    torch.testing.assert_close(after, 1.001 * before, rtol=1e-5, atol=1e-4)
