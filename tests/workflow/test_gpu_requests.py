"""Jobs ask Snakemake for GPUs where there are some (a batch system is asked always: test_kubernetes.py)."""

import os
import re

import pytest

from tests.workflow.conftest import BIN, TINY, Project, copy_sources

SMI = """#!/bin/sh
case "$1" in
-L) echo "GPU 0: NVIDIA H100 (UUID: GPU-a)" ;;
--query-gpu=compute_cap*) echo "9.0, 81559, $DRIVER, Disabled" ;;
esac
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("gpus") / "project")
    project.path.mkdir()
    copy_sources(project.path)
    (project.path / "params.yaml").write_text(TINY)
    (project.path / "nvidia-smi").write_text(SMI)
    (project.path / "nvidia-smi").chmod(0o755)
    return project


def asked(project, *options, driver=None):
    """GPUs that jobs ask for, by rule; with an H100 where there is a driver."""
    there = {
        "DRIVER": str(driver),
        "CUDA_VISIBLE_DEVICES": "GPU-a",
        "PATH": os.pathsep.join([str(project.path), str(BIN), os.environ["PATH"]]),
    }
    command = ("snakemake", "-n", "--quiet", "host", *options, "results/table2.csv")
    code, out = project.status(*command, env=there if driver else {})
    assert code == 0, out
    rules = re.findall(r"^rule (\w+):.*?\n    resources: ([^\n]*)", out, re.MULTILINE | re.DOTALL)
    return {rule: found[1] for rule, text in rules if (found := re.search(r"\bgpu=(\d)", text))}


def test_without_a_gpu_the_cores_alone_count(project):
    found = asked(project, "--cores", "8", "--resources", "gpu=2")
    assert found == {"stage_one": "0", "features": "0", "stage_two": "0"}


def test_with_a_gpu_classifiers_of_small_images_do_not_wait_for_it(project):
    found = asked(project, "--cores", "8", "--resources", "gpu=2", driver="580.65.06")
    assert found == {"stage_one": "1", "features": "1", "stage_two": "0"}


def test_an_old_driver_ends_before_anything_is_computed(project):
    there = {
        "DRIVER": "470.57",
        "CUDA_VISIBLE_DEVICES": "GPU-a",
        "PATH": os.pathsep.join([str(project.path), str(BIN), os.environ["PATH"]]),
    }
    code, out = project.status("snakemake", "--cores", "2", "results/table2.csv", env=there)
    assert code == 2
    (line,) = [line for line in out.splitlines() if "GPU" in line]
    assert "NVIDIA driver 470.57 is too old" in line
    assert "CUDA_VISIBLE_DEVICES= in front" in line
    assert not (project.path / "results/stage_one").exists()
