"""Runs that version 0.1 computed are runs of this code: their identities are recorded, and planned again.

Settings may plan more than they did: methods that came later.

Where this fails, an edit has changed what computes a run. If results are the same, record that
(`longtail adopt --since COMMIT`, CONTRIBUTING.md); if they are not, those runs are lost on purpose, and the
record is written anew: `python -m tests.orchestration.test_old_runs`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from longtail.data import catalogue
from longtail.orchestration import planner, weights
from longtail.runs.steps import STEPS
from longtail.settings.params import Params

RECORD = Path(__file__).with_name("runs_of_0.1.json")
ROOT = Path(__file__).parents[2]
SOMETHING = "0" * 64  # for the content of lists and weights that are not here


def planned(file: str) -> dict[str, set[str]]:
    """The beginnings of the identities of all runs of a settings file, by step."""
    plan = planner.plan(Params.load(ROOT / file), file, ROOT)
    return {step: {run.identity[:10] for run in plan.runs(step).values()} for step in STEPS[1:]}


def recorded() -> dict[str, dict[str, str]]:
    """Of each settings file and step, the identities of runs that settings have planned since version 0.1."""
    found: dict[str, dict[str, str]] = json.loads(RECORD.read_text("utf-8"))
    return found


def without_data(patch: Any) -> None:
    patch.setattr(catalogue, "identity", lambda dataset, files, settings: SOMETHING)
    patch.setattr(weights, "remembered_digest", lambda file: SOMETHING)


@pytest.mark.parametrize("file", recorded())
def test_old_runs_are_current(file, monkeypatch):
    without_data(monkeypatch)
    now = planned(file)
    lost = {step: set(old.split()) - now[step] for step, old in recorded()[file].items()}
    assert lost == {step: set() for step in lost}


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patching:
        without_data(patching)
        record = {
            file: {step: " ".join(sorted(runs)) for step, runs in planned(file).items()}
            for file in recorded()
        }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
