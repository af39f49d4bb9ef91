"""Images that are made of a phase's training images and join them: the seam, with Bag of tricks' in it."""

import csv
from dataclasses import replace

import pytest
import torch

from longtail.errors import UserError
from longtail.settings.params import Params
from longtail.settings.recipe import Recipe
from longtail.settings.schedules import Length
from longtail.stage_one import training
from longtail.stage_one.companions import cam
from longtail.stage_one.loop import train
from longtail.stage_one.samplers import class_balanced
from longtail.stage_one.step import Outcome, Step, Stream
from tests.stage_one.conftest import COUNTS
from tests.stage_one.test_resume import KillError
from tests.stage_one.test_stage_one import RECIPE, files, prepared, run
from tests.stand_in import stand_in

RESAMPLED = {
    "name": "resampled",
    "sampler": "class_balanced",
    "schedule": {"epochs": 2},
    "learning_rate": {"peak": 0.01},
    "companions": {"name": "cam"},
}
PLAIN = {
    "name": "plain",
    "sampler": "class_balanced",
    "schedule": {"epochs": 1},
    "learning_rate": {"peak": 0.01},
    "transforms": [],
}
TRICKS = {"transforms": ["mixup"], "schedule": {"epochs": 1}, "then": [RESAMPLED]}
MADE = len(COUNTS) * (max(COUNTS) + min(COUNTS)) - sum(COUNTS)


def test_an_epoch_is_as_long_as_the_split_and_made_of_all_images(make_phase, make_modules):
    """The last 20 of 50 images are made ones: 30 images an epoch, of which some are these.

    A further stream without a sampler has the same images, made ones too.
    """
    seen = []

    class Noting(Step):
        def __call__(self, modules, batches, progress):
            assert torch.equal(batches[0].images, batches[1].images)
            seen.append(batches[0].images[:, 0, 0, 0].clone())
            return Outcome(0 * modules["network"](batches[0].images).sum(), torch.tensor(0))

    images = torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(50, 1, 6, 6).clone()
    phase = make_phase(
        images=images,
        own=30,
        length=Length(epochs=3),
        step=Noting(),
        augment=lambda images, _: images,
        normalise=lambda images: images.float(),
    )
    phase = replace(phase, streams=[*phase.streams, Stream(sampler=None)])
    state = train(phase, make_modules(), seed=0, precision="float32")
    assert [len(batch) for batch in seen] == [8, 8, 8, 6] * 3
    assert state.images == 90
    assert [row["step"] for row in state.history] == [4, 8, 12]
    for epoch in torch.cat(seen).int().reshape(3, 30):
        assert len(epoch.unique()) == 30  # each image once at most, as instance sampling has it
        assert (epoch >= 30).any()


def test_class_balanced_sampling_takes_made_images_as_often_as_others(inputs, tmp_path):
    """A class uniformly, then an image uniformly: of the class of one image nearly all are made ones."""
    phase = training.TrainingRun(prepared(inputs, tmp_path / "run", **TRICKS))._phase
    assert phase.own == sum(COUNTS)
    assert len(phase.images) == len(phase.labels) == sum(COUNTS) + MADE
    assert phase.labels.bincount().tolist() == [41] * 5
    drawn = torch.cat(
        [
            class_balanced.indices(
                phase.labels, torch.Generator().manual_seed(seed), 0.0, class_balanced.Settings()
            )
            for seed in range(50)
        ]
    )
    share = phase.labels[drawn].bincount() / len(drawn)
    assert (share - 0.2).abs().max() < 4 * (0.16 / len(drawn)) ** 0.5
    rarest = drawn[phase.labels[drawn] == 4]
    expected = 40 / 41
    spread = (expected * (1 - expected) / len(rarest)) ** 0.5
    assert abs(float((rarest >= phase.own).double().mean()) - expected) < 4 * spread


def test_later_phases_have_the_original_images_alone(inputs, tmp_path):
    tricks = {**TRICKS, "then": [RESAMPLED, PLAIN]}
    job = run(inputs, tmp_path / "run", **tricks)
    assert "companions" not in job.facts
    middle = training.TrainingRun(prepared(inputs, tmp_path / "again", **TRICKS))
    assert middle.job.facts["companions"] == MADE
    assert middle.job.facts["steps"] == 2 * -(-sum(COUNTS) // 16)
    last = training.TrainingRun(prepared(inputs, tmp_path / "last", **tricks))
    assert len(last._phase.images) == last._phase.own == sum(COUNTS)
    assert not last._phase.transforms
    with (job.folder / "history.csv").open() as file:
        assert [row["phase"] for row in csv.DictReader(file)] == ["train", "resampled", "resampled", "plain"]


def test_they_are_made_by_the_network_of_the_phase_before_in_evaluation_mode(inputs, tmp_path, monkeypatch):
    found, make = [], cam.make

    def noted(settings, context):
        found.append(
            (context.network.training, {k: v.clone() for k, v in context.network.state_dict().items()})
        )
        return make(settings, context)

    monkeypatch.setattr(cam, "make", noted)
    run(inputs, tmp_path / "run", **TRICKS)
    ((in_training, weights),) = found
    assert not in_training
    before = training.load_file(tmp_path / "run/phase0/outputs/model.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("changes", [{"shards": 2}, {"weight_average": {"decay": 0.9}}])
def test_with_what_else_a_recipe_may_have_it_runs_twice_to_the_same_bits(inputs, tmp_path, changes):
    one, other = (run(inputs, tmp_path / place, **{**TRICKS, **changes}) for place in ("one", "other"))
    assert files(one.folder) == files(other.folder)


@pytest.mark.parametrize("epochs", [1, 2])
def test_killed_inside_the_phase_it_ends_the_same(inputs, tmp_path, monkeypatch, epochs):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    whole = run(inputs, tmp_path / "whole", **TRICKS)
    report = training.TrainingRun.report

    def killed(self, row, state):
        report(self, row, state)
        if len(state.history) == 1 + epochs:
            raise KillError

    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingRun, "report", killed)
        with pytest.raises(KillError):
            run(inputs, tmp_path / "resumed", **TRICKS)
    (tmp_path / "resumed/outputs").rename(tmp_path / "resumed/left")
    resumed = run(inputs, tmp_path / "resumed", **TRICKS)
    assert files(resumed.folder) == files(whole.folder)


def test_on_the_stand_in_of_a_gpu_it_is_the_same_training(inputs, tmp_path):
    expected = run(inputs, tmp_path / "cpu", **TRICKS)
    with stand_in() as gpu:
        found = run(inputs, tmp_path / "gpu", **TRICKS)
    assert files(found.folder) == files(expected.folder)
    assert len(gpu.graphs) >= 2


def test_a_network_without_maps_is_refused_before_anything_runs():
    recipe = {**RECIPE, "network": {"name": "bbn", "depth": 8, "width": 4}, "then": [RESAMPLED]}
    with pytest.raises(ValueError, match=r"companions cam .phase resampled.: network bbn has no maps"):
        Recipe.model_validate(recipe)


def test_what_cannot_be_is_refused_before_anything_runs(root):
    recipe = {**RECIPE, "classes": "rich"}
    poor = {**RESAMPLED, "classes": "poor", "bank": {}, "retention": "graph_matching"}
    with pytest.raises(ValueError, match="retention and companions exclude each other"):
        Recipe.model_validate({**recipe, "then": [poor]})
    with pytest.raises(ValueError, match="there is no 'cams'; there are cam"):
        Recipe.model_validate({**RECIPE, "then": [{**RESAMPLED, "companions": "cams"}]})
    settings = {
        "dataset": "mine",
        "data": {"kind": "folder", "root": "pictures"},
        "imbalance": {"profile": "natural"},
        "stage_one": {"tricks": {**RECIPE, "then": [RESAMPLED]}},
        "stage_two": {"joint": {}},
    }
    with pytest.raises(
        UserError, match=r"stage_one.tricks: companions \(phase resampled\) are made in memory"
    ):
        Params.read(settings, "mine.yaml")


def test_without_the_key_a_recipe_is_what_it_was():
    then = {key: value for key, value in RESAMPLED.items() if key != "companions"}
    recipe = Recipe.model_validate({**RECIPE, "then": [then]})
    assert "companions" not in recipe.resolved(hashed=True)["then"][0]
    made = Recipe.model_validate({**RECIPE, "then": [RESAMPLED]})
    assert made.resolved(hashed=True)["then"][0]["companions"] == {
        "name": "cam",
        "view": "clean",
        "box": "whole",
    }
