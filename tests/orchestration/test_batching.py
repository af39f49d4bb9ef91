"""Runs that a job computes beside its own: only wanted, missing and ready ones, and at no risk to its own."""

import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from longtail.errors import UserError
from longtail.orchestration import execute as run
from longtail.orchestration.batching import SHARE, WANTED, budget, companions, want
from longtail.orchestration.gpu_memory import gpu_memory
from longtail.orchestration.step_errors import in_a_line
from longtail.runs import leases, store
from longtail.runs.gpus import Device
from longtail.runs.identity import file_digest

ROOT = Path(__file__).parents[2]
NAMES = ("a", "b", "c", "d")


def compute(planned: dict[str, Any]) -> Path:
    """Stands for a step: takes as long as its settings say, or fails."""
    print(f"at {planned['run']}", flush=True)
    time.sleep(planned["settings"].get("seconds", 0))
    if planned["settings"].get("fails"):
        raise UserError("the loss is nan")
    folder = store.scratch(planned["step"], planned["run"]) / "outputs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(planned["run"])
    outputs = {"metrics.json": file_digest(folder / "metrics.json")}
    store.write_json(folder / "run.json", {"identity": planned["identity"], "outputs": outputs, "seconds": 0})
    return store.keep(folder, planned["step"], planned["run"])


def job(name: str) -> None:
    """`longtail stage-two NAME`, with a made-up step."""
    run.compute = compute
    run.execute("stage_two", name)


def plan(name: str, inputs: dict[str, Any] | None = None, **settings: Any) -> None:
    planned = {
        "step": "stage_two",
        "run": name,
        "identity": name * 64,
        "code": "",
        "modules": [],
        "settings": settings,
        "folder": f"results/stage_two/{name}",
        "inputs": inputs or {},
    }
    store.write_json(store.PLANNED / "stage_two" / f"{name}.json", planned)


def wanted(*names: str) -> None:
    """As the Snakefile does it once the jobs are known."""
    everything = SimpleNamespace(
        runs=lambda step: dict.fromkeys(NAMES if step == "stage_two" else ()), published=tuple
    )
    want(
        everything,
        [
            SimpleNamespace(rule=SimpleNamespace(name="stage_two"), wildcards_dict={"run": name})
            for name in names
        ],
    )


def found() -> list[str]:
    return sorted(file.parent.name for file in store.stored("stage_two", "x").parent.glob("*/run.json"))


def begin(name: str) -> "subprocess.Popen[str]":
    """The job as a process of its own."""
    command = [sys.executable, "-c", f"from tests.orchestration.test_batching import job; job({name!r})"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )


def heard(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


@pytest.fixture(autouse=True)
def in_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "compute", compute)
    monkeypatch.setenv(WANTED, "")  # so that what `want` sets is undone
    monkeypatch.delenv(SHARE, raising=False)
    monkeypatch.setenv(leases.ALLOCATION, "")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    store.home.cache_clear()
    for name in NAMES:
        plan(name)
    yield
    store.home.cache_clear()


def test_a_job_computes_the_other_wanted_runs_into_the_store_and_links_only_its_own(capfd):
    wanted("a", "b", "d")
    run.execute("stage_two", "b")
    assert found() == ["a", "b", "d"]  # and not c, which this invocation does not want
    assert [path.name for path in Path("results/stage_two").iterdir()] == ["b"]
    assert not store.scratch("stage_two", "a").exists()
    assert capfd.readouterr().out.splitlines() == ["at b", "at d", "at a"]  # the next ones first
    run.execute("stage_two", "a")
    assert os.path.samefile("results/stage_two/a/run.json", store.stored("stage_two", "a") / "run.json")
    assert capfd.readouterr().out == ""  # linked, not computed


def test_a_command_by_hand_computes_its_run_only():
    run.execute("stage_two", "a")
    assert found() == ["a"]


@pytest.mark.parametrize(
    ("seconds", "expected"), [("0", ["a"]), ("1.2", ["a", "b"]), ("60", ["a", "b", "c"])]
)
def test_sharing_ends_when_another_run_like_the_last_would_not_fit(monkeypatch, seconds, expected):
    wanted("a", "b", "c")
    plan("b", seconds=1)
    monkeypatch.setenv(SHARE, seconds)
    run.execute("stage_two", "a")
    assert found() == expected


def test_a_run_that_was_only_linked_brings_no_companions():
    wanted("a", "b")
    compute(json.loads((store.PLANNED / "stage_two/a.json").read_text()))
    run.execute("stage_two", "a")
    assert found() == ["a"]


def test_runs_whose_inputs_are_not_finished_are_left():
    wanted("a", "b", "c")
    made = {"run": "f", "identity": "f", "folder": "results/features/f"}
    plan("b", inputs={"features": made})
    assert [planned["run"] for planned in companions("stage_two", "a")] == ["c"]
    store.write_json(store.stored("features", "f") / "run.json", {})
    assert [planned["run"] for planned in companions("stage_two", "a")] == ["b", "c"]


def test_a_failing_companion_fails_its_own_job_and_no_other(capfd):
    wanted("a", "b", "c")
    plan("b", fails=True)
    run.execute("stage_two", "a")
    assert "b: left to its own job (the loss is nan)" in capfd.readouterr().err
    assert Path("results/stage_two/a/run.json").is_file()
    assert found() == ["a"]
    with pytest.raises(UserError, match="the loss is nan"):
        run.execute("stage_two", "b")
    run.execute("stage_two", "c")
    assert found() == ["a", "c"]


def test_another_process_at_a_companion_is_not_waited_for_and_its_own_job_waits():
    wanted("a", "b", "c")
    plan("b", seconds=30)
    beside = begin("b")
    heard(beside, "at b")
    started = time.monotonic()
    run.execute("stage_two", "a")
    assert found() == ["a", "c"]
    assert time.monotonic() - started < 20
    plan("b")
    with pytest.raises(subprocess.TimeoutExpired):
        (own := begin("b")).wait(1.5)
    beside.kill()
    beside.wait()
    own.wait(60)
    assert found() == ["a", "b", "c"]


def test_a_kill_while_a_companion_is_computed_loses_nothing():
    wanted("a", "b")
    plan("b", seconds=60)
    process = begin("a")
    heard(process, "at a")
    heard(process, "at b")
    process.kill()
    process.wait()
    assert found() == ["a"]
    store.verify(Path("results/stage_two/a"), "a" * 64)
    assert not Path("results/stage_two/b").exists()
    plan("b")
    run.execute("stage_two", "b")
    store.verify(Path("results/stage_two/b"), "b" * 64)


@pytest.mark.parametrize("given", ["-1", "nan", "much"])
def test_a_budget_that_is_no_time_is_an_error_before_anything_is_computed(monkeypatch, given):
    monkeypatch.setenv(SHARE, given)
    with pytest.raises(UserError, match=f"{SHARE}={given}"):
        run.execute("stage_two", "a")
    assert found() == []


def test_only_small_steps_share_unasked():
    assert (budget("stage_two"), budget("stage_one"), budget("split")) == (60, 20, 0)


class Together:
    """Stands for the step's module: says which runs it was given at once, one of which may fail."""

    def __init__(self, monkeypatch, at_once, fails=()):
        self.given: list[list[str]] = []
        self.fails, self.error = fails, UserError("the loss is nan")
        monkeypatch.setattr(leases, "runs_at_once", lambda missing, *_: min(at_once, missing))
        monkeypatch.setattr(leases, "lease", lambda count: nullcontext("0"))
        monkeypatch.setattr(leases, "check", lambda leased: None)
        monkeypatch.setattr(run, "module_of", lambda step: self)
        monkeypatch.setattr(run, "begin", self.begin)
        monkeypatch.setattr(run, "finish", lambda planned, job, seconds: compute(planned))

    def begin(self, planned):
        return SimpleNamespace(run=planned["run"])

    def compute_together(self, jobs):
        self.given.append([job.run for job in jobs])
        return [self.error if job.run in self.fails else None for job in jobs]


@pytest.fixture
def trained():
    """The plan of `NAMES` as runs of stage one."""
    for name in NAMES:
        planned = store.read_plan("stage_two", name) | {"step": "stage_one"}
        store.write_json(store.PLANNED / "stage_one" / f"{name}.json", planned)
    everything = SimpleNamespace(
        runs=lambda step: dict.fromkeys(NAMES if step == "stage_one" else ()), published=tuple
    )
    rule = SimpleNamespace(name="stage_one")
    want(everything, [SimpleNamespace(rule=rule, wildcards_dict={"run": name}) for name in NAMES])


def kept() -> list[str]:
    return sorted(file.parent.name for file in store.stored("stage_one", "x").parent.glob("*/run.json"))


RECIPE = {
    "network": {"name": "resnet_cifar"},
    "batch_size": 64,
    "observers": [],
    "schedule": {"epochs": 2},
    "then": [],
}


def trainings(monkeypatch, own: dict[str, Any] | None = None, **changes: dict[str, Any]) -> list[str]:
    """Train `a` on a CPU, beside b, c and d, of which some are not like it; what was trained.

    Args:
        own: changes of a's recipe.
        changes: of the plan of others, by name.
    """
    monkeypatch.setattr(leases, "lease", lambda count: nullcontext(None))
    for name in NAMES:
        planned = store.read_plan("stage_one", name)
        planned["settings"] = {"recipe": {**RECIPE, **((own or {}) if name == "a" else {})}}
        planned["inputs"] = {"split": {"run": "s", "identity": "s", "folder": "s"}}
        planned |= changes.get(name, {})
        store.write_json(store.PLANNED / "stage_one" / f"{name}.json", planned)
    store.write_json(store.stored("split", "s") / "run.json", {"identity": "s", "outputs": {}})
    for name in ("t", "s"):
        store.write_json(Path(name) / "run.json", {"identity": name, "outputs": {}})
    run.execute("stage_one", "a")
    return kept()


def test_a_short_training_is_followed_by_others_as_short(monkeypatch, trained):
    assert trainings(monkeypatch) == ["a", "b", "c", "d"]


def test_trainings_of_other_lengths_are_left_to_their_own_jobs(monkeypatch, trained):
    longer = {"settings": {"recipe": {**RECIPE, "schedule": {"epochs": 200}}}}
    two_phases = {"settings": {"recipe": {**RECIPE, "then": [{"schedule": {"epochs": 3}}]}}}
    larger = {"settings": {"recipe": {**RECIPE, "network": {"name": "resnet"}}}}
    assert trainings(monkeypatch, b=longer, c=two_phases, d=larger) == ["a"]


def test_trainings_of_other_data_are_left_to_their_own_jobs(monkeypatch, trained):
    other = {"inputs": {"split": {"run": "t", "identity": "t", "folder": "t"}}}
    pictures = {"settings": {"recipe": RECIPE, "images": {"size": 224}}}
    assert trainings(monkeypatch, b=other, c=pictures, d={"gpus": 2}) == ["a"]


def chain(monkeypatch) -> None:
    """Features of training `a`, a classifier over them, and features of a training that nobody makes here."""
    at = {"a": ("stage_one", "a"), "of_a": ("features", "of_a"), "elsewhere": ("stage_one", "elsewhere")}
    made = {"of_a": "a", "of_elsewhere": "elsewhere", "classifier": "of_a"}
    for name, built_on in made.items():
        step = "stage_two" if name == "classifier" else "features"
        reference = {"run": built_on, "identity": built_on, "folder": f"results/{at[built_on][0]}/{built_on}"}
        planned = store.read_plan("stage_two", "a") | {
            **{"step": step, "run": name, "identity": name * 8, "inputs": {at[built_on][0]: reference}},
            "folder": f"results/{step}/{name}",
        }
        store.write_json(store.PLANNED / step / f"{name}.json", planned)
    runs = {"stage_one": ["a"], "features": ["of_a", "of_elsewhere"], "stage_two": ["classifier"]}
    everything = SimpleNamespace(runs=lambda step: dict.fromkeys(runs.get(step, ())), published=tuple)
    jobs = [
        SimpleNamespace(rule=SimpleNamespace(name=step), wildcards_dict={"run": name})
        for step, names in runs.items()
        for name in names
    ]
    want(everything, jobs)


def everywhere() -> list[str]:
    return sorted(file.parent.name for file in store.stored("x", "x").parents[1].glob("*/*/run.json"))


def test_a_training_is_followed_by_its_features_and_the_classifiers_over_them(monkeypatch, trained, capfd):
    chain(monkeypatch)
    trainings(monkeypatch)
    assert everywhere() == ["a", "classifier", "of_a", "s"]
    assert "a: 1 more of features computed beside it" in capfd.readouterr().err
    assert not Path("results/features").exists()  # their own jobs link them


@pytest.mark.parametrize("seconds", ["0", "0.5"])
def test_a_training_longer_than_the_budget_is_followed_by_nothing(monkeypatch, trained, seconds):
    chain(monkeypatch)
    monkeypatch.setenv(SHARE, seconds)
    monkeypatch.setattr(run.store, "record", lambda folder: {"seconds": 1.0, "outputs": {}})
    trainings(monkeypatch)
    assert everywhere() == ["a", "s"]


def test_a_job_of_several_threads_computes_its_own_step_only(monkeypatch, trained):
    chain(monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    trainings(monkeypatch)
    assert everywhere() == ["a", "s"]


def test_a_gpu_trains_other_wanted_runs_at_the_same_time(monkeypatch, trained):
    together = Together(monkeypatch, at_once=3)
    run.execute("stage_one", "b")
    assert together.given == [["b", "c", "d"]]
    assert kept() == ["b", "c", "d"]
    assert [path.name for path in Path("results/stage_two").iterdir()] == ["b"]


def test_a_run_of_several_gpus_is_not_taken_along_on_one(monkeypatch, trained):
    planned = store.read_plan("stage_one", "c") | {"gpus": 2}
    store.write_json(store.PLANNED / "stage_one/c.json", planned)
    together = Together(monkeypatch, at_once=8)
    run.execute("stage_one", "a")
    assert together.given == [["a", "b", "d"]]


def test_a_run_that_fails_beside_others_is_left_to_its_own_job(monkeypatch, trained, capfd):
    together = Together(monkeypatch, at_once=8, fails=("c",))
    run.execute("stage_one", "a")
    assert together.given == [["a", "b", "c", "d"]]
    assert kept() == ["a", "b", "d"]
    assert "c: left to its own job (the loss is nan)" in capfd.readouterr().err


def test_a_run_that_fails_itself_keeps_what_others_made(monkeypatch, trained):
    Together(monkeypatch, at_once=8, fails=("a",))
    with pytest.raises(UserError, match="the loss is nan"):
        run.execute("stage_one", "a")
    assert kept() == ["b", "c", "d"]


@pytest.mark.parametrize("at", ["begin", "finish"])
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyError("an older record")])
def test_a_run_that_cannot_be_begun_or_kept_beside_others_is_left_to_its_own_job(
    monkeypatch, trained, capfd, at, fault
):
    Together(monkeypatch, at_once=8)
    goes_well = getattr(run, at)

    def fails(planned, *further):
        if planned["run"] == "b":
            raise fault
        return goes_well(planned, *further)

    monkeypatch.setattr(run, at, fails)
    run.execute("stage_one", "a")
    assert kept() == ["a", "c", "d"]
    assert f"b: left to its own job ({fault})\n" in capfd.readouterr().err


def test_a_run_that_is_not_trained_beside_others_is_free_for_its_own_job(monkeypatch, trained):
    together, free = Together(monkeypatch, at_once=4), []

    def begin(planned):
        if planned["run"] == "b":
            raise UserError("an input is damaged")
        return together.begin(planned)

    def train(jobs):
        for name in NAMES:
            with store.locked("stage_one", name, wait=False) as held:
                free.extend([name] if held else [])
        return Together.compute_together(together, jobs)

    monkeypatch.setattr(run, "begin", begin)
    monkeypatch.setattr(run, "find", lambda step, name, *_: Path("another's name") if name == "c" else None)
    monkeypatch.setattr(together, "compute_together", train)
    run.execute("stage_one", "a")
    assert together.given == [["a", "d"]]
    assert free == ["b", "c"]


def test_several_gpus_share_what_is_missing(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv(leases.ALLOCATION, raising=False)
    monkeypatch.setattr(leases.gpus, "free_mb", lambda names: None)
    for devices, missing, expected in ((1, 3, 3), (1, 30, 8), (2, 3, 2), (4, 2, 1)):
        assert leases.runs_at_once(missing, "gpu", 1000, devices) == expected
    monkeypatch.setenv("LONGTAIL_RUNS_PER_GPU", "none")
    with pytest.raises(UserError, match="LONGTAIL_RUNS_PER_GPU=none"):
        leases.runs_at_once(2, "gpu", 1000, 1)


def test_the_first_job_leaves_to_another_gpu_what_it_does_not_see_once_it_has_its_own(
    monkeypatch, trained, tmp_path
):
    at_once, lease = leases.runs_at_once, leases.lease
    together = Together(monkeypatch, at_once=8)
    monkeypatch.setattr(leases, "runs_at_once", at_once)
    monkeypatch.setattr(leases, "lease", lease)
    monkeypatch.setenv(leases.LOCKS, str(tmp_path / "locks"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(leases.gpus, "installed", lambda: [[Device("GPU-a")], [Device("GPU-b")]])
    monkeypatch.setattr(leases.gpus, "torch_cuda", lambda: ("2.9", "12.6"))
    monkeypatch.setattr(leases.gpus, "free_mb", lambda names: None)
    run.execute("stage_one", "a")
    assert together.given == [["a", "b"]]


def test_runs_at_once_are_as_many_as_the_memory_holds(monkeypatch):
    for free, expected in ((81_000, 8), (8_000, 4), (3_900, 1), (300, 1), (None, 8)):
        monkeypatch.setattr(leases.gpus, "free_mb", lambda names, free=free: free)
        assert leases.runs_at_once(30, "gpu", 1500, 1) == expected


def test_runs_share_a_gpu_in_the_allocation_of_snakemake_and_not_in_a_job_of_their_own(monkeypatch):
    monkeypatch.setattr(leases.gpus, "free_mb", lambda names: None)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    wanted("a")
    assert leases.runs_at_once(30, "gpu", 1500, 1) == 8
    monkeypatch.setenv("SLURM_JOB_ID", "8")  # which Snakemake has submitted
    assert leases.runs_at_once(30, "gpu", 1500, 1) == 1


def test_memory_that_is_expected_grows_with_batch_and_network():
    def mb(**changes):
        network = {"name": "resnet_cifar", "depth": 32, "width": 16} | changes.pop("network", {})
        return gpu_memory({"recipe": {"network": network, "batch_size": 128, "shards": 1, **changes}})

    assert mb() == 1500
    assert mb(batch_size=512) == 4500
    assert mb(batch_size=512, shards=4) == 1500
    assert mb(network={"width": 32}) == 2500
    assert mb(network={"name": "resnet"}) == 5500


OUT = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which"
    " 1.00 GiB is free.\nSee documentation"
)


def test_memory_that_does_not_suffice_is_one_line_that_names_what_helps(monkeypatch, trained):
    class OutOfMemoryError(RuntimeError):
        pass

    planned = {"run": "a", "settings": {"recipe": {"batch_size": 128, "shards": 2}}}
    for error in (OutOfMemoryError(OUT), UserError(OUT), RuntimeError("CUDA error: out of memory")):
        said = str(in_a_line(error, planned, 8))
        assert "\n" not in said
        for word in ("LONGTAIL_RUNS_PER_GPU below 8", "batch_size (it is 128)", "shards (2)"):
            assert word in said
    assert "(tried to allocate 2.00 GiB)" in str(in_a_line(OutOfMemoryError(OUT), planned, 1))
    assert "LONGTAIL_RUNS_PER_GPU=1" in str(in_a_line(OutOfMemoryError(OUT), planned, 1))
    assert "CUDA_VISIBLE_DEVICES=" in str(in_a_line(OutOfMemoryError(OUT), {"run": "f", "settings": {}}, 1))
    other = ValueError("no memory of it")
    assert in_a_line(other, planned, 1) is other
    with pytest.raises(ValueError) as lone:  # noqa: PT011 - whatever torch says today
        torch.nn.BatchNorm2d(2)(torch.zeros(1, 2, 1, 1))
    assert "one image" in (said := str(in_a_line(lone.value, planned, 1)))
    assert "batch_size (it is 128)" in said
    of_features = {"run": "f", "settings": {"batch_size": 64, "views": 0}}
    assert "batch_size (it is 64), or larger images" in str(in_a_line(lone.value, of_features, 1))

    together = Together(monkeypatch, at_once=2, fails=("a",))
    monkeypatch.setattr(together, "error", OutOfMemoryError(OUT))
    store.write_json(
        store.PLANNED / "stage_one" / "a.json",
        store.read_plan("stage_one", "a") | {"settings": planned["settings"]},
    )
    with pytest.raises(UserError, match="a: the GPU ran out of memory"):
        run.execute("stage_one", "a")
    assert kept() == ["b"]


def test_a_folder_that_is_not_of_the_run_is_left_alone():
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years")
    with pytest.raises(UserError, match="--into mine: has to be a folder of the run alone, named a"):
        run.execute("stage_two", "a", "mine")
    assert Path("mine/thesis.tex").is_file()
    assert found() == []
    run.execute("stage_two", "a", "elsewhere/a")
    assert Path("elsewhere/a/run.json").is_file()
