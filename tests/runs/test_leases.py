"""Which device, in which precision, and never two runs on one GPU."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from longtail import device
from longtail.device import resolve_precision
from longtail.errors import UserError
from longtail.runs import gpus, leases
from longtail.runs.leases import lease

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGTAIL_LOCKS", str(tmp_path / "locks"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu sse2 avx512f", "float32"),
        ("fpu avx512_bf16 sse2", "bf16"),
        ("fpu amx_bf16", "bf16"),
        ("avx512_bf16x", "float32"),
    ],
)
def test_auto_is_bf16_where_the_processor_has_it(tmp_path, monkeypatch, flags, precision):
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    monkeypatch.setattr(device, "CPU_INFO", info)
    assert resolve_precision("auto", CPU) == precision
    assert device.describe(CPU) == "Some CPU"


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "float32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_is_bf16_from_cuda_capability_8(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert resolve_precision("auto", torch.device("cuda")) == precision


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_what_is_asked_for_is_obeyed(precision, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "nothing")
    assert resolve_precision(precision, CPU) == precision
    assert device.describe(CPU)


def test_threads_are_those_of_omp_num_threads_else_one(monkeypatch):
    before = torch.get_num_threads()
    for value, threads in (("2", 2), ("", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        device.set_up(CPU)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")  # as OpenMP has it for loops in loops
    assert device.threads() == 2
    for value in ("0", "many", "-1"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        with pytest.raises(UserError, match=f"OMP_NUM_THREADS={value}: should be a number of threads"):
            device.threads()


HOLDER = """
import os, sys, time
from pathlib import Path
from longtail.runs.leases import lease
with lease(["GPU-a", "GPU-b"]) as name:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == name
    assert "torch" not in sys.modules
    taken = Path(sys.argv[1], name)
    taken.mkdir()  # fails if another process is on it
    time.sleep(0.15)
    taken.rmdir()
    Path(sys.argv[1], f"done-{os.getpid()}-{name}").touch()
"""


def test_five_processes_on_two_gpus_never_share_one(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    processes = [subprocess.Popen(command, env=environment) for _ in range(5)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 5
    used = [file.name.split("-")[-1] for file in tmp_path.glob("done-*")]
    assert len(used) == 5
    assert set(used) == {"a", "b"}


def test_the_second_lease_waits_until_the_first_process_is_dead(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.02)
    hold = "import time; from longtail.runs.leases import lease\n"
    hold += "with lease(['a']): print('held', flush=True); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", hold], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    monkeypatch.setattr(time, "sleep", lambda _: process.kill())  # instead of waiting: end the holder
    with lease(["a"]) as name:
        assert name == "a"
    process.wait()
    process.stdout.close()
    assert capsys.readouterr().err == "waiting for a free GPU (1 in use)\n"


def test_two_leases_take_two_gpus_and_give_the_environment_back(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "before")
    with lease(["0", "1"]) as one, lease(["0", "1"]) as two:
        assert {one, two} == {"0", "1"}
        assert os.environ["CUDA_VISIBLE_DEVICES"] == two
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "before"
    with lease(["0"]) as again:
        assert again == "0"


def test_locks_are_the_user_s_own_and_the_same_from_every_login(tmp_path, monkeypatch):
    with lease(["0"]):
        assert (tmp_path / "locks").stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("LONGTAIL_LOCKS")
    monkeypatch.setattr(leases.Path, "mkdir", lambda *_, **__: None)
    monkeypatch.setattr(leases.Path, "lstat", lambda _: os.stat(tmp_path))
    for runtime in ("/run/user/7", ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        assert leases._lock_folder() == Path(f"/tmp/longtail-{os.getuid()}")


def test_a_lock_folder_that_cannot_be_used_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LONGTAIL_LOCKS", str(tmp_path / "file/locks"))
    with pytest.raises(UserError, match="set LONGTAIL_LOCKS to a folder of yours"), lease(["0"]):
        pass
    monkeypatch.setenv("LONGTAIL_LOCKS", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: -7)
    with pytest.raises(UserError, match="belongs to another user; set LONGTAIL_LOCKS"), lease(["0"]):
        pass


def test_jobs_in_one_allocation_of_slurm_share_out_its_devices(monkeypatch):
    """Inside salloc all see the same devices; another job's devices are its own, whatever they are called."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with lease(["0", "1"]) as one, lease(["0", "1"]) as two:
        assert {one, two} == {"0", "1"}
        monkeypatch.setenv("SLURM_JOB_ID", "8")
        with lease(["0"]) as other:
            assert other == "0"


def test_an_index_is_a_job_step_s_own_and_a_uuid_the_job_s(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert leases._lock_name("0") == "slurm-7-1-0"
    assert leases._lock_name("GPU-a/b") == "slurm-7-GPU-a_b"
    monkeypatch.delenv("SLURM_JOB_ID")
    assert leases._lock_name("0") == "0"


def test_a_run_that_needs_no_gpu_sees_none_and_waits_for_none(monkeypatch):
    with lease(["0"]), lease(["0"], count=0) as name:
        assert name is None
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_without_a_gpu_nothing_is_leased(monkeypatch):
    monkeypatch.setattr(gpus, "installed", list)
    for visible in (None, "", "0"):
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with lease() as name:
            assert name is None


def test_looking_for_a_gpu_starts_no_torch():
    code = "import sys, longtail.device, longtail.runs.leases; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(device.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
