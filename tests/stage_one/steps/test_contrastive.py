"""SSD's first stage: the masked contrast, its queue, and an encoder of keys that follows."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from longtail.settings.recipe import Recipe
from longtail.settings.schedules import Constant
from longtail.stage_one.batch import Batch
from longtail.stage_one.losses.logit_adjusted import Settings as LossSettings
from longtail.stage_one.losses.logit_adjusted import build as build_loss
from longtail.stage_one.networks.resnet_cifar import Settings as NetworkSettings
from longtail.stage_one.networks.resnet_cifar import build as build_network
from longtail.stage_one.step import Stream
from longtail.stage_one.steps.contrastive import KeyQueue, Settings, build, masked_contrast

CLASSES, COUNTS = 5, torch.tensor([40, 20, 8, 3, 1])


def context(batch_size=6):
    def seeded(make, *key):
        torch.manual_seed(len(key))
        return make()

    torch.manual_seed(0)
    return SimpleNamespace(
        network=build_network(NetworkSettings(depth=8, width=4), 3, CLASSES),
        recipe=SimpleNamespace(batch_size=batch_size),
        seeded=seeded,
        generator=lambda *key: torch.Generator().manual_seed(3),
        device=torch.device("cpu"),
    )


def made(**settings):
    own = context()
    step = build(Settings(**{"queue": 12, "dimensions": 8, **settings}), own)
    loss = build_loss(LossSettings(gamma=Constant(a=0.0)), COUNTS)
    return step, nn.ModuleDict({"network": own.network, "loss": loss, **step.modules()})


def batches(size=6):
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (size,), generator=random)
    return [Batch(torch.randn(size, 3, 8, 8, generator=random), labels) for _ in range(2)]


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def contrast_by_loops(queries, keys, labels, queue, heat):
    """The masked contrast, one image and one key of another class after the other."""
    found = 0.0
    for query, key, label in zip(queries, keys, labels, strict=True):
        positive = (query @ key / heat).exp()
        others = sum(
            (query @ vector / heat).exp()
            for vector, other in zip(queue.vectors, queue.labels, strict=True)
            if other != label
        )
        found = found - (positive / (positive + others)).log() / len(labels)
    return found


@pytest.mark.parametrize("heat", [0.2, 1.0])
def test_the_contrast_and_its_gradient_are_a_loop_over_images_and_keys_of_other_classes(heat):
    queries, keys, vectors = (unit(rows, 8, seed=rows).double() for rows in (6, 7, 20))
    queries, keys, queue = queries.requires_grad_(), keys[:6], KeyQueue(vectors)
    queue.labels.copy_(torch.arange(20) % 4)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])  # of class 4 there is no key
    expected = contrast_by_loops(queries, keys, labels, queue, heat)
    found = masked_contrast(queries, keys, labels, queue, heat)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,), (slow,) = (torch.autograd.grad(value, queries) for value in (found, expected))
    assert torch.allclose(gradient, slow, rtol=1e-10, atol=1e-12)


def test_a_queue_of_the_own_class_alone_has_no_contrast_and_a_gradient_of_nought():
    queries = unit(2, 8).requires_grad_()
    queue = KeyQueue(unit(4, 8, seed=1))  # all of class 0
    value = masked_contrast(queries, unit(2, 8, seed=2), torch.tensor([0, 0]), queue, 0.2)
    assert value.item() == pytest.approx(0, abs=1e-6)
    value.backward()
    assert queries.grad.abs().max() < 1e-6


def test_the_queue_forgets_the_oldest_and_goes_round():
    queue = KeyQueue(torch.zeros(5, 1))
    for number, size in enumerate((2, 2, 2, 1, 5), 1):
        queue.put(torch.full((size, 1), float(number)), torch.full((size,), number))
        if number == 3:
            assert queue.labels.tolist() == [3, 1, 2, 2, 3]
            assert int(queue.place) == 1
    assert queue.labels.tolist() == queue.vectors.flatten().tolist() == [5] * 5
    assert int(queue.place) == 2


def loss_by_loops(modules, own, other, weight):
    """The loss of labels and `weight` times the contrast, for images and their other view."""
    features = modules["network"].features(own.images)
    queries = F.normalize(modules["projector"](features), dim=1)
    keys = F.normalize(modules["key_projector"](modules["key_network"].features(other.images)), dim=1)
    contrast = contrast_by_loops(queries, keys, own.labels, modules["queue"], 0.2)
    return F.cross_entropy(modules["network"].head(features), own.labels) + weight * contrast


def test_the_loss_is_that_of_labels_and_the_contrast():
    step, modules = made(weight=0.5)
    own, other = batches()
    modules.eval()
    expected = loss_by_loops(modules, own, other, 0.5)
    outcome = step(modules, [own, other], torch.tensor(0.3))
    assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    right = modules["network"](own.images).argmax(1) == own.labels
    assert int(outcome.correct) == int(right.sum())


def test_gradients_are_those_of_labels_and_the_contrast():
    step, modules = made(weight=0.5)
    modules["queue"].labels.copy_(torch.arange(12) % CLASSES)
    own, other = batches()
    learning = {name: parameter for name, parameter in modules.named_parameters() if parameter.requires_grad}
    expected = torch.autograd.grad(loss_by_loops(modules, own, other, 0.5), list(learning.values()))
    step(modules, [own, other], torch.tensor(0.3)).loss.backward()
    assert {name.partition(".")[0] for name in learning} == {"network", "projector"}
    for (name, parameter), gradient in zip(learning.items(), expected, strict=True):
        assert gradient.any(), name
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6), name


def test_the_encoder_of_keys_has_no_gradient_and_follows_in_its_parameters_only():
    step, modules = made(momentum=0.75)
    seen = batches()
    key = modules["key_network"]
    assert not any(parameter.requires_grad for parameter in key.parameters())
    assert not any(parameter.requires_grad for parameter in modules["key_projector"].parameters())
    step(modules, seen, torch.tensor(0.0)).loss.backward()
    assert all(parameter.grad is not None for parameter in modules["network"].parameters())
    assert all(parameter.grad is not None for parameter in modules["projector"].parameters())
    before = {name: tensor.clone() for name, tensor in modules.state_dict().items()}
    with torch.no_grad():
        for parameter in [*modules["network"].parameters(), *modules["projector"].parameters()]:
            parameter.add_(1)
        step.after(modules)
    state = modules.state_dict()
    for name, tensor in state.items():
        if not name.startswith("key_"):
            continue
        own = name.removeprefix("key_")
        if "running" in name:
            assert torch.equal(tensor, before[name])
            assert not torch.equal(tensor, state[own])  # of the other view
        else:
            assert torch.allclose(tensor, 0.75 * before[name] + 0.25 * state[own], atol=1e-6), name


def test_keys_of_the_batch_are_in_the_queue_of_the_next_step():
    step, modules = made()
    own, other = batches()
    before = modules["queue"].vectors.clone()
    step(modules, [own, other], torch.tensor(0.0))
    assert torch.equal(modules["queue"].vectors, before)
    step.after(modules)
    keys = modules["queue"].vectors[:6]
    assert torch.allclose(keys.norm(dim=1), torch.ones(6))
    assert torch.equal(modules["queue"].labels[:6], own.labels)
    assert torch.equal(modules["queue"].vectors[6:], before[6:])
    assert torch.allclose(before.norm(dim=1), torch.ones(12))


def test_halves_of_a_batch_of_keys_have_statistics_of_their_own():
    whole, modules = made()
    halves, other = made(key_parts=2)
    images = batches()[0].images
    one, two = whole.keys(modules, images), halves.keys(other, images)
    assert not torch.allclose(one, two)
    torch.manual_seed(0)
    expected = [whole.keys(made()[1], images[rows]) for rows in (slice(0, 3), slice(3, 6))]
    assert torch.allclose(two, torch.cat(expected), atol=1e-6)


def test_the_second_stream_is_the_same_images_in_the_other_view():
    step, _ = made()
    own = Stream(sampler=lambda labels, generator, progress: torch.arange(len(labels)))
    first, second = step.streams(own)
    assert first is own
    assert second.sampler is None
    assert second.augment.smallest == 0.2
    assert second.augment.hue == 0.1


def test_what_it_cannot_do_is_one_line():
    loss = {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}}
    with pytest.raises(ValueError, match=r"step contrastive .phase train. takes no transforms"):
        Recipe.model_validate({"loss": loss, "step": "contrastive", "transforms": ["mixup"]})
    with pytest.raises(ValueError, match=r"step contrastive .phase train.: queue 12 holds no batch of 16"):
        Recipe.model_validate({"loss": loss, "step": {"name": "contrastive", "queue": 12}, "batch_size": 16})
    then = {
        **{"name": "late", "step": "contrastive", "schedule": {"epochs": 2}, "sampler": "instance"},
        "learning_rate": {"peak": 0.1},
    }
    assert Recipe.model_validate({"loss": loss, "then": [then]})
    for key, value in (("reset_head", True), ("apart", "last_block")):
        with pytest.raises(ValueError, match=r"step contrastive .phase late.: keys are of the network as"):
            Recipe.model_validate({"loss": loss, "then": [{**then, key: value}]})
