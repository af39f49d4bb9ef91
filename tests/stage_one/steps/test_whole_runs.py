"""Runs of RSG and M2m from end to end: killed and gone on with, in bfloat16, planned, exported."""

import csv
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from longtail.export.write import export
from longtail.orchestration import execute
from longtail.orchestration.planner import plan
from longtail.runs import store
from longtail.runs.job import Job
from longtail.settings.params import Params
from longtail.settings.reading import parse
from longtail.stage_one import training
from tests import tiny_runs
from tests.stage_one.test_resume import KillError
from tests.tiny import TINY

RECIPES = tiny_runs.params().stage_one
NAMES = ("rsg", "m2m")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """By name: a small recipe that generates from half its four epochs on, its inputs and its run."""
    place = tmp_path_factory.mktemp("whole")
    split = tiny_runs.write_inputs(place / "inputs")
    found = {}
    for name in NAMES:
        recipe = tiny_runs.small(RECIPES[name], epochs=4)
        inputs = tiny_runs.with_finished_runs(recipe, split, place / f"{name}-before")
        found[name] = recipe, inputs, tiny_runs.trained(recipe, inputs, place / name)
    return found


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_killed_before_at_or_after_its_start_it_ends_the_same(made, name, epochs, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    recipe, inputs, whole = made[name]
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
    recipe, inputs, whole = made["m2m"]
    never = recipe.step.model_copy(update={"options": recipe.step.options.model_copy(update={"start": 1.0})})
    other = tiny_runs.trained(recipe.model_copy(update={"step": never}), inputs, tmp_path)
    rows = [list(csv.DictReader((folder / "history.csv").open())) for folder in (whole, other)]
    assert rows[0][:2] == rows[1][:2]
    assert rows[0][2]["train_loss"] != rows[1][2]["train_loss"]


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_trains(made, name, tmp_path):
    recipe, inputs, whole = made[name]
    tiny_runs.trained(recipe, inputs, tmp_path, "bf16")
    rows = [list(csv.DictReader((folder / "history.csv").open())) for folder in (whole, tmp_path / "phase0")]
    assert float(rows[1][0]["train_loss"]) == pytest.approx(float(rows[0][0]["train_loss"]), rel=0.1)
    assert rows[0] != rows[1]


def test_the_network_of_an_rsg_run_has_the_tensors_of_any_other(made):
    network = load_file(made["rsg"][2] / "model.safetensors")
    parts = {name.partition(".")[0] for name in network}
    assert parts == {"conv", "bn", "stage1", "stage2", "stage3", "head"}


def test_a_project_plans_trains_and_exports_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.home.cache_clear()
    settings = parse(TINY)
    plain, network = settings["stage_one"]["ce"], {"name": "resnet_cifar", "depth": 8, "width": 8}
    settings["stage_one"]["rsg"] = {**plain, "step": {"name": "rsg", "hidden": 8, "start": 0.5}}
    cosine = {"network": {**network, "head": "cosine"}, "loss": "ldam"}
    step = {"name": "m2m", "source": "ce", "start": 0.5, "iterations": 2, "gamma": 0.0}
    settings["stage_one"]["m2m"] = {**cosine, "step": step}
    rows = [
        {"section": "Own", "label": name, "stage_one": name, "stage_two": "joint"} for name in ("rsg", "m2m")
    ]
    settings |= {"sweeps": {}, "figures": {}, "tables": {"own": {"caption": "Own", "rows": rows}}}
    del settings["methods"]
    Path("params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    planned = plan(Params.load("params.yaml"))
    planned.write()
    for run in planned.everything():
        execute.execute(run.step, run.name)
    (run,) = (run for run in planned.stage_one.values() if "-m2m-" in run.name)
    assert run.needs["source.0.stage_one"].name.startswith("digits-exp10-ce-seed0-")
    for name in (name for name in planned.stage_two if "rsg" in name or "m2m" in name):
        tensors = load_file(export(name) / "model.safetensors")
        assert tensors
        assert not [key for key in tensors if "rsg" in key or "contrast" in key or "centres" in key]
    store.home.cache_clear()
