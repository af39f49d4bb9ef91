"""What an edit of settings or code leaves of finished runs: from the plan to the store, in one process.

Made-up steps take the place of training. tests/workflow shows the same with Snakemake and DVC.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import yaml

from longtail import cli
from longtail.errors import UserError
from longtail.orchestration import execute
from longtail.orchestration.plan import Plan
from longtail.orchestration.planner import plan
from longtail.runs import code_identity, store
from longtail.runs.job import Job
from longtail.settings.base import Neutral
from longtail.settings.params import Params
from longtail.settings.reading import parse
from longtail.settings.recipe import Optimiser
from tests.edits import add_a_neutral_key, edit
from tests.tiny import TINY, TWO_PHASES


@dataclass
class Project:
    """A settings file, a copy of the package, and a store of finished runs."""

    folder: Path
    computed: list[str]  # STEP/RUN, in the order in which they were

    def plan(self, params: Params | None = None) -> Plan:
        """The plan of params.yaml, or of settings, written as Snakemake does it before its jobs begin."""
        planned = plan(params or Params.load("params.yaml"))
        planned.write()
        return planned

    def make(self, planned: Plan) -> list[str]:
        """Every run as its command makes it; STEP/RUN of those that were computed for it."""
        before = len(self.computed)
        for run in planned.everything():
            execute.execute(run.step, run.name, run.folder)
        return self.computed[before:]

    def edit(self, file: str, old: str, new: str) -> None:
        edit(self.folder, file, old, new)

    def records(self) -> dict[str, str]:
        """run.json of every finished run."""
        files = (self.folder / ".longtail/store").glob("*/*/run.json")
        return {str(file): file.read_text("utf-8") for file in files}


@pytest.fixture
def project(tmp_path, monkeypatch, root) -> Project:
    """A project whose runs are all made."""
    shutil.copytree(
        root / "src/longtail", tmp_path / "src/longtail", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(code_identity, "PACKAGE", tmp_path / "src/longtail")
    monkeypatch.chdir(tmp_path)
    store.home.cache_clear()
    (tmp_path / "workflow").mkdir()
    (tmp_path / "params.yaml").write_text(TINY)
    made = Project(tmp_path, [])

    def compute(job: Job) -> None:
        made.computed.append(f"{job.step}/{job.run}")
        (job.folder / "settings.json").write_text(json.dumps(job.settings.resolved()))

    def compute_together(jobs: list[Job]) -> list[None]:
        return [compute(job) for job in jobs]

    step = SimpleNamespace(compute=compute, compute_together=compute_together)
    monkeypatch.setattr(execute, "module_of", lambda name: step)
    made.make(made.plan())
    yield made
    store.home.cache_clear()


def steps(runs: list[str]) -> list[str]:
    return sorted(run.split("/")[0] for run in runs)


def test_what_is_made_once_is_not_made_again(project):
    assert steps(project.computed) == [
        *["acquire", "features", "features", "split", "stage_one", "stage_one"],
        *["stage_two"] * 4,
    ]
    before = project.records()
    assert project.make(project.plan()) == []
    assert project.records() == before


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("alpha: 0.0", "alpha: 0.1", ["stage_two"]),
        ("b: 2.0", "b: 3.0", ["features", "stage_one", "stage_two", "stage_two"]),
    ],
)
def test_an_edit_makes_exactly_the_runs_that_it_touches_and_undone_none(project, old, new, expected):
    project.edit("params.yaml", old, new)
    new_runs = project.make(project.plan())
    assert steps(new_runs) == expected
    assert all("graloss" in run for run in new_runs)
    project.edit("params.yaml", new, old)
    assert project.make(project.plan()) == []


class Dampened(Optimiser):
    """Stochastic gradient descent, with a key that is new."""

    dampening: Annotated[float, Neutral(0.0)] = 0.0


def with_dampening(params: Params, **values: float) -> Params:
    """The settings, read by code that knows the new key."""
    recipes: dict[str, Any] = {}
    for name, recipe in params.stage_one.items():
        optimiser = Dampened(**recipe.optimiser.model_dump(), **values)
        recipes[name] = recipe.model_copy(update={"optimiser": optimiser})
    return params.model_copy(update={"stage_one": recipes})


def test_a_new_key_with_a_neutral_value_invalidates_nothing(project):
    params = Params.read({**parse(TINY), "sweeps": {}})
    before, records = project.plan(params), project.records()
    add_a_neutral_key(project.folder)
    after = project.plan(with_dampening(params))
    assert after.digest == before.digest  # every run, table and figure
    assert [run.identity for run in after.everything()] == [run.identity for run in before.everything()]
    assert project.make(after) == []
    assert project.records() == records
    # another value is another run
    other = plan(with_dampening(params, dampening=0.1))
    new_runs = [run.step for run in other.everything() if run.name not in before.runs(run.step)]
    assert new_runs == ["stage_one"] * 2 + ["features"] * 2 + ["stage_two"] * 4


def test_an_edit_of_a_later_phase_leaves_the_first_one_alone(project):
    settings = parse(TINY)
    settings["stage_one"]["asynchronous"] = {**settings["stage_one"]["ce"], **TWO_PHASES}
    settings["methods"]["Two phases"] = {"stage_one": "asynchronous", "stage_two": "joint"}
    row = {"section": "Two", "label": "Two phases", "method": "Two phases"}
    settings["tables"]["table2"]["rows"].append(row)
    Path("params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    two = project.make(project.plan())
    assert steps(two) == ["features", "stage_one", "stage_one", "stage_two"]
    first, second = (run for run in two if run.startswith("stage_one/"))
    assert "asynchronous.train" in first
    assert "asynchronous.train" not in second

    project.edit("params.yaml", "per_class: 3", "per_class: 4")
    edited = project.plan()
    assert steps(project.make(edited)) == ["features", "stage_one", "stage_two"]
    assert first.removeprefix("stage_one/") in edited.stage_one
    assert project.make(project.plan()) == []


def test_adopt_lets_new_code_stand_for_finished_runs(project, capsys):
    before, records = project.plan(), project.records()
    project.edit(
        "src/longtail/stage_one/losses/logit_adjusted.py", "def build(", "UNUSED = 1\n\n\ndef build("
    )
    assert set(project.plan().stage_one).isdisjoint(before.stage_one)
    cli.main(["adopt", "--reason", "an unused name was added"])
    assert "stage_one: code " in capsys.readouterr().out
    assert "an unused name was added" in Path("workflow/adopted.csv").read_text()
    after = project.plan()
    assert after.digest == before.digest
    assert project.make(after) == []
    assert project.records() == records


def test_settings_or_code_edited_while_jobs_wait_cannot_mislabel_a_result(project):
    before, records = set(project.plan().stage_two), project.records()
    project.edit("params.yaml", "alpha: 0.0", "alpha: 0.1")
    [name] = set(project.plan().stage_two) - before
    # the settings change while the job waits: the job computes what it was named for
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.7")
    # the code changes while the job waits: the job refuses
    afg = project.folder / "src/longtail/stage_two/afg.py"
    code = afg.read_text()
    afg.write_text(code + "\nCHANGED = True\n")
    with pytest.raises(UserError, match="the code has changed since this was planned"):
        execute.execute("stage_two", name)
    assert project.records() == records
    afg.write_text(code)
    execute.execute("stage_two", name)
    record = store.record(store.stored("stage_two", name))
    assert record["settings"]["method"]["alpha"] == 0.1
    told = json.loads((store.stored("stage_two", name) / "settings.json").read_text())
    assert told["method"]["alpha"] == 0.1


def test_code_edited_while_a_run_is_computed_leaves_nothing_under_its_name(project, monkeypatch):
    project.edit("params.yaml", "alpha: 0.0", "alpha: 0.1")
    planned, records = project.plan(), project.records()

    def compute(job: Job) -> None:
        project.edit("src/longtail/stage_two/afg.py", "def fit(", "CHANGED = True\n\n\ndef fit(")

    monkeypatch.setattr(execute, "module_of", lambda name: SimpleNamespace(compute=compute))
    with pytest.raises(UserError, match="the code has changed since this was planned"):
        project.make(planned)
    assert project.records() == records
