"""Kill everything at any moment; the same command, typed again, comes to the same bytes."""

import os
import signal
import subprocess
import time

import pytest

from tests.tiny import TINY
from tests.workflow.conftest import BIN, Project, copy_sources

pytestmark = pytest.mark.workflow


def results(project: Project) -> dict[str, bytes]:
    """What two builds of the same settings share: weights, features, classifiers, histories, the table."""
    files = [*project.path.glob("results/*/*/*.safetensors"), *project.path.glob("results/*/*/history.csv")]
    files += [project.path / "results/table2.csv", project.path / "results/figures/gamma.svg"]
    return {str(file.relative_to(project.path)): file.read_bytes() for file in files}


def test_a_workflow_killed_at_any_moment_goes_on_to_the_same_bytes(built, tmp_path):
    project = Project(tmp_path / "project")
    project.path.mkdir()
    copy_sources(project.path)
    (project.path / "params.yaml").write_text(TINY)
    project.git("init", "-q")
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for seconds in (3.0, 9.0, 14.0):
        process = subprocess.Popen(
            ["snakemake"],
            cwd=project.path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    project.run("snakemake")
    assert project.nothing_to_do()
    assert results(project) == results(built)
