"""Runs that version 0.1 computed are runs of this code: their identities are recorded, and planned again.

Where this fails, an edit has changed what computes a run. If results are the same, record that
(`longtail adopt --since COMMIT`, CONTRIBUTING.md); if they are not, those runs are lost on purpose, and the
record is written anew: `python -m tests.orchestration.test_old_runs`.
"""

import json
from hashlib import sha256
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


def identities(file: str) -> dict[str, dict[str, Any]]:
    """Number of runs by step, and a digest of their identities."""
    plan = planner.plan(Params.load(ROOT / file), file, ROOT)
    found = {step: sorted(run.identity for run in plan.runs(step).values()) for step in STEPS[1:]}
    return {
        step: {"runs": len(runs), "identities": sha256("\n".join(runs).encode()).hexdigest()[:16]}
        for step, runs in found.items()
    }


def without_data(patch: Any) -> None:
    patch.setattr(catalogue, "identity", lambda dataset, files, settings: SOMETHING)
    patch.setattr(weights, "remembered_digest", lambda file: SOMETHING)


@pytest.mark.parametrize("file", json.loads(RECORD.read_text("utf-8")))
def test_old_runs_are_current(file, monkeypatch):
    without_data(monkeypatch)
    assert identities(file) == json.loads(RECORD.read_text("utf-8"))[file]


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patching:
        without_data(patching)
        record = {file: identities(file) for file in json.loads(RECORD.read_text("utf-8"))}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
