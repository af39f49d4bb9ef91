"""Trainings whose batch normalisation the extension computes: they say so, and every method works with it."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from longtail.runs.job import Job
from longtail.stage_one import training
from longtail.stage_one.networks import extension, fused_batchnorm
from tests import tiny_runs

PARAMS = tiny_runs.params()
FUSED = f"fused {extension.digest()[:8]}"


@pytest.fixture
def data(tmp_path) -> dict[str, Path]:
    return tiny_runs.write_inputs(tmp_path / "inputs")


def trained(recipe: Any, data: dict[str, Path], place: Path, precision: str = "bf16") -> Job:
    """The job of the last phase, which is over."""
    inputs = tiny_runs.with_finished_runs(recipe, data, place)
    for number in range(len(recipe.then) + 1):
        job = tiny_runs.job(recipe.until(number), inputs, place, precision)
        training.compute(job)
        inputs = {**inputs, "stage_one": job.folder}
    return job


def recipe(name: str, **changes: Any) -> Any:
    return tiny_runs.small(PARAMS.stage_one[name]).model_copy(update=changes)


def loss(job: Job) -> float:
    """Mean of the first epoch, before small differences have grown."""
    with (job.folder / "history.csv").open() as file:
        return float(next(csv.DictReader(file))["train_loss"])


def count(monkeypatch) -> list[str]:
    """What the extension is asked for from now on."""
    real, calls = extension.extension(), []
    assert real

    def counted(name: str) -> Any:
        function = getattr(real, name)
        return lambda *arguments: (calls.append(name), function(*arguments))[1]

    made = extension.Extension(real.name, counted("forward"), counted("backward"))
    monkeypatch.setattr(fused_batchnorm, "extension", lambda: made)
    return calls


def test_a_run_says_how_its_batch_normalisation_was_computed(data, tmp_path, use_extension, monkeypatch):
    ours = trained(recipe("ce"), data, tmp_path / "ours")
    assert ours.facts["batch_norm"] == FUSED
    assert [text.endswith(f", batch_norm {FUSED}") for text in ours.facts["environments"]] == [True]
    again = trained(recipe("ce"), data, tmp_path / "again")
    assert tiny_runs.contents(again.folder) == tiny_runs.contents(ours.folder)
    alone = trained(recipe("ce"), data, tmp_path / "float32", "float32")
    monkeypatch.setenv(extension.VARIABLE, "off")
    without = trained(recipe("ce"), data, tmp_path / "without")
    for job in (alone, without):
        assert "batch_norm" not in job.facts
        assert not any("batch_norm" in text for text in job.facts["environments"])
    assert tiny_runs.contents(without.folder) != tiny_runs.contents(ours.folder)
    off = trained(recipe("ce"), data, tmp_path / "float32-off", "float32")
    assert tiny_runs.contents(off.folder) == tiny_runs.contents(alone.folder)


def test_a_phase_in_which_no_such_layer_learns_says_nothing(data, tmp_path, use_extension, monkeypatch):
    calls = count(monkeypatch)
    fine_tuned = recipe("ce_fine_tuned")
    head = fine_tuned.model_copy(
        update={"then": [fine_tuned.then[0].model_copy(update={"freeze": "trunk", "retention": None})]}
    )
    first = trained(head.until(0), data, tmp_path / "first")
    assert first.facts["batch_norm"] == FUSED
    calls.clear()
    job = tiny_runs.job(head, {**data, "stage_one": first.folder}, tmp_path / "then", "bf16")
    training.compute(job)
    assert "batch_norm" not in job.facts
    assert not calls


class KillError(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("strict", [False, True])
def test_a_training_that_goes_on_with_the_extension_names_both(
    data, tmp_path, use_extension, built, monkeypatch, strict
):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    monkeypatch.setenv("LONGTAIL_RESUME", "strict" if strict else "")
    job = tiny_runs.job(recipe("ce"), data, tmp_path / "run", "bf16")

    def kill(*_: object) -> None:
        raise KillError

    with monkeypatch.context() as patch:
        patch.setenv(extension.VARIABLE, "off")
        patch.setattr(training.TrainingRun, "report", kill)
        with pytest.raises(KillError):
            training.compute(job)
    training.compute(job)
    *before, last = job.facts["environments"]
    assert last.endswith(f"batch_norm {FUSED}")
    assert before == ([] if strict else [last.removesuffix(f", batch_norm {FUSED}")])


METHODS = {
    "gradients by parts": lambda: recipe("ce"),
    "shards": lambda: recipe("mixup", shards=2),
    "two streams": lambda: recipe("bbn"),
    "streams in shards": lambda: recipe("bbn", shards=2),
    "features split and made": lambda: recipe("rsg"),
    "gradients of images": lambda: recipe("m2m"),
    "a meta step": lambda: recipe("metasaug"),
    "a network that follows": lambda: recipe("ssd_features"),
    "teachers": lambda: recipe("dive"),
    "two phases with a bank and retention": lambda: recipe("asynchronous"),
    "a last stage apart": lambda: recipe("asynchronous_apart"),
    "three phases with companions": lambda: recipe("bag_of_tricks"),
    "an average": lambda: averaged(),
}


def averaged() -> Any:
    made = recipe("ce")
    return type(made).model_validate({**made.resolved(), "weight_average": {"decay": 0.9}})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_it(data, tmp_path, use_extension, monkeypatch, method):
    """The losses of the first epoch are those without it, but for rounding."""
    made = METHODS[method]()
    calls = count(monkeypatch)
    ours = trained(made, data, tmp_path / "ours")
    assert calls.count("forward") > 0
    assert calls.count("backward") > 0
    assert ours.facts["batch_norm"] == FUSED
    monkeypatch.setattr(fused_batchnorm, "extension", lambda: None)
    calls.clear()
    without = trained(made, data, tmp_path / "without")
    assert not calls
    assert loss(ours) == pytest.approx(loss(without), rel=0.02)
    measured = json.loads((ours.folder / "metrics.json").read_text())["test"]["accuracy"]
    assert 0 <= measured <= 1
    assert all(tensor.isfinite().all() for tensor in weights(ours))


def weights(job: Job) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(job.folder / "model.safetensors").values())
