"""One training in several processes, in shards: the same run, however many share it, and whoever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from longtail.errors import LONE_IMAGE, UserError
from longtail.settings.recipe import Recipe
from longtail.settings.schedules import Length
from longtail.stage_one import launch, loop
from longtail.stage_one.batch import Batch
from longtail.stage_one.losses import class_balanced, ldam, logit_adjusted
from longtail.stage_one.ranks import Ranks, Statistics, shards
from longtail.stage_one.transforms.mixup import Mixup
from tests.stage_one.conftest import LABELS
from tests.stage_one.pair import Pair
from tests.stage_one.test_stage_one import RECIPE, files, prepared, run

TWO = {"shards": 2, "devices": 2}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Two processes, started once, that train what several tests ask for."""
    started = Pair(tmp_path_factory.mktemp("pair"))
    yield started
    started.end()


@pytest.fixture
def pair(two_processes, monkeypatch) -> Pair:
    """`launch` hands its runs to the two processes."""
    monkeypatch.setattr(launch.subprocess, "Popen", two_processes.popen)
    two_processes.statuses.clear()
    return two_processes


@given(st.integers(1, 300), st.integers(2, 64), st.integers(1, 8), st.integers(1, 8))
def test_every_image_is_in_one_shard_of_one_process(images, batch_size, number, size):
    per_process = [shards(images, batch_size, number, Ranks(rank, size)) for rank in range(size)]
    seen = sorted(
        place for steps in per_process for step in steps for s in step for place in range(s.start, s.stop)
    )
    assert seen == list(range(images))
    for step in zip(*per_process, strict=True):
        assert sum(shard.share for own in step for shard in own) == pytest.approx(1)


def test_one_shard_is_the_whole_batch():
    assert [[tuple(s) for s in step] for step in shards(10, 4, 1, Ranks())] == [
        [(0, 0, 4, 1.0)],
        [(0, 4, 8, 1.0)],
        [(0, 8, 10, 1.0)],
    ]


def test_running_statistics_are_the_mean_of_what_shards_make_of_them():
    layer = nn.BatchNorm2d(3, momentum=0.1)
    layer.running_mean.fill_(2.0)
    images = torch.randn(8, 3, 4, 4)
    statistics = Statistics(layer, Ranks())
    for part in images.split(4):
        statistics.begin()
        layer(part)
        statistics.end()
    statistics.average()
    means = torch.stack([part.mean(dim=(0, 2, 3)) for part in images.split(4)])
    torch.testing.assert_close(layer.running_mean, 0.9 * 2.0 + 0.1 * means.mean(0))


WEIGHTED = {
    "none": lambda counts: logit_adjusted.build(logit_adjusted.Settings(), counts),
    "weights": lambda counts: class_balanced.build(class_balanced.Settings(beta=0.9), counts),
    "images": lambda counts: class_balanced.build(
        class_balanced.Settings(beta=0.9, average="images"), counts
    ),
    "deferred": lambda counts: ldam.build(
        ldam.Settings(reweight=ldam.ReweightSettings(beta=0.9, start=0.5)), counts
    ),
}


@pytest.mark.parametrize("loss", WEIGHTED)
def test_gradients_of_shards_are_those_of_the_batch_where_nothing_is_normalised(
    make_phase, make_modules, loss
):
    """Without batch normalisation's own statistics, shards change only the order of additions.

    A loss that is divided by a sum of weights is divided by that of the whole batch.
    """
    trained, losses = [], []
    for number in (1, 3):
        modules = make_modules(dropout=0.0)
        modules["loss"] = WEIGHTED[loss](LABELS.bincount())
        for module in modules.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 0.0
                module.track_running_stats = True
                module.forward = nn.Identity().forward  # type: ignore[method-assign]
        state = loop.train(make_phase(shards=number), modules, seed=0, precision="float32")
        trained.append([parameter.detach().clone() for parameter in modules.parameters()])
        losses.append([row["train_loss"] for row in state.history])
    for one, other in zip(*trained, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_shards_of_a_batch_are_mixed_with_one_share(make_phase, make_modules):
    """Partners are of the shard, as its statistics are; the share is the batch's."""
    seen: list[tuple[int, float]] = []
    mixup = Mixup(1.0)

    def mixed(batch: Batch, generator: torch.Generator, shared: torch.Generator) -> Batch:
        found = mixup(batch, generator, shared)
        seen.append((len(batch.labels), float(found.weight)))
        return found

    phase = make_phase(shards=2, transforms=[mixed], length=Length(epochs=1))
    loop.train(phase, make_modules(), seed=0, precision="float32")
    steps = [seen[first : first + 2] for first in range(0, len(seen), 2)]
    assert [sum(size for size, _ in step) for step in steps] == [8] * 6 + [2]
    assert all(one[1] == other[1] for one, other in steps)
    assert len({step[0][1] for step in steps}) == 7


def test_runs_that_shared_otherwise_are_others_now_and_no_more_than_these():
    hashed = {
        name: Recipe.model_validate({**RECIPE, "shards": 2, **changes}).resolved(hashed=True)
        for name, changes in {
            "plain": {},
            "weights": {"loss": "class_balanced"},
            "images": {"loss": {"name": "class_balanced", "average": "images"}},
            "mixup": {"transforms": ["mixup"]},
        }.items()
    }
    assert {name for name in hashed if "shared_by" in hashed[name]} == {"weights", "mixup"}
    whole = Recipe.model_validate({**RECIPE, "loss": "class_balanced"}).resolved(hashed=True)
    assert "shared_by" not in whole


@pytest.mark.parametrize(
    "changes",
    [{}, {"transforms": [{"name": "mixup", "alpha": 1.0}]}, {"sampler": "class_balanced", "batch_size": 10}],
)
def test_two_processes_are_one_that_takes_two_shards(inputs, tmp_path, pair, changes):
    alone = run(inputs, tmp_path / "alone", **{**TWO, "devices": 1}, **changes)
    both = run(inputs, tmp_path / "both", **TWO, **changes)
    assert "processes" not in alone.facts
    assert both.facts["processes"] == 2
    expected, found = files(alone.folder), files(both.folder)
    for name in ("history.csv", "metrics.json", "model.safetensors"):
        assert found[name] == expected[name], name  # (a + b) has one order only
    assert pair.statuses == [[0, 0]]


def test_a_run_that_was_killed_while_it_wrote_is_written(inputs, tmp_path, pair):
    """All epochs are done: the last logits are those of all processes, of which only the first one writes."""
    first = run(inputs, tmp_path / "run", **TWO)
    expected = files(first.folder)
    assert (first.scratch / "checkpoint.safetensors").is_file()
    for file in first.folder.glob("*.*"):
        file.unlink()
    again = files(run(inputs, tmp_path / "run", **TWO).folder)
    for name in ("history.csv", "metrics.json", "model.safetensors"):
        assert again[name] == expected[name]


def test_a_part_smaller_than_the_number_of_processes(inputs, tmp_path, pair):
    file = inputs["split"] / "validation.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:2]) + "\n")  # one image
    assert run(inputs, tmp_path / "run", **TWO).facts["processes"] == 2


def test_a_mistake_is_said_once_and_not_tried_again(inputs, tmp_path, pair):
    with pytest.raises(UserError, match="the loss is not finite"):
        run(inputs, tmp_path / "run", **TWO, learning_rate={"peak": 1e30})
    said = tmp_path / "run/scratch/error.txt"
    # started anew, as torchrun does it, they ended before they trained: what was said still stands there
    assert pair.statuses == [[1, 1], [1, 1]]
    assert "the loss is not finite" in said.read_text()
    assert not (tmp_path / "run/scratch/facts.json").exists()


def test_a_shard_of_one_image_is_said_once_too(inputs, tmp_path, pair):
    """The last of 72 images make a batch of two; small pictures leave maps of 1 x 1."""
    network = {"name": "resnet", "architecture": "resnet10"}
    with pytest.raises(UserError, match=LONE_IMAGE):
        run(inputs, tmp_path / "run", **TWO, network=network, batch_size=70)
    assert pair.statuses == [[1, 1], [1, 1]]


def test_the_number_of_processes_counts_in_no_identity():
    one = Recipe.model_validate({**RECIPE, "shards": 4})
    four = Recipe.model_validate({**RECIPE, "shards": 4, "devices": 4})
    assert one.resolved(hashed=True) == four.resolved(hashed=True)
    assert one.resolved() != four.resolved()
    plain = Recipe.model_validate(RECIPE).resolved(hashed=True)
    assert "shards" not in plain
    assert "devices" not in plain


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"devices": 2}, "devices 2 cannot share 1 shards; e.g. shards: 2"),
        ({"shards": 12, "batch_size": 20}, "leave one image to some"),
        ({"shards": 2, "observers": [{"name": "gradients"}]}, "observers measure the loss of a whole batch"),
    ],
)
def test_what_cannot_be_shared_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        Recipe.model_validate({**RECIPE, **changes})


def test_frozen_statistics_stay_to_the_last_bit():
    layer = nn.BatchNorm2d(64).eval()
    layer.running_mean.uniform_(-1, 1)
    before = layer.running_mean.clone()
    layer.train()  # as an epoch begins
    statistics = Statistics(layer, Ranks())
    layer.eval()  # as the step of a frozen trunk does
    for _ in range(7):
        statistics.begin()
        layer(torch.randn(4, 64, 2, 2))
        statistics.end()
    statistics.average()
    assert torch.equal(layer.running_mean, before)


@pytest.mark.parametrize(
    ("given", "expected"),
    [((4, 4, 1), (1, 4)), ((4, 4, 2), (2, 2)), ((4, 1, 2), (1, 1)), ((2, 2, 2), (2, 1)), ((3, 3, 2), (1, 3))],
)
def test_processes_are_shared_out_over_nodes(monkeypatch, given, expected):
    number, devices, machines = given
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", str(machines))
    recipe = Recipe.model_validate({**RECIPE, "shards": number, "devices": devices, "batch_size": 12})
    settings = SimpleNamespace(recipe=recipe)
    assert (launch.nodes(settings), launch.processes(settings)) == expected


SLOW = """
import os, sys, time
import longtail.stage_one.loop as loop
epoch = loop._epoch
def slow(taking, seed, state):
    if state.epoch >= 2 and not os.path.exists({flag!r}):
        open({place!r} + str(taking.ranks.rank), "w").write(str(os.getpid()))
        time.sleep(120)  # until one of them is killed
    return epoch(taking, seed, state)
loop._epoch = slow
rank, attempt = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
open({place!r} + f"{{rank}}-attempt{{attempt}}", "w").close()
if rank == "0" and attempt != "0":
    time.sleep(2)  # so that the other one looks for it before it is there
import longtail.stage_one.process as process
process.main(sys.argv[1])
"""


@pytest.fixture
def hanging(monkeypatch, tmp_path):
    """Processes of a run stop in the third epoch and say who they are, until a flag is raised."""
    flag, place, script = tmp_path / "go", tmp_path / "process", tmp_path / "slow.py"
    script.write_text(SLOW.format(flag=str(flag), place=str(place)))
    command = launch.command

    def instead(number, machines, file, environment):
        return [*command(number, machines, file, environment)[:-3], str(script), str(file)]

    monkeypatch.setattr(launch, "command", instead)
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    return flag, place


def waited_for(*files: Path) -> list[int]:
    until = time.monotonic() + 90
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < until, "they never came to the third epoch"
        time.sleep(0.1)
    return [int(file.read_text()) for file in files]


@pytest.mark.workflow
def test_after_the_kill_of_a_rank_all_go_on_from_the_checkpoint(inputs, tmp_path, hanging):
    flag, place = hanging
    undisturbed = run(inputs, tmp_path / "undisturbed", **{**TWO, "devices": 1})
    killer = subprocess.Popen(
        [sys.executable, "-c", KILLER, str(flag), f"{place}0", f"{place}1"], stdout=subprocess.PIPE
    )
    disturbed = run(inputs, tmp_path / "disturbed", **TWO)
    assert killer.wait() == 0
    expected, found = files(undisturbed.folder), files(disturbed.folder)
    for name in ("history.csv", "metrics.json", "model.safetensors"):
        assert found[name] == expected[name], name
    attempts = sorted(file.name for file in tmp_path.glob("process?-attempt*"))
    assert attempts == [f"process{rank}-attempt{attempt}" for rank in (0, 1) for attempt in (0, 1)]


KILLER = """
import os, signal, sys, time
from pathlib import Path
flag, *files = map(Path, sys.argv[1:])
until = time.monotonic() + 90
while not all(file.exists() and file.read_text() for file in files):
    assert time.monotonic() < until
    time.sleep(0.1)
flag.touch()
os.kill(int(files[1].read_text()), signal.SIGKILL)
"""


@pytest.mark.workflow
def test_a_killed_run_leaves_no_process_and_fewer_go_on(inputs, tmp_path, hanging, monkeypatch):
    flag, place = hanging
    undisturbed = run(inputs, tmp_path / "undisturbed", **{**TWO, "devices": 1})
    if (parent := os.fork()) == 0:  # the command, which is killed as a whole
        os.setsid()
        try:
            run(inputs, tmp_path / "disturbed", **TWO)
        finally:
            os._exit(0)
    processes = waited_for(place.with_name("process0"), place.with_name("process1"))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    until = time.monotonic() + 40
    while any(psutil.pid_exists(p) and psutil.Process(p).status() != "zombie" for p in processes):
        assert time.monotonic() < until, "a process of the killed run is still there"
        time.sleep(0.2)
    flag.touch()
    again = run(inputs, tmp_path / "disturbed", **{**TWO, "devices": 1})
    expected, found = files(undisturbed.folder), files(again.folder)
    for name in ("history.csv", "metrics.json", "model.safetensors"):
        assert found[name] == expected[name], name


def test_on_several_nodes_slurm_starts_torchrun_on_each(tmp_path, monkeypatch):
    said = SimpleNamespace(stdout="node7\nnode8\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: said)
    environment = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[7-8]"}
    found = launch.command(4, 2, tmp_path / "process.json", environment)
    assert found[:3] == ["srun", "--overlap", "--ntasks-per-node=1"]
    assert found[found.index("--nnodes") + 1] == "2"
    assert found[found.index("--rdzv-endpoint") + 1] == "node7:30111"
    assert "--standalone" not in found


@pytest.mark.workflow
def test_two_machines_meet_and_train_one_run(inputs, tmp_path, monkeypatch):
    """Two torchrun agents that meet at an address, as on two nodes: here both on this machine."""
    job = prepared(inputs, tmp_path / "two", **TWO)
    alone = run(inputs, tmp_path / "alone", **{**TWO, "devices": 1})
    agents = []
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "localhost")
    real, hosts = subprocess.run, SimpleNamespace(stdout="localhost\n")
    monkeypatch.setattr(
        launch.subprocess, "run", lambda command, **more: hosts if command[0] == "scontrol" else real(command)
    )

    def both(command, **more):
        assert command[:3] == ["srun", "--overlap", "--ntasks-per-node=1"]
        more["env"] = {**more["env"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        agents.extend(popen(command[3:], env=more["env"]) for _ in range(2))
        return SimpleNamespace(wait=lambda: max(agent.wait() for agent in agents))

    popen = subprocess.Popen
    monkeypatch.setattr(launch.subprocess, "Popen", both)
    launch.launch(job, 1)
    assert job.facts["processes"] == 2
    assert json.loads((job.folder / "metrics.json").read_text()) == json.loads(
        (alone.folder / "metrics.json").read_text()
    )
