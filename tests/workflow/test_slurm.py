"""The workflow on a real Slurm of one node with two GPUs that are device files only (`make test-slurm`).

Jobs see CUDA_VISIBLE_DEVICES as Slurm sets it, and compute on the CPU.
"""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.workflow.conftest import BIN, Project, copy_sources

pytestmark = pytest.mark.cluster

SCRIPTS = Path(__file__).parent / "slurm"
INSTALL = "apt-get install -y --no-install-recommends slurmctld slurmd munge slurm-client"
QUICK = ("--slurm-init-seconds-before-status-checks", "2")
TABLE = ("snakemake", "--workflow-profile", "profiles/slurm", *QUICK, "results/table2.csv")
GENERIC = ("snakemake", "--workflow-profile", "profiles/generic", "--seconds-between-status-checks", "2")

# Two runs of stage one, which take some seconds on a core; two runs of stage two on each.
SETTINGS = """\
dataset: digits
imbalance: {profile: exponential, ratios: [10]}
validation: unused
groups: {many_above: 100, few_below: 20}
seeds: [0, 1]
precision: float32
training:
  network: {name: resnet_cifar, depth: 8, width: 8}
  batch_size: 64
  schedule: {epochs: 120}
  learning_rate: {peak: 0.1}
  augmentation: {crop: 1, flip: false, autoaugment: none, cutout: 0}
  evaluate_every: 0
stage_one:
  ce:
    loss: {name: logit_adjusted, gamma: {form: constant, a: 0.0}}
features: {views: 2}
stage_two:
  joint: {}
  crt: {epochs: 2}
methods:
  CE: {stage_one: ce, stage_two: joint}
  cRT: {stage_one: ce, stage_two: crt}
tables:
  table2:
    caption: A scaled-down table
    rows:
      - {section: End to end, label: CE, method: CE}
      - {section: Decoupled, label: cRT, method: cRT}
figures:
  gamma: {}
"""


def missing(folder: Path) -> str:
    """What this machine lacks to run a Slurm; empty where it has all."""
    if os.getuid() != 0:
        return "a Slurm for tests needs root"
    commands = ("slurmctld", "slurmd", "munged", "sbatch")
    if absent := [name for name in commands if shutil.which(name) is None]:
        return f"{', '.join(absent)} not installed: {INSTALL}"
    try:
        os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except OSError as error:
        return f"a fake GPU needs mknod, which fails here: {error.strerror}"
    return ""


@dataclass
class Slurm:
    """A running Slurm; its jobs are this session's only ones."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        path = [str(self.folder / "bin"), str(BIN), os.environ["PATH"]]
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": os.pathsep.join(path)}

    def ask(self, *command: str) -> str:
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    def jobs(self) -> dict[str, dict[str, str]]:
        """What Slurm says of every job that it has not forgotten, by number."""
        listing = self.ask("scontrol", "--oneliner", "--details", "show", "job")
        words = [line.split() for line in listing.splitlines()]
        lines = [dict(word.split("=", 1) for word in line if "=" in word) for line in words]
        return {line["JobId"]: line for line in lines if "JobId" in line}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("slurm")
    if lacking := missing(folder):
        pytest.skip(lacking)
    subprocess.run([SCRIPTS / "start", folder / "one-node"], check=True)
    pids = [int(file.read_text()) for file in (folder / "one-node").glob("*.pid")]
    try:
        assert len(pids) == 3
        yield Slurm(folder / "one-node")
    finally:
        subprocess.run([SCRIPTS / "stop", folder / "one-node"], check=False)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def fresh(folder: Path) -> Project:
    project = Project(folder)
    folder.mkdir(parents=True)
    copy_sources(folder)
    (folder / "params.yaml").write_text(SETTINGS)
    project.git("init", "-q")
    return project


@pytest.fixture(scope="module")
def undisturbed(slurm, tmp_path_factory) -> dict[str, bytes]:
    """What the same settings come to without a cluster."""
    project = fresh(tmp_path_factory.mktemp("undisturbed") / "project")
    project.run("snakemake", "results/table2.csv")
    return results(project)


def results(project: Project) -> dict[str, bytes]:
    """Weights, features, classifiers, histories, metrics and the table: all that has no time in it."""
    patterns = ("results/*/*/*.safetensors", "results/*/*/history.csv", "results/*/*/metrics.json")
    files = [file for pattern in patterns for file in project.path.glob(pattern)]
    files.append(project.path / "results/table2.csv")
    return {str(file.relative_to(project.path)): file.read_bytes() for file in files}


def trainings(project: Project) -> dict[str, tuple[int, str | None]]:
    """The processes that train for this project: number and CUDA_VISIBLE_DEVICES, by run."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if "stage-one" not in words or Path(os.readlink(process / "cwd")) != project.path:
                continue
            text = (process / "environ").read_bytes().decode()
            variables = dict(item.split("=", 1) for item in text.split("\0") if "=" in item)
            run = words[words.index("stage-one") + 1]
            found[run] = (int(process.name), variables.get("CUDA_VISIBLE_DEVICES"))
    return found


@dataclass
class Watch:
    """Looks at the trainings of a project several times a second, for the length of a `with`."""

    project: Project
    seen: list[dict[str, str | None]] = field(default_factory=list)

    def __enter__(self) -> "Watch":
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.3):
            self.seen.append({run: device for run, (_, device) in trainings(self.project).items()})


def wait_for(what: Callable[[], object], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.2)


def begin(
    project: Project, slurm: Slurm, output: Path, command: tuple[str, ...] = TABLE
) -> subprocess.Popen[bytes]:
    """Start a command in the background, checkpoints after every epoch."""
    environment = {
        **os.environ,
        **slurm.environment,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "LONGTAIL_CHECKPOINT_SECONDS": "0",
    }
    with output.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=project.path,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def checkpoints(project: Project) -> list[Path]:
    return list((project.path / ".longtail/unfinished/stage_one").glob("*/checkpoint.safetensors"))


def test_two_trainings_have_two_devices_and_small_jobs_share_a_submission(slurm, undisturbed, tmp_path):
    project = fresh(tmp_path / "project")
    before = set(slurm.jobs())
    with Watch(project) as watch:
        code, out = project.status(*TABLE, env=slurm.environment)
    assert code == 0, out
    together = [set(look.values()) for look in watch.seen if len(look) == 2]
    assert {"0", "1"} in together, watch.seen
    assert results(project) == undisturbed
    assert "Nothing to be done" in project.run("snakemake", "-n", "results/table2.csv")

    jobs = [job for number, job in slurm.jobs().items() if number not in before]
    training, small = jobs[:-1], jobs[-1]
    assert [job["Comment"].split("_wildcards")[0] for job in jobs] == [
        "rule_stage_one",
        "rule_stage_one",
        "rule_classifiers_features_stage_two",
    ]
    assert {job["TimeLimit"] for job in training} == {"12:00:00"}
    # two runs of features and four of stage two, half an hour each, one after the other on one GPU
    assert small["TimeLimit"] == "03:00:00"
    assert {job["MinMemoryNode"] for job in jobs} == {"4000M"}
    assert {job["TresPerJob"] for job in jobs} == {"gres:gpu:1"}


def test_a_cancelled_job_and_a_killed_process_go_on_from_their_checkpoints(slurm, undisturbed, tmp_path):
    project = fresh(tmp_path / "project")
    before = set(slurm.jobs())
    process = begin(project, slurm, tmp_path / "output")
    try:
        wait_for(lambda: len(checkpoints(project)) == 2 and len(trainings(project)) == 2)
        (cancelled, _), (killed, (pid, _)) = sorted(trainings(project).items())
        numbers = {job["Comment"].rpartition("_")[2]: number for number, job in slurm.jobs().items()}
        slurm.ask("scancel", numbers[cancelled])
        os.kill(pid, signal.SIGKILL)
        assert process.wait(timeout=400) == 0, (tmp_path / "output").read_text()
    finally:
        stop(process)
    jobs = {number: job for number, job in slurm.jobs().items() if number not in before}
    assert jobs[numbers[cancelled]]["JobState"] == "CANCELLED"
    assert jobs[numbers[killed]]["JobState"] == "FAILED"
    again = [job for number, job in jobs.items() if job["MinMemoryNode"] == "8000M"]
    assert sorted(job["Comment"].rpartition("_")[2] for job in again) == [cancelled, killed]
    assert {job["TimeLimit"] for job in again} == {"1-00:00:00"}
    assert {job["JobState"] for job in again} == {"COMPLETED"}
    assert results(project) == undisturbed


def test_a_killed_snakemake_whose_jobs_live_on_is_typed_again(slurm, undisturbed, tmp_path):
    """The second command's jobs find the first one's at work, wait for them, and link what they made."""
    project = fresh(tmp_path / "project")
    process = begin(project, slurm, tmp_path / "output")
    wait_for(lambda: len(checkpoints(project)) == 2)
    stop(process)
    first = {run: pid for run, (pid, _) in trainings(project).items()}
    assert len(first) == 2
    code, out = project.status(*TABLE, env=slurm.environment)
    assert code == 0, out
    assert results(project) == undisturbed


def test_settings_that_are_edited_while_jobs_wait_leave_them_as_they_were(slurm, undisturbed, tmp_path):
    project = fresh(tmp_path / "project")
    before = set(slurm.jobs())
    node = slurm.ask("sinfo", "--noheader", "--format", "%n").strip()
    slurm.ask("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    process = begin(project, slurm, tmp_path / "output", (*GENERIC, "results/table2.csv"))
    try:
        wait_for(lambda: len(set(slurm.jobs()) - before) == 2)
        project.edit("params.yaml", "peak: 0.1", "peak: 0.2")
        slurm.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
        assert process.wait(timeout=400) == 0, (tmp_path / "output").read_text()
    finally:
        stop(process)
        with suppress(subprocess.CalledProcessError):  # it is not draining any more
            slurm.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
    assert results(project) == undisturbed


def test_the_generic_profile_makes_a_table_and_its_group_of_pages(slurm, undisturbed, tmp_path):
    project = fresh(tmp_path / "project")
    before = set(slurm.jobs())
    code, out = project.status(*GENERIC, env=slurm.environment)
    assert code == 0, out
    assert (project.path / "results/report.html").is_file()
    assert project.nothing_to_do()
    assert results(project) == undisturbed
    jobs = [job for number, job in slurm.jobs().items() if number not in before]
    # two of stage one, one of classifiers, one of figures, one of the report, which waits for the page
    assert len(jobs) == 5
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}


def test_one_training_on_two_devices_of_its_job(slurm, tmp_path):
    """devices: 2 asks Slurm for two GPUs and two cores, and torchrun starts two processes there."""
    project = fresh(tmp_path / "project")
    project.edit("params.yaml", "training:\n", "training:\n  shards: 2\n  devices: 2\n")
    [run, *_] = re.findall(
        r"to do +(\S+-ce-seed0-\w{8})$", project.run("longtail", "plan").split("stage_one:")[1], re.MULTILINE
    )
    target = f"results/stage_one/{run}/run.json"
    before = set(slurm.jobs())
    code, out = project.status(*TABLE[:-1], target, env=slurm.environment)
    assert code == 0, out
    [job] = [job for number, job in slurm.jobs().items() if number not in before]
    assert (job["TresPerJob"], job["NumCPUs"]) == ("gres:gpu:2", "2")
    facts = json.loads((project.path / target).read_text())["facts"]
    assert facts["processes"] == 2
    here = fresh(tmp_path / "here")
    here.edit("params.yaml", "training:\n", "training:\n  shards: 2\n")
    here.run("snakemake", target)
    for name in ("model.safetensors", "history.csv", "metrics.json"):
        file = f"results/stage_one/{run}/{name}"
        assert (project.path / file).read_bytes() == (here.path / file).read_bytes()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and all that it started itself; Slurm's jobs live on."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
