"""profiles/kubernetes against a stand-in for kubectl that runs a Job's command here, without a cluster."""

import json
import os
import subprocess
import sys

import pytest

from tests.workflow.conftest import BIN, ROOT
from tests.workflow.test_slurm import fresh, results

# `kubectl create -f -` and `kubectl get job NAME`, as far as the profile's scripts use them.
KUBECTL = """\
#!{python}
import json, os, pathlib, subprocess, sys
jobs = pathlib.Path({jobs!r})
words = sys.argv[1:]
if words[:1] == ["create"]:
    job = json.load(sys.stdin)
    name = f"{{job['metadata']['generateName']}}{{len(list(jobs.iterdir())):05d}}"
    (jobs / name).mkdir()
    (jobs / name / "job.json").write_text(json.dumps(job))
    pod = job["spec"]["template"]["spec"]["containers"][0]
    ended = "[ $? = 0 ] && echo Complete >$0/condition || echo Failed >$0/condition"
    subprocess.Popen(
        ["sh", "-c", '"$@" >$0/log 2>&1; ' + ended, str(jobs / name), *pod["command"]],
        cwd=pod["workingDir"],
        env={{item["name"]: item["value"] for item in pod["env"]}},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    print(name, end="")
elif words[:2] == ["get", "job"]:
    if not (jobs / words[2]).is_dir():
        sys.exit(f'Error from server (NotFound): jobs.batch "{{words[2]}}" not found')
    condition = jobs / words[2] / "condition"
    print(condition.read_text().strip() if condition.exists() else "", end="")
else:
    sys.exit(f"unexpected: {{words}}")
"""


@pytest.mark.cluster
def test_a_table_by_kubernetes_jobs_is_the_table_without_a_cluster(tmp_path):
    here = fresh(tmp_path / "here")
    here.run("snakemake", "results/table2.csv")

    project = fresh(tmp_path / "volume" / "project")
    project.edit("profiles/kubernetes/config.yaml", "--mount /longtail", f"--mount {tmp_path / 'volume'}")
    jobs, bin = tmp_path / "jobs", tmp_path / "bin"
    jobs.mkdir()
    bin.mkdir()
    (bin / "kubectl").write_text(KUBECTL.format(python=sys.executable, jobs=str(jobs)))
    (bin / "kubectl").chmod(0o755)
    path = os.pathsep.join([str(bin), str(BIN), os.environ["PATH"]])
    profile = (
        "snakemake",
        "--workflow-profile",
        "profiles/kubernetes",
        "--seconds-between-status-checks",
        "2",
    )
    code, out = project.status(*profile, "results/table2.csv", env={"PATH": path, "NOT_FOR_PODS": "1"})
    logs = "\n".join(file.read_text() for file in jobs.glob("*/log"))
    assert code == 0, f"{out}\n{logs}"
    assert results(project) == results(here)

    # two of stage one, and a group of features and classifiers, on a GPU each
    submitted = [json.loads(file.read_text()) for file in sorted(jobs.glob("*/job.json"))]
    assert len(submitted) == 3
    deadlines = [job["spec"]["template"]["spec"]["activeDeadlineSeconds"] for job in submitted]
    assert deadlines == [12 * 3600, 12 * 3600, 3 * 3600]
    for job in submitted:
        pod = job["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert container["resources"] == {
            "requests": {"cpu": "1", "memory": "4000M"},
            "limits": {"memory": "4000M", "nvidia.com/gpu": "1"},
        }
        assert container["volumeMounts"][0]["mountPath"] == str(tmp_path / "volume")
        variables = {item["name"]: item["value"] for item in container["env"]}
        assert variables["OMP_NUM_THREADS"] == variables["LONGTAIL_RUNS_PER_GPU"] == "1"
        assert "NOT_FOR_PODS" not in variables


@pytest.mark.parametrize(
    ("profile", "tool", "says", "code", "means"),
    [
        ("kubernetes", "kubectl", "", 0, "running"),
        ("kubernetes", "kubectl", "SuccessCriteriaMet Complete", 0, "success"),
        ("kubernetes", "kubectl", "FailureTarget Failed", 0, "failed"),
        ("kubernetes", "kubectl", 'Error from server (NotFound): jobs.batch "x" not found', 1, "failed"),
        ("kubernetes", "kubectl", "Unable to connect to the server: i/o timeout", 1, "running"),
        ("generic", "scontrol", "JobId=7 JobName=longtail JobState=RUNNING Reason=None", 0, "running"),
        ("generic", "scontrol", "JobId=7 JobName=longtail JobState=COMPLETED Reason=None", 0, "success"),
        ("generic", "scontrol", "JobId=7 JobName=longtail JobState=OUT_OF_MEMORY Reason=None", 0, "failed"),
        ("generic", "scontrol", "slurm_load_jobs error: Invalid job id specified", 1, "failed"),
        ("generic", "scontrol", "slurm_load_jobs error: Unable to contact slurm controller", 1, "running"),
    ],
)
def test_what_a_batch_system_says_of_a_job_in_the_words_of_snakemake(
    profile, tool, says, code, means, tmp_path
):
    (tmp_path / tool).write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    (tmp_path / tool).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = [ROOT / "profiles" / profile / "status", "7"]
    assert subprocess.check_output(command, env=environment, text=True).strip() == means


def test_a_project_that_no_pod_would_see_is_not_submitted(tmp_path):
    options = [
        "--image",
        "i",
        "--claim",
        "c",
        "--cpus",
        "1",
        "--memory-mb",
        "1",
        "--gpus",
        "0",
        "--minutes",
        "1",
    ]
    command = [ROOT / "profiles/kubernetes/submit", *options, "--mount", "/longtail", "script"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr == f"{tmp_path}: not below /longtail; a pod sees the project only on the shared volume\n"
    )
