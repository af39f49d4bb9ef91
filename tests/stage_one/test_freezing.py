"""Frozen parts of a network, and a rate of its own for the trunk; with neutral values neither is there."""

import csv
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from longtail.errors import UserError
from longtail.random import generator
from longtail.settings.recipe import Optimiser, StageOneSettings
from longtail.settings.schedules import Length
from longtail.stage_one import training
from longtail.stage_one.freezing import learning
from longtail.stage_one.loop import train
from longtail.stage_one.networks import resnet, resnet_cifar

from .test_phases import FINE_TUNE
from .test_stage_one import RECIPE, files, run

STATISTICS = ("running_mean", "running_var")


def network() -> resnet_cifar.ResNetCifar:
    return resnet_cifar.build(resnet_cifar.Settings(depth=14, width=4), 3, 5)


def names(model: nn.Module, parts: list[nn.Module]) -> set[str]:
    own = {id(parameter) for part in parts for parameter in part.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


def test_what_learns_is_told_by_the_network():
    model = network()
    everything = {name for name, _ in model.named_parameters()}
    assert names(model, learning(model, "none")) == everything
    assert names(model, learning(model, "trunk")) == {"head.weight", "head.bias"}
    for freeze, prefix in (("all_but_last_block", "stage3.1."), ("all_but_last_stage", "stage3.")):
        expected = {name for name in everything if name.startswith((prefix, "head."))}
        assert names(model, learning(model, freeze)) == expected


def test_a_network_that_does_not_tell_is_one_line():
    model = nn.Module()
    model.head = nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"freeze: all_but_last_block: this network .* take trunk or none"):
        learning(model, "all_but_last_block")


def state(folder):
    return load_file(folder / "model.safetensors")


def moved(before, after):
    """Names of parameters and of statistics that differ."""
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = {name for name in changed if name.endswith(STATISTICS)}
    return changed - statistics, statistics


LEARNING = {
    "trunk": ("head.",),
    "all_but_last_block": ("head.", "stage3.0."),  # of depth 8: one block a stage
    "all_but_last_stage": ("head.", "stage3."),
}


@pytest.mark.parametrize("freeze", LEARNING)
@pytest.mark.parametrize("batchnorm", ["eval", "train"])
def test_what_is_frozen_stays_to_the_last_bit_in_a_later_phase(inputs, tmp_path, freeze, batchnorm):
    alone = run(inputs, tmp_path / "one")
    then = [{**FINE_TUNE, "freeze": freeze, "frozen_batchnorm": batchnorm}]
    followed = run(inputs, tmp_path / "two", then=then)
    parameters, statistics = moved(state(alone.folder), state(followed.folder))
    prefixes = LEARNING[freeze]
    assert parameters
    assert all(name.startswith(prefixes) for name in parameters)
    frozen = {name for name in statistics if not name.startswith(prefixes)}
    assert bool(frozen) == (batchnorm == "train")


@pytest.fixture
def weights(tmp_path):
    """A file of weights for a ResNet-10, and the network that has them."""
    torch.manual_seed(3)
    model = resnet.build(resnet.Settings(architecture="resnet10"), 3, 7)
    model(torch.randn(2, 3, 32, 32))
    file = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), file)
    return file, model


def large(file) -> dict[str, object]:
    return {"name": "resnet", "architecture": "resnet10", "pretrained": str(file)}


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
def test_the_first_phase_may_train_the_last_block_of_given_weights(inputs, tmp_path, weights, batchnorm):
    """As Decoupling on Places-LT: all else is the file's; with train its statistics move, as in its code."""
    file, given = weights
    job = run(
        inputs,
        tmp_path / "run",
        network=large(file),
        freeze="all_but_last_block",
        frozen_batchnorm=batchnorm,
        optimiser={"trunk_rate": 0.1},
        schedule={"iterations": 2},
    )
    before = {k: v for k, v in given.state_dict().items() if not k.startswith("head.")}
    after = state(job.folder)
    parameters, statistics = moved(before, after)
    assert parameters
    assert all(name.startswith("layer4.0.") for name in parameters)
    frozen = {name for name in statistics if not name.startswith("layer4.0.")}
    assert bool(frozen) == (batchnorm == "train")
    assert job.facts["pretrained"].startswith(str(file))
    assert not any(name.endswith("num_batches_tracked") for name in after)


def test_a_later_phase_begins_with_the_phase_before_and_needs_no_file(inputs, tmp_path, weights):
    file, _ = weights
    short = {"network": large(file), "schedule": {"iterations": 1}}
    phase = {**FINE_TUNE, "schedule": {"iterations": 1}, "learning_rate": {"peak": 1e-12}}
    first = run(inputs, tmp_path / "run/phase0", **short)
    file.unlink()
    job = run(inputs, tmp_path / "run", then=[phase], **short)
    assert "pretrained" not in job.facts
    before, after = state(first.folder), state(job.folder)
    torch.testing.assert_close(before["conv1.weight"], after["conv1.weight"])


def test_neutral_values_are_what_a_run_was_before_the_keys_were_there(inputs, tmp_path):
    plain = run(inputs, tmp_path / "one")
    told = {"freeze": "none", "frozen_batchnorm": "eval", "optimiser": {"trunk_rate": 1.0}}
    named = run(inputs, tmp_path / "two", **told)
    assert files(plain.folder) == files(named.folder)
    hashes = [
        StageOneSettings.model_validate({"dataset": "cifar10", "recipe": RECIPE | more, "seed": 0}).resolved(
            hashed=True
        )
        for more in ({}, told)
    ]
    assert hashes[0] == hashes[1]
    assert not {"freeze", "frozen_batchnorm"} & set(hashes[0]["recipe"])
    assert "trunk_rate" not in json.dumps(hashes[0])


class Parted(nn.Module):
    """A network of two linear layers without anything random."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.head = nn.Linear(36, 8), nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(images.flatten(1)).relu())


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_two_steps_are_those_of_torchs_sgd_to_the_last_bit(make_phase, make_modules, factor):
    """With a factor of 1 plain SGD; else SGD of two groups, the trunk's with its rate."""
    optimiser = Optimiser(momentum=0.9, weight_decay=0.01)
    phase = make_phase(
        optimiser=optimiser,
        length=Length(iterations=2),
        augment=lambda x, g: x,
        rate_factor=lambda name: factor if name.startswith("network.trunk.") else 1.0,
    )
    modules = make_modules()
    modules["network"], twin = Parted(), Parted()
    train(phase, modules, seed=0, precision="float32")

    reference = torch.optim.SGD(
        twin.parameters()
        if factor == 1
        else [{"params": twin.trunk.parameters()}, {"params": twin.head.parameters()}],
        lr=0.0,
        momentum=0.9,
        weight_decay=0.01,
        fused=True,
    )
    order = torch.randperm(50, generator=generator(0, "sampler", "train", 0, 0))
    for step in range(2):
        chosen = order[8 * step : 8 * step + 8]
        rate = phase.learning_rate.at(step, phase.length, 7)
        for group, share in zip(reference.param_groups, (factor, 1.0), strict=False):
            group["lr"] = torch.tensor(rate * share, dtype=torch.float32)
        loss = modules["loss"](
            twin(phase.normalise(phase.images[chosen])), phase.labels[chosen], torch.tensor(0.0)
        )
        reference.zero_grad()
        loss.backward()
        reference.step()
    for name, parameter in twin.named_parameters():
        assert torch.equal(parameter, modules["network"].get_parameter(name)), name


def test_the_trunk_of_a_recipe_is_all_but_the_head(inputs, tmp_path):
    """A tiny factor leaves the trunk where it was and the head learns on; history has the head's rate."""
    one = {"schedule": {"iterations": 3}, "learning_rate": {"peak": 0.05}}
    still = run(inputs, tmp_path / "still", **{**one, "learning_rate": {"peak": 1e-12}})
    slow = run(inputs, tmp_path / "slow", optimiser={"trunk_rate": 1e-12}, **one)
    before, after = state(still.folder), state(slow.folder)
    for name in before:
        if name.startswith("head."):
            assert (before[name] - after[name]).abs().max() > 1e-4
        elif not name.endswith(STATISTICS):
            torch.testing.assert_close(before[name], after[name], atol=1e-9, rtol=1e-6)
    with (slow.folder / "history.csv").open() as file:
        assert float(next(csv.DictReader(file))["learning_rate"]) > 0.01


def test_a_training_with_two_rates_goes_on_where_it_was_killed(inputs, tmp_path, monkeypatch):

    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    recipe = {"optimiser": {"trunk_rate": 0.3}, "freeze": "all_but_last_block"}
    whole = run(inputs, tmp_path / "whole", **recipe)
    report = training.TrainingRun.report

    def killed(self, row, state):
        report(self, row, state)
        if len(state.history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingRun, "report", killed)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, tmp_path / "resumed", **recipe)
    (tmp_path / "resumed/outputs").rename(tmp_path / "resumed/left")
    assert files(run(inputs, tmp_path / "resumed", **recipe).folder) == files(whole.folder)
