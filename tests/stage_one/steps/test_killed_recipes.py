"""Recipes whose steps have streams, modules or teachers of their own: killed, they go on to the same bits."""

import dataclasses

import pytest

from longtail.stage_one import training
from longtail.stage_one.training import TrainingRun
from tests import tiny_runs

PARAMS = tiny_runs.params()


class KillError(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("epochs", [1, 3])  # before and after what begins late has begun
@pytest.mark.parametrize("name", ["bbn", "metasaug", "ssd_features", "ssd"])
def test_a_killed_recipe_goes_on_to_the_same_bits(name, epochs, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    recipe = tiny_runs.small(PARAMS.stage_one[name], epochs=4)
    inputs = tiny_runs.write_inputs(tmp_path / "inputs")
    inputs = tiny_runs.with_finished_runs(recipe, inputs, tmp_path)
    expected = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "whole"))
    killed = tiny_runs.job(recipe, inputs, tmp_path / "killed")
    report = TrainingRun.report

    def ends(self, row, state):
        report(self, row, state)
        if len(state.history) == epochs:
            raise KillError

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "report", ends)
        with pytest.raises(KillError):
            training.compute(killed)
    trained = []

    def notes(self, row, state):
        trained.append(len(state.history))
        report(self, row, state)

    monkeypatch.setattr(TrainingRun, "report", notes)
    training.compute(dataclasses.replace(killed))
    assert trained == [1, 2, 3, 4]
    assert tiny_runs.contents(killed.folder) == expected
