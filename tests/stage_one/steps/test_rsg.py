"""RSG: centres, pairs and new maps, against slow versions that read like the equations."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from longtail.settings.recipe import Optimiser, Recipe
from longtail.settings.schedules import Constant, Length
from longtail.stage_one.batch import Batch
from longtail.stage_one.loop import train
from longtail.stage_one.losses.logit_adjusted import Settings as LossSettings
from longtail.stage_one.losses.logit_adjusted import build as build_loss
from longtail.stage_one.networks.resnet_cifar import Settings as NetworkSettings
from longtail.stage_one.networks.resnet_cifar import build as build_network
from longtail.stage_one.steps.rsg import (
    RareClasses,
    RareClassGenerator,
    Settings,
    channels_after,
    head_classes,
)

COUNTS = torch.tensor([3, 40, 20, 8, 1])
HEAD = torch.tensor([False, True, True, False, False])
BEFORE, AFTER = torch.tensor(0.1), torch.tensor(0.9)
LABELS = torch.tensor([1, 0, 2, 3, 1, 1, 4, 2, 3])  # five of a head class, four others


def settings(**changes):
    return Settings.model_validate({"centres": 3, "hidden": 5, **changes})


def made(channels=3, **changes):
    """A step over a small network, whose centres are not nought."""
    torch.manual_seed(0)
    network = build_network(NetworkSettings(depth=8, width=4), channels, len(COUNTS))
    chosen = settings(**changes)
    generator = RareClassGenerator(len(COUNTS), 8, chosen)
    nn.init.normal_(generator.centres)
    step = RareClasses(generator, chosen, HEAD)
    loss = build_loss(LossSettings(gamma=Constant(a=0.0)), COUNTS)
    return step, nn.ModuleDict({"network": network, "loss": loss, **step.modules()})


def batch(labels=LABELS):
    images = torch.randn(len(labels), 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(images, labels)


def taken(step, modules, progress, given=None):
    step.turn(float(progress))
    return step(modules, [given or batch()], progress)


def assigned(generator, maps, labels):
    """g of each image, one after the other."""
    found = []
    for image, label in zip(maps, labels, strict=True):
        scores = generator.weight[label] @ image.mean(dim=(1, 2)) + generator.offset[label]
        found.append(scores.softmax(0))
    return found


def residual(generator, maps, labels, n):
    """V_n - m of the centre that is nearest to it by g."""
    k = int(assigned(generator, maps, labels)[n].argmax())
    return maps[n] - generator.centres[labels[n], k][:, None, None]


def test_the_module_has_the_authors_parameters():
    generator = RareClassGenerator(100, 32, Settings())
    assert sum(parameter.numel() for parameter in generator.parameters()) == 713_982
    assert not generator.centres.any()
    assert bool((generator.offset == 1).all())


def test_the_cheap_spread_is_that_of_maps_and_centres():
    generator, maps = made()[1]["rsg"], torch.rand(9, 8, 4, 4)
    g = assigned(generator, maps, LABELS)
    expected = 0.0
    for n, label in enumerate(LABELS):
        for k in range(3):
            centre = generator.centres[label, k][:, None, None].expand(8, 4, 4)
            expected = expected + g[n][k] * (maps[n] - centre).square().sum() / len(LABELS)
    assignment = generator.assignment(maps, LABELS)
    assert torch.allclose(assignment, torch.stack(g), atol=1e-6)
    found = generator.spread(maps, LABELS, assignment)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for one, other in zip(
        torch.autograd.grad(found, [generator.centres, generator.weight]),
        torch.autograd.grad(expected, [generator.centres, generator.weight]),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_pairs_are_the_images_of_both_halves_and_an_odd_one_has_none():
    generator, maps = made()[1]["rsg"], torch.rand(9, 8, 4, 4)
    logits = generator.contrast(maps[:4], maps[4:8])
    same = torch.tensor([1, 0, 0, 0])  # labels 1, 0, 2, 3 beside 1, 1, 4, 2
    found = generator.alike(maps, LABELS)
    assert float(found.detach()) == pytest.approx(float(F.cross_entropy(logits, same).detach()), rel=1e-6)
    assert float(generator.alike(maps[:1], LABELS[:1]).detach()) == 0


@pytest.mark.parametrize(
    ("head", "rare", "strength", "times"),
    [(80, 48, 1, 1), (40, 88, 1, 2), (0, 128, 1, 0), (128, 0, 1, 0), (100, 28, 1, 3), (100, 28, 0.5, 1),
     (100, 28, 0.01, 1), (64, 64, 1, 1)],
)  # fmt: skip
def test_the_fewer_images_meet_as_many_of_the_others_as_often_as_there_are(head, rare, strength, times):
    step, _ = made(strength=strength)
    of_head = torch.arange(128) % 128 < head
    labels = torch.where(of_head, 1, 3)[torch.randperm(128, generator=torch.Generator().manual_seed(0))]
    first, second = step.pairs(labels)
    few = min(head, rare)
    assert len(first) == len(second) == times * few
    heads, rares = (HEAD[labels] == side for side in (True, False))
    heads, rares = heads.nonzero().flatten(), rares.nonzero().flatten()
    for segment in range(times):
        own = slice(segment * few, (segment + 1) * few)
        if head >= rare:
            assert torch.equal(first[own], heads[own])
            assert torch.equal(second[own], rares)
        else:
            assert torch.equal(first[own], heads)
            assert torch.equal(second[own], rares[own])


def test_a_row_is_the_channels_of_a_place_or_what_is_side_by_side_in_memory():
    maps = torch.arange(2 * 8 * 4 * 4.0).view(2, 8, 4, 4)
    places, memory = (made(rows=rows)[0].as_rows(maps) for rows in ("places", "memory"))
    assert places.shape == memory.shape == (2 * 4 * 4, 8)
    assert torch.equal(places[17], maps[1, :, 0, 1])
    assert torch.equal(memory[17], maps.flatten()[17 * 8 : 18 * 8])
    by_channel = maps.contiguous(memory_format=torch.channels_last)
    assert torch.equal(made(rows="memory")[0].as_rows(by_channel), memory)


@pytest.mark.parametrize("rows", ["places", "memory"])
def test_the_loss_with_new_maps_is_the_printed_equation(rows):
    step, modules = made(rows=rows, centre_weight=0.3, variation_weight=0.7)
    network, generator, given = modules["network"].eval(), modules["rsg"], batch()
    maps = network.maps(given.images, 2).detach()
    pairs = [(0, 1), (2, 3), (4, 6), (5, 8)]  # the first four of five head images, and the four others
    new, of_new, variation = [], [], 0.0
    for h, r in pairs:
        v = residual(generator, maps, LABELS, h)
        moved = generator.transformation(v[None])[0]
        new.append(maps[r] + moved)
        of_new.append(LABELS[r])
        logits = generator.contrast(maps[h][None], moved[None])
        variation = variation + F.cross_entropy(logits, torch.tensor([0]), reduction="sum") / len(pairs)
        triple = v, moved, residual(generator, maps, LABELS, r)
        if rows == "places":
            vectors = [m[:, i, j] for i in range(4) for j in range(4) for m in triple]
        else:
            flat = [m.flatten() for m in triple]
            vectors = [m[8 * row : 8 * row + 8] for row in range(16) for m in flat]
        for place in range(0, len(vectors), 3):
            a, b, c = vectors[place : place + 3]
            variation = variation + (b.norm() - a.norm()).abs() / len(pairs)
            unit = (c / c.norm()) * (b / b.norm())
            variation = variation + (unit - 1).abs().sum() / len(pairs)
    every, labels = torch.cat([maps, torch.stack(new)]), torch.cat([LABELS, torch.stack(of_new)])
    logits = network.head(network.features_of(every, 2))
    spread = generator.spread(maps, LABELS, generator.assignment(maps, LABELS))
    expected = F.cross_entropy(logits, labels) + 0.3 * spread + 0.7 * variation
    outcome = taken(step, modules, AFTER, given)
    assert float(outcome.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert int(outcome.correct) == int((logits[:9].argmax(1) == LABELS).sum())


def test_before_the_start_nothing_is_generated_and_the_loss_is_the_networks_and_the_centres():
    step, modules = made()
    network, generator, given = modules["network"].eval(), modules["rsg"], batch()
    maps = network.maps(given.images, 2).detach()
    spread = generator.spread(maps, LABELS, generator.assignment(maps, LABELS))
    expected = F.cross_entropy(network(given.images), LABELS)
    expected = expected + 0.1 * (spread + generator.alike(maps, LABELS))
    found = taken(step, modules, BEFORE, given).loss
    assert step.capturable
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found.backward()
    assert generator.transformation.weight.grad is None
    assert bool(generator.contrast.conv2.weight.grad.any())


def gradients(progress, **changes):
    step, modules = made(**changes)
    taken(step, modules, progress).loss.backward()
    return step, {name: parameter.grad for name, parameter in modules.named_parameters()}


@pytest.mark.parametrize("progress", [BEFORE, AFTER])
def test_the_module_never_moves_the_stages_before_it(progress):
    none = gradients(progress, centre_weight=0.0, variation_weight=0.0)[1]
    some = gradients(progress)[1]
    for name, gradient in some.items():
        if name.startswith(("network.conv", "network.bn", "network.stage1", "network.stage2")):
            assert torch.equal(gradient, none[name])
    assert bool(some["rsg.centres"].any())


def test_from_the_start_on_the_transformation_learns_and_the_contrastive_net_stays():
    step, found = gradients(AFTER)
    assert not step.capturable
    assert bool(found["rsg.transformation.weight"].any())
    assert all(gradient is None for name, gradient in found.items() if name.startswith("rsg.contrast."))
    by_the_loss_alone = gradients(AFTER, centre_weight=0.0, variation_weight=0.0)[1]
    assert bool(by_the_loss_alone["rsg.transformation.weight"].any())


def test_trained_with_momentum_and_weight_decay_the_contrastive_net_stays_from_the_start_on(make_phase):
    step, modules = made(channels=1, start=0.5)
    weights = []

    def note(*_):
        weights.append({name: p.detach().clone() for name, p in modules["rsg"].named_parameters()})

    note()
    optimiser = Optimiser(momentum=0.9, weight_decay=0.01)
    phase = make_phase(step=step, length=Length(epochs=6), optimiser=optimiser)
    train(phase, modules, seed=0, precision="float32", report=note)
    moved = [
        {name for name in before if not torch.equal(before[name], after[name])}
        for before, after in pairwise(weights)
    ]
    centres = {"centres", "weight", "offset"}
    contrast = {name for name in weights[0] if name.startswith("contrast.")}
    transformation = {"transformation.weight", "transformation.bias"}
    assert len(contrast) == 6  # weight and bias of each of three layers
    assert moved == 3 * [centres | contrast] + 3 * [centres | transformation]


@pytest.mark.parametrize("labels", [torch.tensor([1, 2, 2, 1]), torch.tensor([0, 3, 4, 4])])
def test_a_batch_of_one_kind_has_no_new_maps(labels):
    step, modules = made(centre_weight=0.0)
    given = batch(labels)
    modules["network"].eval()
    expected = F.cross_entropy(modules["network"](given.images), labels)
    found = taken(step, modules, AFTER, given).loss
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_head_classes_are_the_largest_wherever_they_stand():
    assert head_classes(COUNTS, 0.4).tolist() == HEAD.tolist()
    assert head_classes(torch.full((100,), 7), 0.29).nonzero().flatten().tolist() == list(range(29))
    assert int(head_classes(torch.arange(100), 0.2).sum()) == math.floor(0.2 * 100)
    with pytest.raises(ValueError, match=r"head_share 0\.1 of 5 classes is none"):
        head_classes(COUNTS, 0.1)


def test_looking_at_a_stage_leaves_the_network_as_it_is():
    network = build_network(NetworkSettings(depth=8, width=4), 3, 5)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert [channels_after(network, stage, 3, torch.device("cpu")) for stage in (1, 2)] == [4, 8]
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("network", "stage", "line"),
    [
        ("resnet_cifar", 3, "network resnet_cifar has 3 stages, and none after stage 3"),
        ({"name": "resnet", "architecture": "resnet10"}, 4, "network resnet has 4 stages"),
        ("bbn", 2, "network bbn has 0 stages"),
    ],
)
def test_a_network_without_a_stage_behind_is_refused(network, stage, line):
    loss = {"name": "focal", "gamma": 1.0}
    with pytest.raises(ValueError, match=rf"step rsg .phase train.: {line}"):
        Recipe.model_validate({"loss": loss, "network": network, "step": {"name": "rsg", "stage": stage}})


@pytest.mark.parametrize(("key", "value"), [("shards", 2), ("transforms", ["mixup"])])
def test_what_would_part_or_mix_its_pairs_is_refused(key, value):
    loss = {"name": "focal", "gamma": 1.0}
    with pytest.raises(ValueError, match=f"step rsg .phase train. takes no {key}"):
        Recipe.model_validate({"loss": loss, "step": "rsg", key: value})
