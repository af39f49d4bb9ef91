"""A user's mistake: one clear line, exit code 2, nothing left behind."""

import os
import shutil

import pytest

from tests.tiny import TINY
from tests.workflow.conftest import Project, copy_sources


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("errors") / "project")
    project.path.mkdir()
    copy_sources(project.path)
    project.git("init", "-q")
    return project


def fails(project: Project, settings: str, *command: str) -> str:
    """The error line of a command under these settings, which has to end with exit code 2."""
    (project.path / "params.yaml").write_text(settings)
    code, out = project.status(*command)
    assert code == 2, out
    assert "Traceback" not in out
    return out


@pytest.mark.parametrize("command", [("longtail", "plan"), ("snakemake", "-n")])
@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("seeds:", "sedes:", "params.yaml: sedes: unknown key"),
        ("ratios: [10]", "ratios: [0.5]", "params.yaml: imbalance.ratios[0]: 0.5 is below 1; a ratio is"),
        ("dataset: digits", "dataset: letters", "params.yaml: dataset: 'letters' is unknown; there are"),
        ("seeds: [0]", "seeds: [0", "params.yaml: not valid YAML"),
    ],
)
def test_a_wrong_setting(fresh, command, old, new, line):
    assert old in TINY
    out = fails(fresh, TINY.replace(old, new), *command)
    assert line in out
    assert not (fresh.path / "results").exists()


def test_a_settings_file_that_is_not_there(fresh):
    code, out = fresh.status("snakemake", "-n", "--config", "params=nowhere.yaml")
    assert code == 2
    assert "nowhere.yaml: cannot be read (No such file or directory)" in out


def test_a_missing_dataset_without_a_network(fresh):
    settings = TINY.replace("dataset: digits", "dataset: cifar100").replace(
        "download: false", "download: true"
    )
    (fresh.path / "params.yaml").write_text(settings)
    fresh.run("longtail", "plan")
    nowhere = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    code, out = fresh.status("longtail", "acquire", "cifar100", env=nowhere)
    assert code == 2, out
    assert len(out.strip().splitlines()) == 1
    assert "data/raw/cifar-100-python: not there and no network" in out
    assert "set data.root to a folder that holds cifar-100-python" in out
    assert not list(fresh.path.glob("data/raw/*"))


def test_a_wrong_checksum(fresh, tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test", "meta"):
        (folder / name).write_bytes(b"not the official file")
    settings = TINY.replace("dataset: digits", "dataset: cifar100").replace("root: null", f"root: {tmp_path}")
    (fresh.path / "params.yaml").write_text(settings)
    fresh.run("longtail", "plan")
    code, out = fresh.status("longtail", "acquire", "cifar100")
    assert code == 2, out
    assert f"{folder}/train: MD5 is" in out
    assert not (fresh.path / "data/raw/cifar100").exists()


def test_a_class_that_is_left_without_an_image(fresh):
    (fresh.path / "params.yaml").write_text(TINY.replace("ratios: [10]", "ratios: [1000]"))
    out = fresh.run("snakemake", "split_all", ok=False)
    assert "imbalance.ratios: 1000 leaves no training image for classes" in out
    assert "Traceback" not in out
    assert not list((fresh.path / "data/splits").glob("*/*.csv"))


def test_a_run_that_was_never_planned(fresh):
    code, out = fresh.status("longtail", "stage-one", "some-run-00000000")
    assert code == 2
    assert "some-run-00000000: not planned here; `longtail plan` lists the runs" in out


@pytest.mark.parametrize("command", [("longtail", "plan"), ("snakemake", "-n")])
def test_what_is_wrong_outside_the_settings_is_one_line_both_ways_in(fresh, command):
    adopted = fresh.path / "workflow/adopted.csv"
    good = adopted.read_bytes()
    adopted.write_bytes(good + b"<<<<<<< HEAD\n")
    try:
        assert "workflow/adopted.csv:" in fails(fresh, TINY, *command)
    finally:
        adopted.write_bytes(good)
    plan = fresh.path / ".longtail/plan"
    shutil.rmtree(plan, ignore_errors=True)
    plan.parent.mkdir(exist_ok=True)
    plan.write_text("no folder")
    try:
        assert ": Not a directory" in fails(fresh, TINY, *command).splitlines()[-1]
    finally:
        plan.unlink()


def test_random_bytes_in_the_memory_of_snakemake(fresh):
    (fresh.path / "params.yaml").write_text(TINY)
    fresh.run("snakemake", "-c1", "split_all")
    records = list((fresh.path / ".snakemake/metadata").iterdir())
    assert records
    for record in records:
        record.write_bytes(b"\xff\xfe" + os.urandom(200))
        os.utime(record, (0, 0))  # long ago: what has just changed may be half written
    out = fresh.run("snakemake", "-n", "split_all")
    assert f"cleared {len(records)} damaged records of Snakemake's own" in out
    assert "\ntotal            1\n" in out  # the check of the layer, which always is: nothing is made again


def test_a_fault_as_the_first_job_starts(fresh):
    """Snakemake's `onstart` writes which runs are wanted; what goes wrong there is a line too."""
    wanted = fresh.path / ".longtail/plan/wanted"
    shutil.rmtree(wanted, ignore_errors=True)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    wanted.write_text("no folder")
    try:
        out = fails(fresh, TINY.replace("ratios: [10]", "ratios: [11]"), "snakemake", "-c1", "split_all")
        assert ".longtail/plan/wanted" in out.splitlines()[-1]
        assert not list(fresh.path.glob("data/splits/*exp11*"))
    finally:
        wanted.unlink()
