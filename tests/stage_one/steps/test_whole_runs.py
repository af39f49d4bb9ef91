"""Runs of rows of table 2 from end to end: killed and gone on with, in bfloat16, planned, exported."""

import csv
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from longtail.export import onnx_session
from longtail.export.module import load_exported
from longtail.export.write import export
from longtail.orchestration import execute
from longtail.orchestration.planner import plan
from longtail.runs import store
from longtail.runs.job import Job
from longtail.settings.params import Params
from longtail.settings.reading import parse
from longtail.stage_one import checkpoint, training
from longtail.stage_one.assembly import make_network
from tests import tiny_runs
from tests.stage_one.test_resume import KillError
from tests.tiny import TINY

RECIPES = tiny_runs.params().stage_one
NAMES = ("rsg", "m2m")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """By name: a small recipe that begins what is late at half its four epochs, its inputs and its run."""
    place = tmp_path_factory.mktemp("whole")
    split = tiny_runs.write_inputs(place / "inputs")

    @cache
    def run(name):
        recipe = tiny_runs.small(RECIPES[name], epochs=4)
        inputs = tiny_runs.with_finished_runs(recipe, split, place / f"{name}-before")
        return recipe, inputs, tiny_runs.trained(recipe, inputs, place / name)

    return run


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_killed_before_at_or_after_its_start_it_ends_the_same(made, name, epochs, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    recipe, inputs, whole = made(name)
    report = training.TrainingRun.report

    def killed(self, row, state):
        report(self, row, state)
        if len(state.history) == epochs:
            raise KillError

    job = tiny_runs.job(recipe, inputs, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingRun, "report", killed)
        with pytest.raises(KillError):
            training.compute(job)
    again = tmp_path / "again"
    again.mkdir()
    training.compute(Job("stage_one", "run", job.settings, inputs, again, job.scratch))
    assert tiny_runs.contents(again) == tiny_runs.contents(whole)


def test_until_they_begin_new_images_change_nothing(made, tmp_path):
    recipe, inputs, whole = made("m2m")
    never = recipe.step.model_copy(update={"options": recipe.step.options.model_copy(update={"start": 1.0})})
    other = tiny_runs.trained(recipe.model_copy(update={"step": never}), inputs, tmp_path)
    rows = [list(csv.DictReader((folder / "history.csv").open())) for folder in (whole, other)]
    assert rows[0][:2] == rows[1][:2]
    assert rows[0][2]["train_loss"] != rows[1][2]["train_loss"]


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_trains(made, name, tmp_path):
    recipe, inputs, whole = made(name)
    tiny_runs.trained(recipe, inputs, tmp_path, "bf16")
    rows = [list(csv.DictReader((folder / "history.csv").open())) for folder in (whole, tmp_path / "phase0")]
    assert float(rows[1][0]["train_loss"]) == pytest.approx(float(rows[0][0]["train_loss"]), rel=0.1)
    assert rows[0] != rows[1]


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("bbn", set()),
        ("bag_of_tricks", set()),
        ("m2m", set()),
        ("rsg", {"rsg"}),
        ("metasaug", {"margins", "statistics"}),
        ("ssd_features", {"projector", "key_network", "key_projector", "queue"}),
        ("ssd", {"hard"}),
    ],
)
def test_a_finished_run_has_its_network_and_nothing_of_its_step(made, name, own):
    recipe, _, folder = made(name)
    scratch = folder.with_name(folder.name.replace("phase", "scratch"))
    trained, _ = checkpoint.read(scratch / "checkpoint.safetensors")
    modules = {key.split(".")[1] for key in trained if key.startswith("modules.")}
    assert modules - {"network", "loss"} == own
    written = load_file(folder / "model.safetensors")
    fresh = make_network(recipe, 3, len(tiny_runs.COUNTS), 0, "network").state_dict()
    assert {key: tensor.shape for key, tensor in written.items()} == {
        key: tensor.shape for key, tensor in fresh.items()
    }
    assert all(torch.equal(tensor, trained[f"modules.network.{key}"]) for key, tensor in written.items())


NETWORK = {"name": "resnet_cifar", "depth": 8, "width": 8}
SCHEDULE = {"schedule": {"epochs": 1}, "learning_rate": {"peak": 0.1}}
EXPORTED = {
    "bbn": {"network": {"name": "bbn", "depth": 8, "width": 8}, "step": "two_streams"},
    "bag_of_tricks": {
        "transforms": [{"name": "mixup", "alpha": 1.0}],
        "then": [
            {"name": "cam_sampling", "sampler": "class_balanced", "companions": "cam", **SCHEDULE},
            {"name": "without_mixup", "sampler": "class_balanced", "transforms": [], **SCHEDULE},
        ],
    },
    "rsg": {"step": {"name": "rsg", "hidden": 8, "start": 0.5}},
    "m2m": {
        "network": {**NETWORK, "head": "cosine"},
        "loss": "ldam",
        "step": {"name": "m2m", "source": "ce", "start": 0.5, "iterations": 2, "gamma": 0.0},
    },
    "metasaug": {"step": {"name": "metasaug", "start": 0.5, "meta_images": 2}},
    "ssd": {"step": {"name": "distillation", "teacher": {"stage_one": "ssd_features", "stage_two": "lws"}}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder and the plan of a project of these recipes, all of whose runs are finished."""
    settings = parse(TINY)
    plain = settings["stage_one"]["ce"]
    entries = {"ssd_features": {"step": {"name": "contrastive", "queue": 64}}, **EXPORTED}
    settings["stage_one"] |= {name: {**plain, **entry} for name, entry in entries.items()}
    settings["stage_two"]["lws"] = {"epochs": 1}
    rows = [{"section": "Own", "label": name, "stage_one": name, "stage_two": "joint"} for name in EXPORTED]
    settings |= {"sweeps": {}, "figures": {}, "tables": {"own": {"caption": "Own", "rows": rows}}}
    del settings["methods"]
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store.home.cache_clear()
        Path("params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        planned = plan(Params.load("params.yaml"))
        planned.write()
        for run in planned.everything():
            execute.execute(run.step, run.name)
    store.home.cache_clear()
    return folder, planned


@pytest.fixture
def planned(finished, monkeypatch):
    """The plan of the project, which is the current folder."""
    folder, found = finished
    monkeypatch.chdir(folder)
    store.home.cache_clear()
    yield found
    store.home.cache_clear()


def test_a_run_is_planned_with_what_it_is_built_on(planned):
    def needed(name):
        (run,) = (run for run in planned.stage_one.values() if run.name.startswith(f"digits-exp10-{name}-"))
        return {key: need.name.split("-seed0-")[0] for key, need in run.needs.items()}

    assert needed("m2m")["source.0.stage_one"] == "digits-exp10-ce"
    assert needed("ssd")["teacher.0.stage_one"] == "digits-exp10-ssd_features"


@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_model_has_the_logits_of_its_run_in_torch_and_in_onnxruntime(planned, name):
    (run,) = (run for run in planned.stage_two if run.startswith(f"digits-exp10-{name}-"))
    folder = export(run)
    expected = load_file(store.stored("stage_two", run) / "predictions.safetensors")["logits"]
    images = load_file(store.stored("acquire", "digits") / "test.safetensors")["images"]
    model, description = load_exported(folder)  # which refuses a tensor that is not of the network
    assert description.dimensions == (64 if name == "bbn" else 32)  # of both branches, or of the one network
    logits = model(images)[1]
    largest = float(expected.abs().max())
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * largest)
    session = onnx_session.session((folder / "model.onnx").read_bytes(), "cpu")
    (found,) = session.run(["logits"], {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4 * largest)
