"""Every method on a stand-in for a GPU: nothing on the wrong side, and the bits of the CPU.

What a GPU itself would add (its kernels' rounding, streams, memory) is not in it.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from longtail.data import device_operations, normalisation, operations
from longtail.data.augmentation import augment
from longtail.random import generator
from longtail.settings.augmentation import Augmentation
from longtail.settings.params import Params
from longtail.stage_one import graph, loop, training
from tests import tiny_runs
from tests.stand_in import MisuseError, StandIn, stand_in

PARAMS = tiny_runs.params()
FRONTIER = Params.load(tiny_runs.ROOT / "workflow/settings/frontier-200-epochs.yaml").stage_one
# one of them has a teacher
ALONE = {name: recipe for name, recipe in FRONTIER.items() if recipe.step.name == "supervised"}
RECIPES = {**PARAMS.stage_one, **{f"frontier {name}": recipe for name, recipe in ALONE.items()}}
DRAWN_ON_THE_DEVICE = [
    *("free_lunch", "tailcalibx"),
    *(name for name in PARAMS.stage_two if PARAMS.stage_two[name].method.name == "afg"),
]  # other normals than the CPU's


@pytest.fixture
def gpu():
    with stand_in() as found:
        yield found


def cuda(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32, device="cuda").view(shape)


def test_tensors_say_where_they_are(gpu):
    assert cuda(3).device == torch.device("cuda", 0)
    assert cuda(3).is_cuda
    assert cuda(3)[1:].device.type == cuda(3).new_zeros(2).device.type == (cuda(3) + 1).device.type == "cuda"
    assert cuda(3).cpu().device.type == torch.zeros(3).device.type == "cpu"
    layer = torch.nn.Linear(2, 2).to("cuda")
    layer(cuda(4, 2)).sum().backward()
    assert layer.weight.device == layer.weight.grad.device == torch.device("cuda", 0)


def test_tensors_of_both_sides_in_one_operation_are_an_error(gpu):
    with pytest.raises(MisuseError, match="add"):
        cuda(3) + torch.zeros(3)
    with pytest.raises(MisuseError, match="where"):
        torch.where(torch.ones(3, dtype=torch.bool), cuda(3), cuda(3))
    with pytest.raises(MisuseError, match="indices are on cuda:0"):
        torch.zeros(3)[cuda(3).long()]
    assert (cuda(3) * torch.tensor(2.0)).tolist() == [0, 2, 4]  # a number of the host is no error


def test_a_generator_of_the_other_side_is_an_error(gpu):
    for make in (
        lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
        lambda: torch.randperm(3, generator=torch.Generator("cuda")),
        lambda: cuda(3).uniform_(generator=torch.Generator()),
    ):
        with pytest.raises(MisuseError, match="generator"):
            make()
    assert torch.rand(3, device="cuda", generator=torch.Generator("cuda")).is_cuda


def test_what_the_host_waits_for_is_noted(gpu):
    x = cuda(3)
    for wait in (x.tolist, lambda: float(x[1]), lambda: x[x > 1], x.cpu, lambda: x.new_tensor(1.0)):
        before = len(gpu.waits)
        wait()
        assert len(gpu.waits) > before
    before = len(gpu.waits)
    torch.zeros(3).pin_memory().to("cuda", non_blocking=True)
    torch.full((), 3.0, device="cuda")
    x[1:].add_(1)
    assert len(gpu.waits) == before
    with pytest.raises(MisuseError, match="numpy"):
        x.numpy()


def captured(gpu: StandIn, work: Any) -> Any:
    with graph.own_stream(torch.device("cuda")):
        return graph.Recorder()(work)


def test_a_captured_work_is_not_done_and_its_replay_reads_fixed_addresses(gpu):
    given, total = cuda(3), torch.zeros(3, device="cuda")

    def work():
        total.add_(given * 2)

    replay = captured(gpu, work)
    assert total.tolist() == [0, 0, 0]
    given.fill_(5)
    replay()
    replay()
    assert total.tolist() == [20, 20, 20]


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.tolist(),
        lambda x: float(x.sum()),
        lambda x: x[x > 1],
        lambda x: x.cpu(),
        lambda x: x.new_tensor(1.0),
        lambda x: torch.zeros(3).to("cuda"),
        lambda x: torch.cuda.synchronize(),
        lambda x: x * OF_THE_HOST,
    ],
)
def test_what_waits_or_copies_or_bakes_a_number_in_cannot_be_captured(gpu, work):
    x = cuda(3)
    with pytest.raises(MisuseError, match=r"captured|every replay"):
        captured(gpu, lambda: work(x))


OF_THE_HOST = torch.tensor(2.0)


def test_the_default_stream_cannot_be_captured(gpu):
    with pytest.raises(MisuseError, match="default stream"):
        graph.Recorder()(lambda: None)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    return tiny_runs.write_inputs(tmp_path_factory.mktemp("inputs") / "inputs")


@pytest.fixture
def soon(monkeypatch):
    """Steps are captured the second time that they come; checkpoints do not depend on the clock."""
    monkeypatch.setattr(graph, "WARM_UP", 1)
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "1000")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_as_on_the_cpu(name, inputs, tmp_path, soon):
    # the second half of rsg is not recorded: how many maps it makes depends on the labels
    recipe = tiny_runs.small(RECIPES[name], epochs=4 if name == "rsg" else 2)
    expected = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "cpu"))
    with stand_in() as gpu:
        found = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "gpu"))
    assert found == expected
    assert len(gpu.graphs) >= 2  # whole batches and rests
    assert min(graph.replays for graph in gpu.graphs) >= 1


def test_all_ingredients_of_the_frontier_train_together_as_on_the_cpu(inputs, tmp_path, soon):
    teacher = tiny_runs.trained(tiny_runs.small(ALONE["bfr"]), inputs, tmp_path / "teacher")
    mixed = FRONTIER["distilled"].model_copy(update={"transforms": FRONTIER["cutmix"].transforms})
    recipe, place = tiny_runs.small(mixed), tmp_path
    expected = tiny_runs.contents(tiny_runs.taught(recipe, [teacher], inputs, place / "cpu"))
    with stand_in() as gpu:
        found = tiny_runs.contents(tiny_runs.taught(recipe, [teacher], inputs, place / "gpu"))
    assert found == expected
    assert len(gpu.graphs) >= 2


@pytest.mark.parametrize("changes", [{"shards": 2}, {"progress": "step"}])
@pytest.mark.parametrize("name", ["mixup", "ldam_drw"])
def test_shards_and_progress_by_step_train_as_on_the_cpu(name, changes, inputs, tmp_path, soon):
    recipe = tiny_runs.small(PARAMS.stage_one[name]).model_copy(update=changes)
    expected = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "cpu"))
    with stand_in() as gpu:
        found = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "gpu"))
    assert found == expected
    assert bool(gpu.graphs) == ("shards" not in changes)


def test_bf16_trains_as_on_the_cpu(inputs, tmp_path, soon):
    recipe = tiny_runs.small(PARAMS.stage_one["asynchronous"])
    expected = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "cpu", "bf16"))
    with stand_in():
        found = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "gpu", "auto"))
    assert found == expected


@pytest.mark.parametrize("name", ["class_balanced", "class_aware", "instance", "progressive", "square_root"])
def test_a_sampler_trains_as_on_the_cpu(name, inputs, tmp_path, soon):
    recipe = tiny_runs.small(PARAMS.stage_one["ce_progressive"])
    changed = type(recipe).model_validate({**recipe.resolved(), "sampler": {"name": name}})
    expected = tiny_runs.contents(tiny_runs.trained(changed, inputs, tmp_path / "cpu"))
    with stand_in():
        assert tiny_runs.contents(tiny_runs.trained(changed, inputs, tmp_path / "gpu")) == expected


def test_trainings_that_share_a_device_train_as_alone(inputs, tmp_path, soon):
    names = ("mixup", "graloss", "ldam")
    recipes = {name: tiny_runs.small(PARAMS.stage_one[name], epochs=4) for name in names}
    expected = {
        name: tiny_runs.contents(tiny_runs.trained(recipes[name], inputs, tmp_path / name)) for name in names
    }
    jobs = [tiny_runs.job(recipes[name], inputs, tmp_path / f"together-{name}") for name in names]
    with stand_in() as gpu:
        assert training.compute_together(jobs) == [None] * len(names)
    assert {name: tiny_runs.contents(job.folder) for name, job in zip(names, jobs, strict=True)} == expected
    assert len(gpu.graphs) == 2 * len(names)


def waits(recipe: Any, inputs: dict[str, Path], place: Path, epochs: int, **changes: Any) -> list[str]:
    """What the host waits for in a training that is evaluated at its end only."""
    small = tiny_runs.small(recipe, epochs).model_copy(update={"evaluate_every": 0, **changes})
    with stand_in() as gpu:
        tiny_runs.trained(small, inputs, place / f"{epochs}-{changes}")
    return gpu.waits


@pytest.mark.parametrize(
    ("name", "changes"), [("ce_plain", {}), ("mixup", {}), ("mixup", {"shards": 2}), ("la_tau0.5", {})]
)
def test_an_epoch_more_is_one_wait_more(name, changes, inputs, tmp_path, soon):
    """Its steps, shards, mixing and augmentation need none; sums and the loss's curve are read at once."""
    recipe = PARAMS.stage_one[name]
    waits(recipe, inputs, tmp_path / "before", 20, **changes)  # the tables of augmentation are sent once
    few, more = (waits(recipe, inputs, tmp_path, epochs, **changes) for epochs in (18, 20))
    assert len(more) - len(few) == 2
    assert more.count("read (tolist)") - few.count("read (tolist)") == 2


def test_the_next_epoch_is_ready_before_the_sums_of_the_last_are_read(inputs, tmp_path, soon, monkeypatch):
    recipe = tiny_runs.small(PARAMS.stage_one["ce_plain"], epochs=3).model_copy(update={"evaluate_every": 0})
    with stand_in() as gpu:
        ready = loop.ready

        def noted(*arguments: Any) -> Any:
            gpu.notes.append(("epoch made ready", False))
            return ready(*arguments)

        monkeypatch.setattr(loop, "ready", noted)
        tiny_runs.trained(recipe, inputs, tmp_path / "gpu")
    ready_, read = "epoch made ready", "read (tolist)"
    order = [what for what, _ in gpu.notes if what in (ready_, read)]
    assert order == [ready_, ready_, read, ready_, read, read]


def test_tables_that_trainings_share_are_copied_before_they_are_kept(gpu):
    """A copy that the host does not wait for is there for the stream alone that asked for it."""
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8).to("cuda")
    for table, use in (
        (normalisation._scale_and_shift, lambda: normalisation.normalise(images, (0.5,) * 3, (0.25,) * 3)),
        (operations._sources, lambda: operations._move(images, "ShearX", 0.3, 0)),
        (device_operations._blur, lambda: device_operations.sharpened(images, 0.5)),
    ):
        table.cache_clear()
        before = len(gpu.waits)
        use()
        assert set(gpu.waits[before:]) == {"copy (to cuda:0)"}
        before = len(gpu.waits)
        use()
        assert gpu.waits[before:] == []


def test_nothing_is_added_up_at_indices_in_augmentation(gpu):
    images = torch.randint(0, 256, (500, 3, 16, 16), generator=generator("images"), dtype=torch.uint8)
    augment(images.to("cuda"), Augmentation(), generator("augment"))
    assert not {"scatter_add_", "scatter_add", "index_put_", "index_put", "bincount"} & set(gpu.operations)


def test_normalisation_is_in_the_graph_and_mixing_before_it(inputs, tmp_path, soon):
    for name, inside in (("ce_plain", True), ("mixup", False)):
        with stand_in() as gpu:
            tiny_runs.trained(tiny_runs.small(PARAMS.stage_one[name]), inputs, tmp_path / name)
        for recorded in gpu.graphs:
            assert inside == any("addcmul" in str(func) for func, *_ in recorded.steps)


def test_the_graphs_of_a_training_share_a_pool_of_memory_of_their_own(inputs, tmp_path, soon):
    jobs = [
        tiny_runs.job(tiny_runs.small(PARAMS.stage_one[name]), inputs, tmp_path / name)
        for name in ("ce_plain", "mixup")
    ]
    with stand_in() as gpu:
        assert training.compute_together(jobs) == [None, None]
    pools = [recorded.pool for recorded in gpu.graphs]
    assert None not in pools
    assert sorted(pools.count(pool) for pool in set(pools)) == [2, 2]


def test_steps_that_would_not_fit_a_second_time_are_not_captured(inputs, tmp_path, soon, monkeypatch):
    recipe = tiny_runs.small(PARAMS.stage_one["ce_plain"])
    expected = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "cpu"))
    with stand_in() as gpu:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (1 << 29, 80 << 30))
        assert tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "gpu")) == expected
    assert gpu.graphs == []


@pytest.fixture(scope="module")
def model(inputs, tmp_path_factory) -> Path:
    recipe = tiny_runs.small(PARAMS.stage_one["graloss"])
    return tiny_runs.trained(recipe, inputs, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def features(inputs, model, tmp_path_factory) -> Any:
    """Folders of features as the CPU makes them, by how batch normalisation is used."""
    place, recipe = tmp_path_factory.mktemp("features"), tiny_runs.small(PARAMS.stage_one["graloss"])
    return {
        mode: tiny_runs.extracted(recipe, model, inputs, place / mode, mode) for mode in ("eval", "train")
    }


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
def test_features_are_those_of_the_cpu(batchnorm, inputs, model, features, tmp_path):
    recipe = tiny_runs.small(PARAMS.stage_one["graloss"])
    with stand_in():
        found = tiny_runs.extracted(recipe, model, inputs, tmp_path / "gpu", batchnorm)
    assert tiny_runs.contents(found) == tiny_runs.contents(features[batchnorm])


@pytest.mark.parametrize("name", PARAMS.stage_two)
def test_a_classifier_is_that_of_the_cpu(name, inputs, features, tmp_path):
    classifier = PARAMS.stage_two[name]
    read, split = features[classifier.batchnorm], inputs["split"]
    with stand_in() as gpu:
        found = tiny_runs.contents(tiny_runs.fitted(classifier.method, read, split, tmp_path / "gpu"))
    assert gpu.notes
    tensors = load(found["classifier.safetensors"])
    assert all(bool(tensors[name].isfinite().all()) for name in ("weight", "bias"))
    if name not in DRAWN_ON_THE_DEVICE:
        expected = tiny_runs.contents(tiny_runs.fitted(classifier.method, read, split, tmp_path / "cpu"))
        assert found["classifier.safetensors"] == expected["classifier.safetensors"]
        one, other = (load(each["predictions.safetensors"]) for each in (found, expected))
        # Read from a file that is mapped, products round otherwise than from memory.
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"crop": 0, "flip": True, "autoaugment": "none", "cutout": 0},
        {"jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2}, "autoaugment": "none"},
        {"randaugment": {"operations": 2, "magnitude": 9}, "autoaugment": "none"},
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_is_that_of_the_cpu(settings, channels):
    images = torch.randint(0, 256, (300, channels, 16, 16), generator=generator("images"), dtype=torch.uint8)
    chosen = Augmentation.model_validate(settings)
    expected = augment(images, chosen, generator("augment"))
    with stand_in():
        on_device = augment(images.to("cuda"), chosen, generator("augment"))
        assert on_device.is_cuda
        assert torch.equal(on_device.cpu(), expected)


@pytest.mark.parametrize("changes", [{}, {"heads": "one", "power": 0.5}])
def test_a_student_trains_as_on_the_cpu(changes, inputs, model, tmp_path, soon):
    recipe = tiny_runs.distilled(**changes)
    expected = tiny_runs.contents(tiny_runs.taught(recipe, [model, model], inputs, tmp_path / "cpu"))
    with stand_in() as gpu:
        found = tiny_runs.contents(tiny_runs.taught(recipe, [model, model], inputs, tmp_path / "gpu"))
    assert found == expected
    assert len(gpu.graphs) >= 2
