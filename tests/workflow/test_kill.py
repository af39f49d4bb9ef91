"""Kill everything at any moment; the same command, typed again, comes to the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.tiny import TINY
from tests.workflow.conftest import BIN, Project, copy_sources

pytestmark = pytest.mark.workflow


def results(project: Project) -> dict[str, bytes]:
    """What two builds of the same settings share: weights, features, classifiers, histories, the table."""
    files = [*project.path.glob("results/*/*/*.safetensors"), *project.path.glob("results/*/*/history.csv")]
    files += [project.path / "results/table2.csv", project.path / "results/figures/gamma.svg"]
    return {str(file.relative_to(project.path)): file.read_bytes() for file in files}


def fresh(path: Path) -> Project:
    project = Project(path)
    project.path.mkdir()
    copy_sources(project.path)
    (project.path / "params.yaml").write_text(TINY)
    project.git("init", "-q")
    return project


def killed(project: Project, seconds: float) -> bool:
    """Start the workflow and kill it, with all that it started; whether it was still at work."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(
        ["snakemake"],
        cwd=project.path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True
    return False


def test_a_workflow_killed_at_any_moment_goes_on_to_the_same_bytes(built, tmp_path):
    """LONGTAIL_KILLS kills (3), at moments that differ from one run of the test to the next."""
    seed = int(os.environ.get("LONGTAIL_KILLS_SEED", time.time_ns() % 2**32))
    kills, done, made = int(os.environ.get("LONGTAIL_KILLS", "3")), 0, 0
    moments = random.Random(seed)
    while done < kills:
        project, made = fresh(tmp_path / f"project{made}"), made + 1
        while done < kills and killed(project, moments.uniform(1, 15)):
            done += 1
        project.run("snakemake")
        assert project.nothing_to_do(), f"LONGTAIL_KILLS_SEED={seed}"
        assert results(project) == results(built), f"LONGTAIL_KILLS_SEED={seed}"
        shutil.rmtree(project.path)
