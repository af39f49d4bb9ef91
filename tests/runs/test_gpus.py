"""Which GPUs runs are given: told by a fake nvidia-smi, a fake driver library, or device files alone."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from longtail.errors import UserError
from longtail.orchestration.gpu_requests import asked, check_gpus
from longtail.runs import gpus, leases
from longtail.runs.gpus import Device, parse_listing

LISTING = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-a0)
  MIG 3g.20gb     Device  1: (UUID: MIG-a1)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbb)
"""
SMI = """#!/bin/sh
case "$1" in
-L) cat "$0.listing" ;;
--query-gpu=uuid,memory.free) cat "$0.free" ;;
--query-gpu=compute_cap*) [ -f "$0.facts" ] && cat "$0.facts" ;;
--query-gpu=memory.total*) cat "$0.old_facts" ;;
esac
"""
A100, H100 = ("8.0", "40960"), ("9.0", "81559")


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine without a GPU, and with the torch that is pinned."""
    monkeypatch.setattr(gpus, "DEV", tmp_path / "dev")
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("LONGTAIL_LOCKS", str(tmp_path / "locks"))
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", leases.ALLOCATION, "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpus, "torch_cuda", lambda: ("2.14.1+cu130", "13.0"))
    cached = (gpus.installed, gpus._by_the_driver, gpus._probed)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Put a fake nvidia-smi on the path: a listing, and a line of facts a GPU."""

    def make(listing, facts=None, old_facts="", free="", fails=False):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "nvidia-smi"
        program.write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n" if fails else SMI)
        program.chmod(0o755)
        for name, text in {"listing": listing, "facts": facts, "old_facts": old_facts, "free": free}.items():
            if text is not None:
                (folder / f"nvidia-smi.{name}").write_text(text)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.defpath}")
        gpus.installed.cache_clear()

    return make


def cards(smi, *kinds, driver="580.65.06", display=()):
    """GPUs a, b, ... of these compute capabilities and memories."""
    names = [chr(ord("a") + number) for number in range(len(kinds))]
    smi(
        "".join(f"GPU {number}: Card {name} (UUID: GPU-{name})\n" for number, name in enumerate(names)),
        "".join(
            f"{capability}, {memory}, {driver}, {'Enabled' if name in display else 'Disabled'}\n"
            for name, (capability, memory) in zip(names, kinds, strict=True)
        ),
    )


def names(devices):
    return [device.name for device in devices]


def test_without_a_gpu_there_is_none():
    assert gpus.installed() == gpus.usable() == gpus.left_alone() == []
    assert gpus.refusal() == ""


def test_a_gpu_has_one_name_however_it_is_asked_for(monkeypatch, smi):
    assert [names(devices) for devices in parse_listing(LISTING)] == [["MIG-a0", "MIG-a1"], ["GPU-bbb"]]
    assert parse_listing("No devices found.\n") == []
    smi(LISTING, "8.0, 40960, 580.65, Disabled\n" * 2)
    assert names(gpus.usable()) == ["MIG-a0", "MIG-a1", "GPU-bbb"]
    for visible, expected in {
        "1": ["GPU-bbb"],
        "GPU-bbb": ["GPU-bbb"],
        "GPU-b": ["GPU-bbb"],  # a beginning that only one has, which CUDA takes
        "MIG-a": ["MIG-a"],  # of two
        "1,0": ["GPU-bbb", "MIG-a0", "MIG-a1"],
        "": [],
        "-1": [],
        "1,9,0": ["GPU-bbb"],
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert names(gpus.usable()) == expected


def test_a_mig_slice_has_its_own_memory_and_its_card_s_capability(smi):
    smi(LISTING, "8.0, 40960, 580.65, [N/A]\n" * 2, free="GPU-aaa, 39000\nGPU-bbb, 9000\n")
    slice_, _, whole = gpus.usable()
    assert slice_ == Device("MIG-a0", "NVIDIA A100-SXM4-40GB", (8, 0), 20 << 10, "580.65")
    assert whole.memory_mb == 40_960
    assert gpus.free_mb(["MIG-a0"]) == 20 << 10
    assert gpus.free_mb(["GPU-bbb"]) == 9000
    assert gpus.free_mb(["GPU-bbb", "MIG-a1"]) == 9000
    assert gpus.free_mb(["0"]) is None


def test_cards_that_torch_has_no_code_for_are_not_leased(smi, monkeypatch):
    cards(smi, H100, ("6.1", "11264"), H100)
    assert names(gpus.usable()) == ["GPU-a", "GPU-c"]
    (line,) = gpus.left_alone()
    assert line == ("GPU Card b is not used: compute capability 6.1, and torch 2.14.1+cu130 needs 7.5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus.usable() == []
    assert gpus.refusal() == ""  # nothing to be done: it computes on the CPU
    with leases.lease() as name:
        assert name is None
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # CUDA would list it, and fail at the first kernel


def test_cards_for_a_display_are_not_leased_beside_those_that_compute(smi, monkeypatch):
    cards(smi, A100, ("7.5", "4096"), A100)
    assert names(gpus.usable()) == ["GPU-a", "GPU-c"]
    assert gpus.left_alone() == ["GPU Card b is not used: a display card beside larger ones"]
    cards(smi, ("8.9", "24564"), ("8.9", "16376"), display="b")
    assert names(gpus.usable()) == ["GPU-a"]
    cards(smi, ("8.9", "24564"), ("8.9", "24564"), display="a")
    assert names(gpus.usable()) == ["GPU-a", "GPU-b"]
    cards(smi, ("8.9", "24564"), display="a")
    assert names(gpus.usable()) == ["GPU-a"]
    cards(smi, A100, ("7.5", "4096"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert names(gpus.usable()) == ["GPU-b"]  # as it was asked for


def test_an_old_driver_is_one_line_with_its_version_and_what_helps(smi, monkeypatch):
    cards(smi, H100, driver="535.104.05")
    line = gpus.refusal()
    assert line == (
        "GPU Card a cannot be used: NVIDIA driver 535.104.05 is too old for torch 2.14.1+cu130 (CUDA 13.0):"
        " install"
        " driver 580 or later, or a torch for an older CUDA; CUDA_VISIBLE_DEVICES= in front of the command"
        " computes on the CPU"
    )
    with pytest.raises(UserError, match=r"NVIDIA driver 535\.104\.05 is too old"), leases.lease():
        pass
    with leases.lease(count=0) as name:  # what needs no GPU is computed
        assert name is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with leases.lease() as name:
        assert name is None
    monkeypatch.setattr(gpus, "torch_cuda", lambda: ("2.11.0+cu126", "12.6"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpus.refusal() == ""
    assert names(gpus.usable()) == ["GPU-a"]


def test_a_driver_that_does_not_know_compute_capability_is_asked_without_it(smi):
    smi(LISTING, None, old_facts="40960, 450.51, Disabled\n" * 2)
    assert gpus.usable() == []
    assert "NVIDIA driver 450.51 is too old" in gpus.refusal()


def test_facts_that_are_missing_stop_nothing(smi):
    smi("GPU 0: NVIDIA GB10 (UUID: GPU-a)\n", "[N/A], [N/A], [N/A], [N/A]\n")
    assert gpus.usable() == [Device("GPU-a", "NVIDIA GB10", driver="[N/A]")]
    smi("GPU 0: NVIDIA GB10 (UUID: GPU-a)\n", "")
    assert gpus.usable() == [Device("GPU-a", "NVIDIA GB10")]


def test_a_torch_without_cuda_is_said_and_computes_on_the_cpu(smi, monkeypatch):
    cards(smi, H100)
    monkeypatch.setattr(gpus, "torch_cuda", lambda: ("2.14.1+cpu", None))
    assert gpus.usable() == []
    assert gpus.refusal() == ""
    assert gpus.left_alone() == [
        "GPU Card a is not used: torch 2.14.1+cpu is built without CUDA; install a build with it"
    ]


def test_the_version_of_cuda_is_read_without_importing_torch():
    code = (
        "import sys; from longtail.runs.gpus import torch_cuda; print(*torch_cuda(), 'torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    import torch

    assert out.stdout.split() == [torch.__version__, str(torch.version.cuda), "False"]


def device_files(tmp_path, *numbers):
    (tmp_path / "dev").mkdir()
    for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{number}" for number in numbers)):
        (tmp_path / "dev" / name).touch()


def test_a_container_without_nvidia_smi_leases_all_the_same(tmp_path, monkeypatch):
    device_files(tmp_path, 2, 3)
    with leases.lease(count=2) as both:
        assert both == "0,1"  # indices count what the container has
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert names(gpus.usable()) == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    assert names(gpus.usable()) == ["GPU-a"]


def test_a_failing_nvidia_smi_is_none(tmp_path, smi):
    smi("", fails=True)
    assert gpus.installed() == []
    device_files(tmp_path, 0)
    gpus.installed.cache_clear()
    assert names(gpus.usable()) == ["0"]


LIBCUDA = """
#include <string.h>
static const int VERSION = %d;
int cuDriverGetVersion(int *v) { *v = VERSION; return 0; }
int cuInit(unsigned f) { return %d; }
int cuDeviceGetCount(int *n) { *n = 2; return 0; }
int cuDeviceGetAttribute(int *v, int at, int d) { *v = at == 75 ? 8 + d : at == 76 ? 0 : d; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strcpy(s, "NVIDIA Card"); return 0; }
int cuDeviceGetUuid(unsigned char *u, int d) { for (int i = 0; i < 16; i++) u[i] = 16 * d + i; return 0; }
int cuDeviceTotalMem_v2(size_t *m, int d) { *m = (size_t)48 << 30; return 0; }
"""


@pytest.fixture
def libcuda(tmp_path, monkeypatch):
    """Build a driver's library of two devices, for a version of CUDA."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler for a fake driver library")

    def make(version, error=0):
        folder = tmp_path / "lib"
        folder.mkdir(exist_ok=True)
        (folder / "cuda.c").write_text(LIBCUDA % (version, error))
        build = [compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "cuda.c"]
        subprocess.run(build, check=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
        gpus.installed.cache_clear()
        gpus._by_the_driver.cache_clear()
        gpus._probed.cache_clear()

    return make


def test_without_nvidia_smi_the_driver_s_library_tells_the_same(tmp_path, libcuda):
    device_files(tmp_path, 0, 1)
    libcuda(13_000)
    assert gpus.usable() == [
        Device("GPU-00010203-0405-0607-0809-0a0b0c0d0e0f", "NVIDIA Card", (8, 0), 49_152, "", 13, False),
        Device("GPU-10111213-1415-1617-1819-1a1b1c1d1e1f", "NVIDIA Card", (9, 0), 49_152, "", 13, True),
    ]
    libcuda(12_040)
    assert (
        "the NVIDIA driver is too old for torch 2.14.1+cu130 (CUDA 13.0): install driver 580"
        in gpus.refusal()
    )
    libcuda(13_000, error=803)  # a driver that was updated and not loaded again
    assert names(gpus.usable()) == ["0", "1"]


def test_an_old_driver_with_nvidia_s_package_for_compatibility_is_new_enough(smi, libcuda):
    cards(smi, H100, driver="535.104.05")
    libcuda(13_000)
    assert gpus.refusal() == ""
    assert names(gpus.usable()) == ["GPU-a"]


def test_what_torch_cannot_use_after_all_is_one_line(monkeypatch):
    import torch

    def initialise():
        raise RuntimeError(
            "Unexpected error from cudaGetDeviceCount(). Error 803:\n system has unsupported driver."
        )

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", initialise)
    with pytest.raises(UserError) as caught:
        leases.check("0")
    line = str(caught.value)
    assert "\n" not in line
    for word in ("Error 803", "needs driver 580", "--gpus all", "CUDA_VISIBLE_DEVICES="):
        assert word in line


@pytest.mark.parametrize(
    ("capability", "works"),
    [((6, 1), False), ((7, 0), False), ((7, 5), True), ((8, 6), True), ((8, 9), True), ((9, 0), True),
     ((10, 3), False), ((12, 1), True), ((13, 0), True)],
)  # fmt: skip
def test_a_card_runs_code_of_its_generation_and_what_the_driver_translates(monkeypatch, capability, works):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Card")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90", "compute_120"])
    if works:
        leases.check("0")
    else:
        with pytest.raises(UserError, match=r"Card .compute capability .* has no code for it"):
            leases.check("0")


def test_jobs_ask_for_gpus_where_there_are_any(smi):
    large, small, none = (SimpleNamespace(gpus=number) for number in (4, 1, 0))
    assert [asked(run, here=True) for run in (large, small, none)] == [0, 0, 0]
    assert [asked(run, here=False) for run in (large, small, none)] == [4, 1, 0]  # a cluster has them
    cards(smi, H100, H100)
    assert [asked(run, here=True) for run in (large, small, none)] == [2, 1, 0]


def test_an_invocation_says_which_gpus_it_leaves_alone_if_it_computes(smi, capsys):
    def jobs(*rules):
        return [SimpleNamespace(rule=SimpleNamespace(name=rule)) for rule in rules]

    cards(smi, H100, ("5.2", "8192"))
    check_gpus(jobs("tables", "stage_two"))
    assert capsys.readouterr().err == ""
    check_gpus(jobs("tables", "stage_one"))
    assert capsys.readouterr().err.startswith("GPU Card b is not used: compute capability 5.2")
    cards(smi, H100, driver="470.57")
    check_gpus(jobs("tables"))
    with pytest.raises(UserError, match=r"470\.57 is too old"):
        check_gpus(jobs("features"))
