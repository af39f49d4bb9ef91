"""What `longtail prune` deletes: finished runs that no settings need, and no run that a process is at."""

import re
import subprocess
from io import StringIO
from pathlib import Path

import pytest

from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.orchestration.prune import prune
from longtail.runs import lookup, store
from longtail.settings.params import Params
from tests.tiny import TINY

RENAMED = TINY.replace("  ce:\n", "  base:\n").replace("stage_one: ce,", "stage_one: base,")


@pytest.fixture
def unneeded(tmp_path, monkeypatch) -> list[str]:
    """Names of trainings that were begun and are not planned any more: the settings were edited since."""
    monkeypatch.chdir(tmp_path)
    store.home.cache_clear()
    file = Path("params.yaml")
    file.write_text(TINY)
    names = list(plan(Params.load("params.yaml")).stage_one)
    for name in names:
        checkpoint(name).parent.mkdir(parents=True)
        checkpoint(name).write_text("of hours")
    file.write_text(TINY.replace("width: 8", "width: 16"))
    yield names
    store.home.cache_clear()


def checkpoint(name: str) -> Path:
    return store.scratch("stage_one", name) / "checkpoint.safetensors"


def test_a_training_at_work_keeps_its_checkpoint(unneeded, capsys):
    at_work, *others = unneeded
    with store.locked("stage_one", at_work):
        prune(["params.yaml"], yes=True)
    assert [name for name in unneeded if checkpoint(name).exists()] == [at_work]
    said = capsys.readouterr()
    assert re.fullmatch(rf".*{at_work}: stays, a process is at this run\n", said.err)
    assert said.out.endswith(f"{len(others)} folders deleted\n")


def test_settings_files_of_either_suffix_keep_their_runs_and_the_question_names_them(unneeded, capsys):
    Path("mine.yml").write_text(TINY)
    prune(["params.yaml"], yes=True)
    assert all(checkpoint(name).exists() for name in unneeded)
    assert "every run is needed by params.yaml, mine.yml" in capsys.readouterr().out


def test_without_an_answer_nothing_is_deleted(unneeded, monkeypatch):
    for text, line in (
        ("", "there was no answer; --yes deletes without asking"),
        ("n\n", "nothing deleted$"),
    ):
        monkeypatch.setattr("sys.stdin", StringIO(text))
        with pytest.raises(UserError, match=line):
            prune(["params.yaml"])
    assert all(checkpoint(name).exists() for name in unneeded)


def test_other_work_trees_are_named(unneeded, capsys, tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (
        ["init", "-q"],
        ["commit", "-q", "--allow-empty", "-m", "first"],
        ["worktree", "add", "-q", "t"],
    ):
        subprocess.run([*git, *words], check=True, capture_output=True)
    store.home.cache_clear()
    prune(["params.yaml"], yes=True)
    said = capsys.readouterr().out
    assert f"{tmp_path / 't'}: shares this store, and its settings files were not read" in said
    assert "needed by none of params.yaml" in said


def test_finished_runs_of_an_entry_that_was_renamed_are_needed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store.home.cache_clear()
    file = Path("params.yaml")
    file.write_text(TINY)
    shelf = store.home(Path.cwd()) / "store" / "stage_one"
    for run in plan(Params.load("params.yaml")).stage_one.values():
        store.write_json(shelf / run.name / "run.json", {"identity": run.identity, "outputs": {}})
    aside = shelf / f".damaged-{run.name}"
    store.write_json(aside / "run.json", {"identity": run.identity, "outputs": {}})
    file.write_text(RENAMED)
    prune(["params.yaml"], yes=True)
    planned = plan(Params.load("params.yaml")).stage_one.values()
    assert any("-base-" in run.name for run in planned)
    assert all(lookup.find(run.step, run.name, run.identity) for run in planned)
    assert not aside.exists()
    store.home.cache_clear()
