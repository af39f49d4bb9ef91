"""What `longtail plan` says: what exists, what is to do, and what that costs by finished runs like it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from longtail.orchestration.estimates import Cost, Estimates, finished_records
from longtail.orchestration.listing import cost_in_words, show
from longtail.orchestration.plan import Plan
from longtail.orchestration.planner import plan
from longtail.orchestration.run import Run
from longtail.runs import store
from longtail.settings.params import Params
from tests.tiny import TINY


@pytest.fixture
def planned(tmp_path, monkeypatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    store.home.cache_clear()
    Path("params.yaml").write_text(TINY)
    yield plan(Params.read(yaml.safe_load(TINY)))
    store.home.cache_clear()


def record(run: Run, seconds: float, **facts: Any) -> dict[str, Any]:
    return {
        "step": run.step,
        "run": run.name,
        "identity": run.identity,
        "settings": run.settings.resolved(),
        "inputs": {item.step: item.identity for item in run.inputs},
        "outputs": {},
        "seconds": seconds,
        "facts": {"device": "AMD EPYC", **facts},
    }


def a_run(planned: Plan, step: str, word: str) -> Run:
    return next(run for run in planned.runs(step).values() if f"-{word}-" in run.name)


def longer(planned: Plan, **schedule: int) -> Run:
    """GraLoss with another schedule."""
    settings = yaml.safe_load(TINY)
    settings["training"]["schedule"] = schedule
    return a_run(plan(Params.read(settings)), "stage_one", "graloss")


def test_a_training_costs_what_an_epoch_of_one_like_it_did(planned):
    finished = record(a_run(planned, "stage_one", "ce"), 20.0, epochs=2, steps=40)
    estimates = Estimates([(finished, 500)])
    assert estimates.of(longer(planned, epochs=7)) == Cost(70.0, 0.0, 500, 1, 0)
    assert estimates.of(longer(planned, iterations=100)) == Cost(50.0, 0.0, 500, 1, 0)


def test_runs_that_shared_a_gpu_took_a_share_of_its_time_each(planned):
    facts = {"device": "NVIDIA H100", "epochs": 2, "steps": 40, "runs_at_once": 8}
    estimates = Estimates([(record(a_run(planned, "stage_one", "ce"), 80.0, **facts), 500)])
    assert estimates.of(longer(planned, epochs=2)) == Cost(0.0, 10.0, 500, 1, 0)


def test_the_median_of_those_most_alike_counts(planned):
    run = a_run(planned, "stage_two", "afg")
    other = a_run(planned, "stage_two", "joint")
    records = [(record(run, seconds), 100) for seconds in (1.0, 3.0, 50.0)]
    assert Estimates([*records, (record(other, 900.0), 1)]).of(run) == Cost(3.0, 0.0, 100, 1, 0)
    elsewhere = [({**found, "inputs": {"split": "another"}}, disk) for found, disk in records]
    assert (
        Estimates(elsewhere).of(run).cpu_seconds == 3.0
    )  # a like run on another split, where there is no nearer


def test_hours_of_gpus_and_cores_are_told_apart(planned):
    run = a_run(planned, "stage_one", "ce")
    on_gpu = record(run, 20.0, epochs=2, steps=40, device="NVIDIA H100 80GB HBM3")
    assert Estimates([(on_gpu, 1)]).of(run) == Cost(0.0, 20.0, 1, 1, 0)


def test_what_is_like_nothing_finished_is_unknown_and_damaged_records_are_passed_over(planned):
    run = a_run(planned, "stage_one", "ce")
    for damaged in (
        {},
        {"step": "stage_one"},
        {**record(run, 1.0), "facts": None},
        {**record(run, 1.0), "seconds": "x"},
    ):
        assert Estimates([(damaged, 1)]).of(run) == Cost(unknown=1)


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (Cost(), ""),
        (Cost(36_000, 0, 2.5e9, 3, 0), "10 core-hours, 2.5 GB"),
        (
            Cost(5_400, 7_200, 999, 2, 1),
            "1.5 core-hours, 2.0 GPU-hours, 999 B; no estimate for 1 run (none of this kind is finished)",
        ),
        (Cost(unknown=1_200), "no estimate for 1,200 runs (none of this kind is finished)"),
    ],
)
def test_costs_in_words(cost, words):
    assert cost_in_words(cost) == words


def test_the_summary_comes_first_and_finished_runs_are_listed_on_request(planned, capsys):
    show("params.yaml")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["step", "runs", "finished", "to", "do"]
    assert lines[3].split()[:4] == ["stage_one", "2", "0", "2"]
    assert lines[6].startswith("all ")
    total = len(list(planned.everything()))
    assert sum(line.startswith("  to do   digits") for line in lines) == total - 0

    run = a_run(planned, "stage_one", "ce")
    folder = store.scratch(run.step, run.name)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"1234")
    store.write_json(folder / "run.json", record(run, 3600.0, epochs=2, steps=4))
    store.keep(folder, run.step, run.name)
    ((_, disk),) = finished_records()
    assert disk > 4
    show("params.yaml")
    out = capsys.readouterr().out
    assert "1.0 core-hours" in out
    assert run.name not in out
    show("params.yaml", everything=True)
    assert f"  stored  {run.name}" in capsys.readouterr().out


def test_a_run_that_is_finished_under_another_label_is_not_to_do(planned, capsys):
    run = a_run(planned, "stage_one", "ce")
    store.write_json(store.stored(run.step, run.name) / "run.json", record(run, 3600.0, epochs=2, steps=4))
    Path("params.yaml").write_text(
        TINY.replace("  ce:\n", "  base:\n").replace("stage_one: ce,", "stage_one: base,")
    )
    show("params.yaml", everything=True)
    assert f"  stored  {run.name.replace('-ce-', '-base-')}" in capsys.readouterr().out
