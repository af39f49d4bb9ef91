"""`longtail adopt --since COMMIT`: runs keep their identity after a change that changes no result."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from longtail.orchestration.adopt import adopt_since

SETTINGS = "workflow/settings/demo.yaml"
RENAMED = "src/longtail/stage_one/losses/logit_adjusted.py"


def longtail(folder: Path, *words: str) -> str:
    """What a command says, with the code of the folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    command = [sys.executable, "-m", "longtail", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 2), done.stderr
    return done.stdout + done.stderr


def planned(folder: Path) -> dict[str, str]:
    """Identities of the runs of the settings file by their names without the digits."""
    shutil.rmtree(folder / ".longtail/plan", ignore_errors=True)
    longtail(folder, "plan", "--params", SETTINGS)
    runs = [json.loads(file.read_text()) for file in (folder / ".longtail/plan").glob("s*/*.json")]
    return {run["run"][:-9]: run["identity"] for run in runs}


@pytest.fixture
def project(tmp_path, root):
    """A repository of the code and one settings file, in its first commit."""
    shutil.copytree(
        root / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    (tmp_path / "workflow/settings").mkdir(parents=True)
    shutil.copy(root / SETTINGS, tmp_path / SETTINGS)
    (tmp_path / ".gitignore").write_text(".longtail/\n__pycache__/\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    return tmp_path


def test_code_that_moved_and_changed_stands_for_that_of_a_commit(project):
    before = planned(project)
    loss = project / RENAMED
    loss.write_text(loss.read_text().replace("log_prior", "logarithm_of_prior"))
    changed = planned(project)
    different = {name for name in before if changed[name] != before[name]}
    assert different == {
        name for name in before if "subset" not in name
    }  # all but splits: built on stage one
    command = ("adopt", "--params", SETTINGS, "--since", "HEAD", "--reason", "a renamed buffer")
    assert "nothing to adopt" in longtail(project, *command, "stage-two")  # this step alone
    alone = longtail(project, *command[:3], "--reason", "a renamed buffer", "--also", SETTINGS)
    assert alone.startswith("--also names settings files for --since")
    assert "1 digests of code stand for those of HEAD" in longtail(project, *command)
    assert planned(project) == before
    (line,) = csv.DictReader((project / "workflow/adopted.csv").open())
    assert (line["step"], line["reason"]) == ("stage_one", "a renamed buffer")
    worktrees = subprocess.run(
        ["git", "worktree", "list"], cwd=project, capture_output=True, text=True, check=True
    )
    assert len(worktrees.stdout.splitlines()) == 1


def test_nothing_to_adopt_and_an_unknown_commit_are_one_line(project):
    same = longtail(project, "adopt", "--params", SETTINGS, "--since", "HEAD", "--reason", "none")
    assert same.splitlines() == ["nothing to adopt: what is planned has the code that it had at HEAD"]
    unknown = longtail(project, "adopt", "--params", SETTINGS, "--since", "nowhere", "--reason", "none")
    assert unknown.startswith("--since nowhere: ")
    assert len(unknown.splitlines()) == 1


def test_a_reason_is_asked_for():
    with pytest.raises(Exception, match="say why the results are the same"):
        adopt_since("HEAD", [SETTINGS], " ")
