"""The moving average of the weights: its numbers, what is written, and a kill in the middle."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from longtail.settings.recipe import Recipe, WeightAverage
from longtail.stage_one import checkpoint, loop
from longtail.stage_one.evaluation import predict
from longtail.stage_one.loop import train
from longtail.stage_one.moving_average import MovingAverage, update_average
from longtail.stage_one.networks import resnet_cifar
from longtail.stage_one.training import TrainingRun
from tests import tiny_runs
from tests.stand_in import stand_in

DECAY = 0.9


def averaged(modules: nn.ModuleDict, decay: float = DECAY) -> nn.ModuleDict:
    """The modules of a training, with an average of the network."""
    modules["average"] = MovingAverage(modules["network"], decay)
    return modules


@settings(deadline=None)
@given(
    decay=st.sampled_from([0.0, 0.5, 0.9, 0.999]),
    values=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=30),
)
def test_it_is_the_literal_recursion(decay, values):
    network = nn.Linear(1, 1, bias=False)
    average = MovingAverage(network, decay)
    expected = 0.0
    for t, value in enumerate(values):
        nn.init.constant_(network.weight, value)
        average.update(network)
        keep = min(decay, t / (t + 9))
        expected = keep * expected + (1 - keep) * value
    assert float(average.network.weight) == pytest.approx(expected, abs=1e-4)
    assert int(average.updates) == len(values)


def test_without_decay_it_is_the_network_to_the_last_bit(make_phase, make_modules):
    modules = averaged(make_modules(), decay=0.0)
    train(make_phase(after=update_average), modules, seed=0, precision="float32")
    network, average = modules["network"].state_dict(), modules["average"].network.state_dict()
    assert all(torch.equal(average[name], network[name]) for name in network)


def test_a_network_that_stands_still_is_its_average_to_the_last_bit():
    network = resnet_cifar.build(resnet_cifar.Settings(depth=8, width=4), 3, 5)
    average = MovingAverage(network, 0.999)
    for _ in range(20):
        average.update(network)
    assert all(
        torch.equal(tensor, average.network.state_dict()[name])
        for name, tensor in network.state_dict().items()
    )


def test_what_was_there_before_the_first_step_is_forgotten():
    network, other = nn.Linear(3, 2), nn.Linear(3, 2)
    average = MovingAverage(other, 0.999)
    average.update(network)
    assert torch.equal(average.network.weight, network.weight)


def test_statistics_of_batches_are_averaged_and_counts_are_taken_over():
    network = nn.BatchNorm2d(2).train()
    average = MovingAverage(network, 0.5)
    means = []
    for _ in range(12):
        network(torch.randn(4, 2, 3, 3) + 1)
        average.update(network)
        means.append(network.running_mean.clone())
    expected = torch.zeros(2)
    for t, mean in enumerate(means):
        keep = min(0.5, t / (t + 9))
        expected = keep * expected + (1 - keep) * mean
    torch.testing.assert_close(average.network.running_mean, expected)
    assert int(average.network.num_batches_tracked) == 12


def test_the_network_learns_what_it_would_learn_without(make_phase, make_modules):
    plain, modules = make_modules(), averaged(make_modules())
    history = train(make_phase(), plain, seed=0, precision="float32").history
    found = train(make_phase(after=update_average), modules, seed=0, precision="float32").history
    assert found == history
    for name, tensor in plain["network"].state_dict().items():
        assert torch.equal(tensor, modules["network"].state_dict()[name])
        if tensor.is_floating_point():
            assert not torch.equal(tensor, modules["average"].network.state_dict()[name])


def test_the_average_neither_learns_nor_leaves_evaluation(make_phase, make_modules):
    modules = averaged(make_modules())
    modules.train()
    assert not any(part.training for part in modules["average"].modules())
    assert not any(parameter.requires_grad for parameter in modules["average"].parameters())
    train(make_phase(after=update_average), modules, seed=0, precision="float32")
    assert all(parameter.grad is None for parameter in modules["average"].parameters())


@pytest.mark.parametrize("epochs", [1, 3])
def test_interrupted_it_ends_with_the_same_average_to_the_last_bit(
    make_phase, make_modules, tmp_path, monkeypatch, epochs
):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    path, phase = tmp_path / "checkpoint.safetensors", make_phase(after=update_average)
    whole, resumed = averaged(make_modules()), averaged(make_modules())
    expected = train(phase, whole, seed=0, precision="float32")

    class KillError(Exception):
        pass

    def report(row: object, state: loop.State) -> None:
        if len(state.history) == epochs:
            raise KillError

    with pytest.raises(KillError):
        train(phase, averaged(make_modules()), seed=0, precision="float32", path=path, report=report)
    tensors, _ = checkpoint.read(path)
    assert int(tensors["modules.average.updates"]) == 7 * epochs
    found = train(phase, resumed, seed=0, precision="float32", path=path)
    assert found.history == expected.history
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


@pytest.fixture(scope="module")
def recipe():
    return tiny_runs.small(tiny_runs.params().stage_one["la_tau0.5"], epochs=3)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    return tiny_runs.write_inputs(tmp_path_factory.mktemp("inputs") / "inputs")


def with_average(recipe, decay: float = DECAY, **changes):
    return recipe.model_copy(update={"weight_average": WeightAverage(decay=decay), **changes})


def test_what_is_written_and_measured_is_the_average(recipe, inputs, tmp_path):
    job = tiny_runs.job(with_average(recipe), inputs, tmp_path)
    training = TrainingRun(job)
    training.run()
    training.write()
    assert job.facts["weights"] == "moving average"
    written = load_file(job.folder / "model.safetensors")
    average = training.modules["average"].network
    assert set(written) == set(average.state_dict())
    assert all(torch.equal(written[name], tensor) for name, tensor in average.state_dict().items())
    test, prepare = training._evaluation._parts["test"], training._phase.normalise
    logits = predict(average, test.images, prepare, torch.device("cpu"), "float32")
    right = float((logits.argmax(dim=1) == test.labels).double().mean())
    row = (job.folder / "history.csv").read_text().splitlines()
    last = dict(zip(row[0].split(","), row[-1].split(","), strict=True))
    assert float(last["test_accuracy"]) == right
    assert json.loads((job.folder / "metrics.json").read_text())["test"]["accuracy"] == right
    learning = predict(training.modules["network"], test.images, prepare, torch.device("cpu"), "float32")
    assert not torch.equal(learning, logits)


def test_a_finished_run_without_decay_is_the_plain_run(recipe, inputs, tmp_path):
    plain = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "plain"))
    found = tiny_runs.contents(tiny_runs.trained(with_average(recipe, 0.0), inputs, tmp_path / "average"))
    assert found == plain


@pytest.mark.parametrize("changes", [{}, {"shards": 2}])
def test_on_a_device_it_is_recorded_with_the_step(recipe, inputs, tmp_path, monkeypatch, changes):
    monkeypatch.setattr("longtail.stage_one.graph.WARM_UP", 1)
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "1000")
    own = with_average(recipe, **changes)
    expected = tiny_runs.contents(tiny_runs.trained(own, inputs, tmp_path / "cpu"))
    with stand_in() as gpu:
        found = tiny_runs.contents(tiny_runs.trained(own, inputs, tmp_path / "gpu"))
    assert found == expected
    assert bool(gpu.graphs) != bool(changes)  # what is cut up is not recorded


def test_a_later_phase_goes_on_from_the_average(inputs, tmp_path):
    own = with_average(tiny_runs.small(tiny_runs.params().stage_one["ce_fine_tuned"]))
    first = tiny_runs.job(own.until(0), inputs, tmp_path)
    TrainingRun(first).run()
    training = TrainingRun(first)
    training.run()
    training.write()
    second = TrainingRun(tiny_runs.job(own, {**inputs, "stage_one": first.folder}, tmp_path))
    written = load_file(first.folder / "model.safetensors")
    for name, tensor in second.modules["network"].state_dict().items():
        assert torch.equal(tensor, written[name])


def test_without_the_key_a_recipe_is_who_it_was(recipe):
    assert "weight_average" not in recipe.resolved(hashed=True)
    assert with_average(recipe, 0.99).resolved(hashed=True)["weight_average"] == {"decay": 0.99}


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValidationError, match="decay"):
        Recipe.model_validate({"loss": {"name": "focal"}, "weight_average": {"decay": decay}})
