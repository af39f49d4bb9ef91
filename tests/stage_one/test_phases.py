"""Recipes of several phases: what each has of its own, and what happens where one ends."""

import csv
import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from longtail.errors import UserError
from longtail.settings.phase import PhaseSettings
from longtail.stage_one import training
from longtail.stage_one.freezing import begun_anew
from longtail.stage_one.steps import supervised
from tests.stage_one.test_resume import KillError

from .test_stage_one import files, run

FINE_TUNE = {
    "name": "fine_tune",
    "sampler": "class_balanced",
    "schedule": {"epochs": 2},
    "learning_rate": {"peak": 0.01},
}
MANY = [
    {**FINE_TUNE, "loss": {"name": "class_balanced", "start": 0.5}, "transforms": ["mixup"]},
    {**FINE_TUNE, "name": "head", "reset_head": True, "freeze": "trunk", "schedule": {"iterations": 7}},
]


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def split_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Trunk and head of a model, batch statistics included."""
    state = load_file(folder / "model.safetensors")
    head = {name: tensor for name, tensor in state.items() if name.startswith("head.")}
    return {name: tensor for name, tensor in state.items() if name not in head}, head


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_phases_follow_each_with_its_own_schedule_and_loss(inputs, tmp_path):
    job = run(inputs, tmp_path / "run", then=MANY)
    rows = history(job.folder)
    expected = [("train", "1"), ("train", "2"), ("train", "3"), ("fine_tune", "1"), ("fine_tune", "2")]
    assert [(row["phase"], row["epoch"]) for row in rows] == [*expected, ("head", "1"), ("head", "2")]
    assert [bool(row["gamma"]) for row in rows] == [True] * 3 + [False] * 2 + [True] * 2
    assert float(rows[3]["learning_rate"]) <= 0.01
    assert (job.facts["epochs"], job.facts["steps"]) == (2, 7)
    measured = json.loads((job.folder / "metrics.json").read_text())
    assert float(rows[-1]["test_accuracy"]) == measured["test"]["accuracy"]


def test_the_phases_before_are_those_of_a_recipe_that_ends_there(inputs, tmp_path):
    alone, followed = run(inputs, tmp_path / "one"), run(inputs, tmp_path / "two", then=[FINE_TUNE])
    for a, b in zip(history(alone.folder), history(followed.folder)[:3], strict=True):
        assert a["train_loss"] == b["train_loss"]
    assert not any(
        same(*pair) for pair in zip(*map(split_state, (alone.folder, followed.folder)), strict=True)
    )


@pytest.mark.parametrize("reset", [False, True])
def test_a_frozen_trunk_stays_to_the_last_bit_batch_statistics_included(inputs, tmp_path, reset):
    alone = run(inputs, tmp_path / "one")
    then = [{**FINE_TUNE, "freeze": "trunk", "reset_head": reset}]
    followed = run(inputs, tmp_path / "two", then=then)
    (trunk, head), (kept, learnt) = split_state(alone.folder), split_state(followed.folder)
    assert same(trunk, kept)
    assert not same(head, learnt)


def test_a_new_head_is_new_and_learns_while_the_old_one_would_go_on(inputs, tmp_path):
    still = {"learning_rate": {"peak": 1e-12}, "schedule": {"iterations": 1}}
    alone = run(inputs, tmp_path / "one")
    (_, old) = split_state(alone.folder)
    (_, kept) = split_state(run(inputs, tmp_path / "two", then=[{**FINE_TUNE, **still}]).folder)
    reset = {**FINE_TUNE, **still, "reset_head": True}
    (_, new) = split_state(run(inputs, tmp_path / "three", then=[reset]).folder)
    torch.testing.assert_close(old, kept)
    assert (new["head.weight"] - old["head.weight"]).abs().mean() > 0.1
    again = split_state(run(inputs, tmp_path / "four", then=[reset]).folder)[1]
    assert same(new, again)


STILL = {"learning_rate": {"peak": 1e-12}, "schedule": {"iterations": 1}}


@pytest.mark.parametrize(
    ("apart", "own"),
    [("last_block", ("stage3.0.", "head.")), ("last_stage", ("stage3.", "head.")), ("all", ("",))],
)
def test_what_a_phase_has_apart_begins_anew_and_the_rest_goes_on(inputs, tmp_path, apart, own):
    before = load_file(run(inputs, tmp_path / "one").folder / "model.safetensors")
    then = [{**FINE_TUNE, **STILL, "apart": apart}]
    after = load_file(run(inputs, tmp_path / "two", then=then).folder / "model.safetensors")
    again = load_file(run(inputs, tmp_path / "three", then=then).folder / "model.safetensors")
    assert same(after, again)
    for name, tensor in before.items():
        if not name.endswith(".weight") or tensor.ndim < 2:
            continue  # of normalisation: begins at 1 and 0 anyway
        change = (after[name] - tensor).abs().mean() / tensor.abs().mean()
        assert (change > 0.5) if name.startswith(own) else (change < 1e-6), name


def test_what_is_shared_stays_to_the_last_bit_where_it_is_frozen(inputs, tmp_path):
    before = load_file(run(inputs, tmp_path / "one").folder / "model.safetensors")
    then = [{**FINE_TUNE, "apart": "last_stage", "freeze": "all_but_last_stage"}]
    after = load_file(run(inputs, tmp_path / "two", then=then).folder / "model.safetensors")
    own = {name for name in before if name.startswith(("stage3.", "head."))}
    assert same(
        {name: before[name] for name in before.keys() - own}, {n: after[n] for n in before.keys() - own}
    )
    assert not any(torch.equal(before[name], after[name]) for name in own if name.endswith("weight"))


def test_a_network_that_names_no_stage_cannot_be_split_there():
    with pytest.raises(UserError, match=r"apart: last_stage: this network \(Linear\) .*; take all or none"):
        begun_anew(nn.Linear(2, 2), "last_stage")
    assert begun_anew(nn.Linear(2, 2), "none") == []


@pytest.mark.parametrize(
    ("apart", "freeze"),
    [("last_block", "trunk"), ("last_stage", "all_but_last_block"), ("all", "all_but_last_stage")],
)
def test_what_begins_anew_has_to_learn(apart, freeze):
    with pytest.raises(ValidationError, match=f"apart: {apart} begins anew what freeze: {freeze} would keep"):
        PhaseSettings.model_validate({**FINE_TUNE, "apart": apart, "freeze": freeze})


def test_a_phase_apart_that_was_killed_ends_the_same(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    then = [{**FINE_TUNE, "apart": "last_block"}]
    whole = run(inputs, tmp_path / "whole", then=then)
    report = training.TrainingRun.report

    def killed(self, row, state):
        report(self, row, state)
        if len(state.history) == 4:  # the first epoch of the second phase is over
            raise KillError

    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingRun, "report", killed)
        with pytest.raises(KillError):
            run(inputs, tmp_path / "resumed", then=then)
    for left in (tmp_path / "resumed").rglob("outputs"):
        if not (left / "metrics.json").exists():
            left.rename(left.with_name("left"))
    assert files(run(inputs, tmp_path / "resumed", then=then).folder) == files(whole.folder)


@pytest.mark.parametrize("epochs", range(1, 8))
def test_killed_after_any_epoch_of_any_phase_it_ends_the_same(inputs, tmp_path, monkeypatch, epochs):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    whole = run(inputs, tmp_path / "whole", then=MANY)
    report = training.TrainingRun.report

    def killed(self, row, state):
        report(self, row, state)
        if len(state.history) == epochs:
            raise KillError

    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingRun, "report", killed)
        with pytest.raises(KillError):
            run(inputs, tmp_path / "resumed", then=MANY)
    for left in (tmp_path / "resumed").rglob("outputs"):
        if not (left / "metrics.json").exists():
            left.rename(left.with_name("left"))
    steps = []
    take = supervised.Supervised.__call__
    monkeypatch.setattr(supervised.Supervised, "__call__", lambda *given: steps.append(1) or take(*given))
    resumed = run(inputs, tmp_path / "resumed", then=MANY)
    assert files(resumed.folder) == files(whole.folder)
    assert len(steps) == [5, 10, 15, 20, 25, 30, 32][6] - [5, 10, 15, 20, 25, 30, 32][epochs - 1]
