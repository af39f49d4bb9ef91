"""A scaled-down copy of the project, built once by `dvc repro`, for scenarios to act on."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from tests.edits import edit
from tests.tiny import TINY

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass
class Project:
    """A work tree of the scaled-down project."""

    path: Path

    def status(self, *command: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        """Run a command as a user would: its exit code, and its output with standard error."""
        environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "DVC_NO_ANALYTICS": "1",
            **(env or {}),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # few users have it: bytecode must change nothing
        done = subprocess.run(
            command,
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=500,
            check=False,
        )
        return done.returncode, done.stdout

    def run(self, *command: str, ok: bool = True) -> str:
        """Run a command that has to succeed (or to fail): its output."""
        code, out = self.status(*command)
        assert (code == 0) == ok, f"{' '.join(command)}: exit code {code}\n{out}"
        return out

    def git(self, *words: str) -> str:
        return self.run("git", "-c", "user.name=t", "-c", "user.email=t@t.t", *words)

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def edit(self, file: str, old: str, new: str) -> None:
        edit(self.path, file, old, new)

    def stored(self) -> dict[str, int]:
        """Every finished run as STEP/RUN with its record's inode: computed again, it would be another file.

        (Not its time: Snakemake touches what a job made, and links share one time.)
        """
        store = self.path / ".longtail" / "store"
        return {
            f"{record.parent.parent.name}/{record.parent.name}": record.stat().st_ino
            for record in store.glob("*/*/run.json")
        }

    def table(self) -> str:
        return (self.path / "results/table2.csv").read_text()

    def nothing_to_do(self) -> bool:
        return "Nothing to be done" in self.run("snakemake", "-n")


def copy_sources(target: Path) -> None:
    """The work tree as it is now, committed or not, without what git ignores."""
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("results/", "tests/")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


@pytest.fixture(scope="session")
def built(tmp_path_factory, worker_id) -> Project:
    """The project after one `dvc repro`, committed, pushed to a local-folder remote. Not to be changed.

    Built once, whatever the number of pytest's workers, and once for all commands that are given the same new
    folder as LONGTAIL_TESTS_BUILT (.ci/run).
    """
    base = tmp_path_factory.getbasetemp()
    shared = Path(os.environ.get("LONGTAIL_TESTS_BUILT") or (base if worker_id == "master" else base.parent))
    project = Project(shared / "built" / "project")
    with FileLock(shared / "built.lock"):
        if not (shared / "built" / "finished").exists():
            build(project)
            (shared / "built" / "finished").touch()
    return project


def build(project: Project) -> None:
    """One `dvc repro` from nothing, committed and pushed."""
    project.path.mkdir(parents=True)
    copy_sources(project.path)
    (project.path / "params.yaml").write_text(TINY)
    project.git("init", "-q", "-b", "main")
    project.commit("the project")
    project.run("dvc", "remote", "add", "-q", "-d", "local", str(project.path.parent / "remote"))
    project.run("dvc", "repro")
    project.commit("results")
    project.run("dvc", "push", "-q")


@pytest.fixture
def project(built, tmp_path) -> Project:
    """A copy of the built project that a test may change."""
    shutil.copytree(built.path, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


@pytest.fixture
def clone(built, tmp_path) -> Project:
    """A fresh clone after `dvc pull`, with shuffled time stamps and nothing of Snakemake's memory."""
    subprocess.run(["git", "clone", "-q", str(built.path), str(tmp_path / "clone")], check=True)
    project = Project(tmp_path / "clone")
    project.run("dvc", "remote", "modify", "local", "url", str(built.path.parent / "remote"))
    project.run("dvc", "pull", "-q")
    shuffle_times(project.path)
    return project


def shuffle_times(folder: Path) -> None:
    """Give every file of results/ and data/ a time that says nothing, some of them in the future."""
    import random
    import time

    choose = random.Random(0)
    for file in [*folder.glob("results/**/*"), *folder.glob("data/**/*")]:
        if file.is_file() and not file.is_symlink():
            when = time.time() + choose.uniform(-1e6, 1e4)
            os.utime(file, (when, when))
