"""Gradient distortion: the parts are the gradients of the groups, and measuring changes nothing."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.settings.methods import method_module, settings_of
from longtail.settings.rich_classes import Rich, rich_classes
from longtail.stage_one.networks import resnet_cifar
from longtail.stage_one.observers.gradients import Gradients, Settings, parted

COUNTS = torch.tensor([40, 25, 9, 4, 2])
LABELS = torch.arange(5).repeat_interleave(torch.tensor([6, 4, 3, 2, 1]))
RICH = torch.tensor([True, True, False, False, False])
PROGRESS = torch.tensor(0.7)
LOSSES = [
    {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}},
    {"name": "logit_adjusted"},
    {"name": "class_balanced"},
    {"name": "focal"},
]


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return resnet_cifar.build(resnet_cifar.Settings(depth=8, width=4), 3, 5).double()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss_module(block: dict) -> nn.Module:
    options = {key: value for key, value in block.items() if key != "name"}
    settings = settings_of("losses", block["name"]).model_validate(options)
    return method_module("losses", block["name"]).build(settings, COUNTS)


@pytest.mark.parametrize("block", LOSSES, ids=lambda block: block["name"])
def test_the_parts_are_the_gradients_of_each_groups_share_of_the_loss(network, images, block):
    loss = loss_module(block)
    parameters = list(network.parameters())
    total, rich, poor = parted(
        network, parameters, lambda _: (loss(network(images), LABELS, PROGRESS), LABELS), 0, RICH
    )
    # each group's share, computed on its own: the weights of the pair form leave the other group out
    for found, weights in ((rich, RICH[LABELS]), (poor, ~RICH[LABELS]), (total, torch.ones(16))):
        value = loss(network(images), LABELS, PROGRESS, weights.double())
        expected = torch.autograd.grad(value, parameters)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_a_term_on_features_counts_in_the_total_alone(network, images):
    def loss_of(_: int) -> tuple[Tensor, Tensor]:
        features = network.features(images)
        return F.cross_entropy(network.head(features), LABELS) + features.square().mean(), LABELS

    parameters = list(network.parameters())
    total, rich, poor = parted(network, parameters, loss_of, 0, RICH)
    for found, expected in zip(total, torch.autograd.grad(loss_of(0)[0], parameters), strict=True):
        torch.testing.assert_close(found, expected)
    rest = [t - r - p for t, r, p in zip(total, rich, poor, strict=True)]
    expected = torch.autograd.grad(network.features(images).square().mean(), parameters[:-2])
    for found, other in zip(rest, expected, strict=False):
        torch.testing.assert_close(found, other, rtol=1e-6, atol=1e-10)
    assert all(tensor.abs().max() < 1e-12 for tensor in rest[-2:])  # the head sees no feature term


def columns(network: nn.Module, images: Tensor, labels: list[Tensor], **changes) -> dict[str, float | None]:
    observer = Gradients(Settings(rich=Rich(above=20), every=1, **changes), COUNTS)

    def loss_of(number: int) -> tuple[Tensor, Tensor]:
        return F.cross_entropy(network(images[: len(labels[number])]), labels[number]), labels[number]

    return observer(nn.ModuleDict({"network": network}), loss_of, len(labels), 0)


def test_cosines_norms_and_variances_are_those_of_the_gradients(network, images):
    batches = [LABELS, LABELS.flip(0), LABELS.roll(3)]
    found = columns(network, images, batches, batches=3)
    for part in ("head", "backbone"):
        chosen = [p for name, p in network.named_parameters() if name.startswith("head.") == (part == "head")]
        norms, cosines = [], []
        for labels in batches:
            losses = F.cross_entropy(network(images), labels, reduction="none") / 16
            whole = [
                torch.autograd.grad(losses[mask].sum(), chosen, retain_graph=True)
                for mask in (torch.ones(16, dtype=torch.bool), RICH[labels], ~RICH[labels])
            ]
            flat = [torch.cat([tensor.flatten() for tensor in gradient]) for gradient in whole]
            norms.append([float(vector.norm()) for vector in flat])
            cosines.append(
                [float(F.cosine_similarity(flat[i], flat[j], dim=0)) for i, j in ((0, 1), (0, 2), (1, 2))]
            )
        norms, cosines = torch.tensor(norms, dtype=torch.float64), torch.tensor(cosines, dtype=torch.float64)
        for place, name in enumerate(("total", "rich", "poor")):
            assert found[f"gradient_{part}_norm_{name}"] == pytest.approx(float(norms[:, place].mean()))
            assert found[f"gradient_{part}_variance_{name}"] == pytest.approx(float(norms[:, place].var()))
        for place, name in enumerate(("total_rich", "total_poor", "rich_poor")):
            assert found[f"gradient_{part}_cosine_{name}"] == pytest.approx(float(cosines[:, place].mean()))


def test_a_group_without_an_image_has_empty_cells_and_the_other_is_the_total(network, images):
    found = columns(network, images, [torch.tensor([0, 0, 1, 1])] * 2, batches=2)
    assert found["gradient_head_cosine_total_rich"] == pytest.approx(1)
    assert found["gradient_head_norm_total"] == found["gradient_head_norm_rich"]
    for name in ("cosine_total_poor", "cosine_rich_poor", "norm_poor", "variance_poor"):
        assert found[f"gradient_head_{name}"] is None


def test_a_frozen_backbone_has_empty_cells(network, images):
    network.requires_grad_(False)
    network.head.requires_grad_(True)
    found = columns(network, images, [LABELS] * 2, batches=2)
    assert {value for name, value in found.items() if "backbone" in name} == {None}
    assert found["gradient_head_norm_total"] > 0


def test_batch_statistics_and_gradients_stay_as_they_were(network, images):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    columns(network.train(), images, [LABELS] * 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert not network.head._forward_hooks


@pytest.mark.parametrize(("steps", "every"), [(85, 1), (75, 1), (34, 2), (15, 5), (3, 17)])
def test_auto_measures_as_often_as_a_tenth_of_the_training_allows(network, images, steps, every):
    observer = Gradients(Settings(rich=Rich(above=20)), COUNTS)

    def loss_of(_: int) -> tuple[Tensor, Tensor]:
        return F.cross_entropy(network(images), LABELS), LABELS

    measured = [
        epoch for epoch in range(20) if observer(nn.ModuleDict({"network": network}), loss_of, steps, epoch)
    ]
    assert measured == list(range(0, 20, every))
    assert min(4, steps) * 5 / 3 / (steps * every) <= 0.1


def test_data_rich_classes_are_those_above_a_number_or_those_that_hold_a_share():
    counts = COUNTS.tolist()  # 40 and 25 of 80 hold 81 %
    assert rich_classes(Rich(above=9), counts) == [True, True, False, False, False]
    assert rich_classes(Rich(share=0.5), counts) == [True, False, False, False, False]
    assert rich_classes(Rich(share=0.8), counts) == [True, True, False, False, False]
    assert rich_classes(Rich(share=0.82), counts) == [True, True, True, False, False]
    assert rich_classes(Rich(share=0.5), [1, 3, 3, 3]) == [False, True, True, False]
    assert not any(rich_classes(Rich(above=40), counts))
    assert all(rich_classes(Rich(above=1), counts))


def test_the_share_of_data_rich_classes_is_said_as_it_is():
    said = [Rich(share=share).words for share in (0.8, 0.355, 0.004)]
    assert said == [
        f"the largest classes that hold {share}% of the training images" for share in ("80", "35.5", "0.4")
    ]


def test_the_border_is_one_of_two_keys():
    for block in ({}, {"above": 3, "share": 0.5}):
        with pytest.raises(ValueError, match="above or share"):
            Rich.model_validate(block)


def test_at_the_profile_of_cifar100_lt_more_than_100_images_are_the_many_shot_classes():
    counts = [int(500 * 0.01 ** (label / 99)) for label in range(100)]
    rich = rich_classes(Rich(above=100), counts)
    assert sum(rich) == 35
    assert math.isclose(
        sum(n for n, is_rich in zip(counts, rich, strict=True) if is_rich) / sum(counts), 0.8135, abs_tol=1e-4
    )
