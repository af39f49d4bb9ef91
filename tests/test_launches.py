"""How much a training asks of a GPU's queue, counted on the stand-in: launches a step, waits an epoch.

A launch is a kernel or a copy that the host hands to the device; what an operation needs of these at least.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from longtail.settings.params import Params
from longtail.stage_one import casting, graph
from tests import tiny_runs
from tests.stand_in import StandIn, stand_in

PARAMS = tiny_runs.params()
FRONTIER = Params.load(tiny_runs.ROOT / "workflow/settings/frontier-200-epochs.yaml").stage_one
EPOCH, AT_ONCE = "read (tolist)", "wait"  # values that are read, and copies to the host that end together


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    return tiny_runs.write_inputs(tmp_path_factory.mktemp("inputs") / "inputs")


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """Steps are captured the second time that they come; the only checkpoint is that of the last epoch."""
    monkeypatch.setattr(graph, "WARM_UP", 1)
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "1000")


def trained(
    name: str, inputs: Any, place: Path, precision: str = "float32", depth: int = 8, **changes: Any
) -> StandIn:
    """A recipe of params.yaml with a small network, for three epochs of four steps."""
    recipe = tiny_runs.small(PARAMS.stage_one[name], changes.pop("epochs", 3))
    options = recipe.network.options.model_copy(update={"depth": depth})
    network = recipe.network.model_copy(update={"options": options})
    recipe = recipe.model_copy(update={"network": network, **changes})
    with stand_in() as gpu:
        tiny_runs.trained(recipe, inputs, place / str(len(list(place.iterdir()))), precision)
    return gpu


def recorded(gpu: StandIn) -> int:
    """Launches of a recorded step, which are as many for a whole batch and a rest."""
    (number,) = {recorded.launches for recorded in gpu.graphs}
    return number


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("depth", [8, 14, 32])
def test_a_block_of_a_resnet_is_16_launches(depth, precision, inputs, tmp_path):
    """Forward 7: two convolutions, normalisations and ReLUs, the shortcut's sum. Backward 9: a convolution
    has two. In bf16 eight more, however deep the network is: among them one copy of all weights each way."""
    blocks = (depth - 2) // 2
    number = recorded(trained("graloss", inputs, tmp_path, precision, depth))
    assert number == 38 + 16 * blocks + 8 * (precision == "bf16")
    if depth == 32:
        assert number == {"float32": 278, "bf16": 286}[precision]


@pytest.mark.parametrize("depth", [8, 32])
def test_weights_that_autocast_casts_are_two_launches_each(depth, inputs, tmp_path, monkeypatch):
    """Together they are two in all. ResNet-32 has 31 convolutions, and weight and bias of its head."""
    together = recorded(trained("graloss", inputs, tmp_path, "bf16", depth))
    monkeypatch.setattr(casting, "LAYERS", ())
    alone = recorded(trained("graloss", inputs, tmp_path, "bf16", depth))
    assert alone - together == 2 * (depth - 1 + 2) - 2
    if depth == 32:
        assert (alone, together) == (350, 286)


@pytest.mark.parametrize(
    ("name", "launches"),
    [
        ("ce_plain", 4),  # images, labels, progress and rates go to where the recorded step reads them
        ("mixup", 16),  # two more tensors go there, and ten launches draw partners, normalise and mix
    ],
)
def test_a_step_launches_few_things_beside_its_recorded_part_and_never_waits(
    name, launches, inputs, tmp_path
):
    """What an epoch more costs in epochs of four and of eight steps; its augmentation is the same."""

    def epoch(batch_size: int) -> tuple[int, int]:
        few, more = (
            trained(name, inputs, tmp_path, batch_size=batch_size, evaluate_every=0, epochs=epochs)
            for epochs in (4, 5)
        )
        return more.launches - few.launches, len(more.waits) - len(few.waits)

    (four, waits), (eight, waits_of_eight) = epoch(16), epoch(8)
    assert (eight - four) / 4 == launches
    assert waits == waits_of_eight == 1


def test_the_host_waits_once_an_epoch_an_evaluation_a_measure_and_a_checkpoint(inputs, tmp_path):
    """The network's way to the device, at the start, is left out: a wait for each tensor."""
    gpu = trained("graloss", inputs, tmp_path)  # measures gradients in the first of its three epochs
    waits = [what for what in gpu.waits if what != "copy (to cuda:0)"]
    measure, checkpoint, model = [EPOCH], [AT_ONCE], [AT_ONCE]
    assert waits == measure + 3 * [EPOCH, AT_ONCE] + checkpoint + model
    until = [what for what, waits in gpu.notes if waits].index(EPOCH)
    assert set(gpu.waits[:until]) == {"copy (to cuda:0)"}
    assert "copy (to cuda:0)" not in gpu.waits[until:]


def test_an_evaluation_is_one_wait_however_many_batches_it_has(inputs, tmp_path, monkeypatch):
    few = trained("ce_plain", inputs, tmp_path)
    monkeypatch.setattr("longtail.stage_one.evaluation.evaluation_batch", lambda images: 2)
    assert Counter(trained("ce_plain", inputs, tmp_path).waits) == Counter(few.waits)


@pytest.mark.parametrize(
    "recipe",
    [
        *(tiny_runs.small(PARAMS.stage_one[name]) for name in ("mixup", "ldam", "bbn", "ce_fine_tuned")),
        tiny_runs.small(FRONTIER["bfr"]),
        tiny_runs.distilled(),
    ],
    ids=["mixup", "ldam", "bbn", "ce_fine_tuned", "bfr", "distilled"],
)
def test_weights_cast_together_have_the_bits_of_autocast(recipe, inputs, tmp_path):
    """Byte for byte, of the model and its history; the CPU casts as autocast does."""
    expected = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "cpu", "bf16"))
    with stand_in() as gpu:
        found = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "gpu", "bf16"))
    assert found == expected
    assert "_foreach_copy_" in gpu.operations


def test_a_weight_that_the_loss_does_not_reach_has_no_gradient():
    """As under autocast: with a gradient of nought it would decay, and move by its momentum."""
    reached, other = (torch.nn.Parameter(torch.randn(3)) for _ in range(2))
    first, _ = casting._Cast.apply(reached, other)
    assert first.dtype == torch.bfloat16
    first.float().square().sum().backward()
    assert other.grad is None
    assert torch.equal(reached.grad, (2 * reached.bfloat16().float()).bfloat16().float())
