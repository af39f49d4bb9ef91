"""BBN: two streams, two branches, and a weight that moves from one to the other."""

import copy

import pytest
import torch
import torch.nn.functional as F

from longtail.settings.recipe import Recipe
from longtail.settings.schedules import Constant, Power
from longtail.stage_one.batch import Batch
from longtail.stage_one.losses.logit_adjusted import Settings as LossSettings
from longtail.stage_one.losses.logit_adjusted import build as build_loss
from longtail.stage_one.networks.bbn import Settings as NetworkSettings
from longtail.stage_one.networks.bbn import build as build_network
from longtail.stage_one.steps.two_streams import Settings, TwoStreams

CLASSES = 5
COUNTS = torch.tensor([40, 20, 8, 3, 1])


def modules(depth=8):
    torch.manual_seed(0)
    network = build_network(NetworkSettings(depth=depth, width=4), 3, CLASSES)
    loss = build_loss(LossSettings(gamma=Constant(a=0.0)), COUNTS)
    return torch.nn.ModuleDict({"network": network, "loss": loss})


def batches(size=6):
    random = torch.Generator().manual_seed(1)
    return [
        Batch(
            torch.randn(size, 3, 8, 8, generator=random),
            torch.randint(CLASSES, (size,), generator=random),
        )
        for _ in range(2)
    ]


def step(weight=None):
    return TwoStreams(second=None, weight=weight or Power(a=1.0, b=2.0))


@pytest.mark.parametrize(("epoch", "alpha"), [(1, 1.0), (101, 0.75), (200, 1 - 0.995**2)])
def test_alpha_is_that_of_the_authors_epochs(epoch, alpha):
    progress = torch.tensor((epoch - 1) / 200, dtype=torch.float64)
    assert float(1 - Settings().weight(progress)) == pytest.approx(alpha)


def printed(made, given, alpha):
    """Logits and loss of a batch of either stream as the paper has them."""
    network, mean = made["network"], (2, 3)
    of_a = network.conventional(network.trunk_maps(given[0].images)).mean(mean)
    of_b = network.rebalancing(network.trunk_maps(given[1].images)).mean(mean)
    z = F.linear(
        torch.cat([2 * alpha * of_a, 2 * (1 - alpha) * of_b], 1), network.head.weight, network.head.bias
    )
    loss = alpha * F.cross_entropy(z, given[0].labels) + (1 - alpha) * F.cross_entropy(z, given[1].labels)
    return z, loss


def test_the_loss_is_the_printed_equation():
    made, given = modules(), batches()
    made.eval()
    z, expected = printed(made, given, 1 - 0.3**2)
    outcome = step()(made, given, torch.tensor(0.3))
    assert float(outcome.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert int(outcome.correct) == int((z.argmax(1) == given[0].labels).sum())


@pytest.mark.parametrize("progress", [0.3, 0.6, 0.9])  # alpha 0.91, 0.64, 0.19
def test_gradients_are_those_of_the_printed_equation(progress):
    made, given = modules(), batches()
    expected = torch.autograd.grad(printed(made, given, 1 - progress**2)[1], list(made.parameters()))
    step()(made, given, torch.tensor(progress)).loss.backward()
    for (name, parameter), gradient in zip(made.named_parameters(), expected, strict=True):
        assert gradient.any(), name
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6), name


def test_evaluation_is_training_with_alpha_a_half_and_one_image_in_both_streams():
    made, (batch, _) = modules(), batches()
    made.eval()
    found = step().logits(made, [batch, batch], torch.tensor(0.5))
    assert torch.allclose(found, made["network"](batch.images), atol=1e-6)


def test_in_the_first_epoch_the_rebalancing_branch_has_no_gradient_but_nought():
    made, given = modules(), batches()
    step()(made, given, torch.tensor(0.0)).loss.backward()
    network = made["network"]
    assert all(not parameter.grad.any() for parameter in network.rebalancing.parameters())
    assert not network.head.weight.grad[:, 16:].any()
    assert network.head.weight.grad[:, :16].any()
    assert network.conventional.conv1.weight.grad.any()


def test_the_trunk_has_the_statistics_of_both_batches_one_after_the_other():
    made, given = modules(), batches()
    twice = copy.deepcopy(made["network"])
    step()(made, given, torch.tensor(0.5))
    for batch in given:
        twice.trunk_maps(batch.images)
    for name, tensor in twice.state_dict().items():
        if name.startswith(("bn.", "trunk.")):
            assert torch.equal(tensor, made["network"].state_dict()[name]), name


RECIPE = {"loss": "focal", "network": "bbn", "step": "two_streams"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"network": "resnet_cifar"}, "network resnet_cifar has no two branches"),
        ({"loss": {"name": "class_balanced"}, "shards": 2}, "two_streams: shards share no loss that divides"),
        ({"observers": ["gradients"]}, "takes no observers"),
        (
            {"step": {"name": "two_streams", "weight": {"form": "constant", "a": 3}}},
            "alpha would be negative",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_runs(changes, line):
    Recipe.model_validate(RECIPE)
    with pytest.raises(ValueError, match=line):
        Recipe.model_validate({**RECIPE, **changes})
