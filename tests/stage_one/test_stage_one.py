"""The step as a whole: from a split to model, history and metrics."""

import csv
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from longtail.data import labelled_images, normalisation
from longtail.errors import UserError
from longtail.features import extract as features
from longtail.metrics import metrics
from longtail.runs.job import Job
from longtail.settings.classifier import FeaturesSettings, StageTwoSettings
from longtail.settings.recipe import StageOneSettings
from longtail.stage_one import evaluation, training
from longtail.stage_one.evaluation import Evaluation
from longtail.stage_one.networks import resnet_cifar
from longtail.stage_two import fitting

from .conftest import COUNTS

RECIPE = {
    "network": {"name": "resnet_cifar", "depth": 8, "width": 4},
    "loss": "logit_adjusted",
    "augmentation": {"crop": 1, "autoaugment": "none", "cutout": 2},
    "batch_size": 16,
    "schedule": {"epochs": 3},
    "learning_rate": {"peak": 0.05, "warmup": 1},
    "evaluate_every": 2,
}

AGAIN = {
    "name": "again",
    "sampler": "class_balanced",
    "schedule": {"epochs": 1},
    "learning_rate": {"peak": 0.05},
    "reset_head": True,
}


def prepared(inputs: dict[str, Path], place: Path, seed: int = 0, **changes: Any) -> Job:
    """The job of a recipe's last phase; those of the phases before it are run, unless they are finished."""
    if changes.get("then"):
        *earlier, _ = changes["then"]
        before = place / f"phase{len(earlier)}"
        if not (before / "outputs/metrics.json").exists():
            run(inputs, before, seed, **{**changes, "then": earlier})
        inputs = {**inputs, "stage_one": before / "outputs"}
    settings = StageOneSettings.model_validate(
        {"dataset": "cifar10", "recipe": RECIPE | changes, "seed": seed, "precision": "float32"}
    )
    job = Job("stage_one", "run", settings, inputs, place / "outputs", place / "scratch")
    job.folder.mkdir(parents=True, exist_ok=True)
    job.scratch.mkdir(exist_ok=True)
    return job


def run(inputs: dict[str, Path], place: Path, seed: int = 0, **changes: Any) -> Job:
    job = prepared(inputs, place, seed, **changes)
    training.compute(job)
    return job


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_it_writes_model_history_and_metrics(inputs, tmp_path):
    job = run(inputs, tmp_path / "run")
    assert set(files(job.folder)) == {"model.safetensors", "history.csv", "metrics.json"}
    rows = list(csv.DictReader((job.folder / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["step"] for row in rows] == ["5", "10", "15"]
    assert [bool(row["test_accuracy"]) for row in rows] == [False, True, True]
    found = json.loads((job.folder / "metrics.json").read_text())
    assert found["test"]["n"] == 25
    assert found["validation"]["n"] == 10
    assert float(rows[-1]["test_accuracy"]) == found["test"]["accuracy"]
    assert float(rows[-1]["validation_accuracy"]) == found["validation"]["accuracy"]
    assert job.facts["parameters"] == sum(
        p.numel() for p in resnet_cifar.build(resnet_cifar.Settings(depth=8, width=4), 3, 5).parameters()
    )
    assert (job.facts["steps"], job.facts["epochs"], job.facts["precision"]) == (15, 3, "float32")
    assert job.facts["images_per_second"] > 0


def test_runs_that_train_at_once_are_the_same_runs(inputs, tmp_path):
    """Four in one process, two of which fail, one before it begins: the others are as if alone."""
    changes: list[dict[str, Any]] = [
        {},
        {"learning_rate": {"peak": 1e30}},
        {"then": [AGAIN]},
        {"classes": "rich", "rich": {"above": 1000}},
    ]
    alone = [files(run(inputs, tmp_path / f"alone{seed}", seed, **changes[seed]).folder) for seed in (0, 2)]
    jobs = [prepared(inputs, tmp_path / f"{seed}", seed, **changes[seed]) for seed in range(4)]
    errors = training.compute_together(jobs)
    assert [type(error) for error in errors] == [type(None), UserError, type(None), UserError]
    assert [files(jobs[0].folder), files(jobs[2].folder)] == alone
    assert jobs[0].facts["runs_at_once"] == 4
    assert not any((jobs[number].folder / "model.safetensors").exists() for number in (1, 3))


def test_the_metrics_are_those_of_the_model_that_is_written(inputs, tmp_path):
    job = run(inputs, tmp_path / "run")
    network = resnet_cifar.build(resnet_cifar.Settings(depth=8, width=4), 3, 5)
    weights = load_file(job.folder / "model.safetensors")
    network.load_state_dict(weights)
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    test = load_file(inputs["acquire"] / "test.safetensors")
    network = network.to(memory_format=torch.channels_last)
    logits = evaluation.predict(
        network,
        test["images"],
        lambda images: normalisation.normalise(images, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        torch.device("cpu"),
        "float32",
    )
    found = json.loads((job.folder / "metrics.json").read_text())["test"]
    assert found == metrics(logits, test["labels"], torch.tensor(COUNTS))


def test_two_runs_are_the_same_to_the_last_bit_and_another_seed_is_another(inputs, tmp_path):
    torch.manual_seed(1)
    one = run(inputs, tmp_path / "one")
    torch.manual_seed(2)
    two = run(inputs, tmp_path / "two")
    assert files(one.folder) == files(two.folder)
    other = run(inputs, tmp_path / "other", seed=1)
    assert files(one.folder)["model.safetensors"] != files(other.folder)["model.safetensors"]


def test_a_run_that_was_killed_after_its_last_epoch_writes_the_same_files(inputs, tmp_path, monkeypatch):
    one = run(inputs, tmp_path / "one")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_file", fail)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, tmp_path / "two")
    (tmp_path / "two/outputs").rename(tmp_path / "two/left")
    two = run(inputs, tmp_path / "two")
    assert files(one.folder) == files(two.folder)


@pytest.mark.parametrize("under_git", [False, True])
def test_a_training_needs_no_repository_makes_none_and_calls_nobody(inputs, tmp_path, monkeypatch, under_git):
    called = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: called.append(host) or [])
    monkeypatch.setenv("DVC_STUDIO_TOKEN", "isat_1")
    monkeypatch.setenv("DVC_STUDIO_REPO_URL", "git@example.org:someone/something.git")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0" * 40)  # as under `dvc exp run`
    monkeypatch.setenv("DVC_EXP_NAME", "some-experiment")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    if under_git:
        subprocess.run(["git", "init", "--quiet"], check=True)
    before = sorted(home.rglob("*"))
    run(inputs, tmp_path / "run")
    assert sorted(home.rglob("*")) == before
    assert called == []


def test_validation_on_the_test_images_is_computed_once(inputs):
    part = labelled_images.read_part(inputs["split"], inputs["acquire"], "test")
    asked = []

    class Network(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            asked.append(len(images))
            return images.mean(dim=(2, 3))

    evaluation = Evaluation(
        Network(),
        {"test": part, "validation": part},
        torch.Tensor.float,
        torch.device("cpu"),
        "float32",
        torch.ones(3, dtype=torch.bool),
    )
    found = evaluation.accuracies()
    assert asked == [25]
    assert found["test_accuracy"] == found["validation_accuracy"]


def test_a_class_without_training_images_is_one_line_for_the_user(inputs, tmp_path):
    counts = inputs["split"] / "counts.csv"
    counts.write_text(counts.read_text().replace("c4,1,", "c4,0,"))
    with pytest.raises(UserError, match=r"loss logit_adjusted: classes \[4\] have no training image"):
        run(inputs, tmp_path / "run")


def test_the_class_balanced_sampler_and_iterations_are_settings(inputs, tmp_path):
    job = run(inputs, tmp_path / "run", sampler="class_balanced", schedule={"iterations": 7})
    assert (job.facts["steps"], job.facts["epochs"]) == (7, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"transforms": ["mixup"]},
        {"transforms": ["remix"], "loss": {"name": "class_balanced", "start": 0.5}},
        {"sampler": "class_aware", "loss": "focal"},
    ],
)
def test_transforms_losses_and_samplers_are_settings(inputs, tmp_path, changes):
    one, other = run(inputs, tmp_path / "one"), run(inputs, tmp_path / "other", **changes)
    again = run(inputs, tmp_path / "again", **changes)
    model = "model.safetensors"
    assert files(other.folder)[model] == files(again.folder)[model]
    assert files(other.folder)[model] != files(one.folder)[model]


LDAM = {
    "loss": {"name": "ldam", "reweight": {"start": 0.5}},
    "network": {**RECIPE["network"], "head": "cosine"},
}


@pytest.mark.parametrize("changes", [{}, LDAM], ids=["linear head", "cosine head"])
def test_stage_one_as_it_is_under_stage_twos_name_has_the_same_metrics(inputs, tmp_path, changes):
    """Through the features and the stored classifier: accuracies and calibration."""
    trained = run(inputs, tmp_path / "one", **changes)
    recipe = trained.settings.recipe
    settings = FeaturesSettings(
        dataset="cifar10",
        views=1,
        network=recipe.network,
        augmentation=recipe.augmentation,
        batch_size=16,
        seed=0,
        precision="float32",
    )
    job = Job(
        "features", "run", settings, {**inputs, "stage_one": trained.folder}, tmp_path / "features", tmp_path
    )
    job.folder.mkdir()
    features.compute(job)
    method = StageTwoSettings(method="joint", seed=0)
    joint = Job(
        "stage_two",
        "run",
        method,
        {"features": job.folder, "split": inputs["split"]},
        tmp_path / "two",
        tmp_path,
    )
    joint.folder.mkdir()
    fitting.compute(joint)
    one, two = (
        json.loads((folder / "metrics.json").read_text()) for folder in (trained.folder, joint.folder)
    )
    assert two["test"].pop("expected_calibration_error") == pytest.approx(
        one["test"].pop("expected_calibration_error"), abs=1e-6
    )
    assert two["test"] == one["test"]
    logits = load_file(joint.folder / "predictions.safetensors")["logits"]
    torch.testing.assert_close(logits, load_file(job.folder / "test.safetensors")["logits"])
    keys = {"weight", "bias", "tukey"} | ({"normalise"} if changes else set())
    assert set(load_file(joint.folder / "classifier.safetensors")) == keys
    if changes:
        assert logits.abs().max() <= 30 * 1.0001
