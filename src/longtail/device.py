"""The device a run computes on: which one, in what precision, and repeatable.

Imports torch late, because a GPU is leased before CUDA is first touched.
"""

import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from longtail.errors import UserError

if TYPE_CHECKING:
    import torch


Precision = Literal["bf16", "float32"]


# What a process computes with. glibc gives freed memory back to the kernel and faults it in again at every
# step unless told not to: 7 to 18 % of a training step on a CPU. It reads these before Python starts.
COMPUTING = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
CPU_INFO = Path("/proc/cpuinfo")


def threads() -> int:
    """Threads that a command was given: OMP_NUM_THREADS, which is a rule's `threads` in Snakemake, else 1.

    Raises:
        UserError: if it is no number of at least 1. Of a list, as OpenMP takes it, the first one counts.
    """
    given = os.environ.get("OMP_NUM_THREADS") or COMPUTING["OMP_NUM_THREADS"]
    number = given.split(",")[0].strip()
    if not number.isdecimal() or int(number) < 1:
        raise UserError(f"OMP_NUM_THREADS={given}: should be a number of threads, at least 1")
    return int(number)


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has none
        return os.cpu_count() or 1


def peak_memory_mb() -> int:
    """The most memory that this process has held, in MB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def device() -> "torch.device":
    """CUDA's current device where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(setting: str, device: "torch.device") -> Precision:
    """What `precision: auto | bf16 | float32` means on a device.

    "auto" is bfloat16 where the processor computes with it in hardware (CUDA capability 8 or later, CPU
    flags avx512_bf16 or amx_bf16) and float32 elsewhere; the other two are obeyed, also where slow.
    """
    if setting in ("bf16", "float32"):
        return "bf16" if setting == "bf16" else "float32"
    if device.type == "cuda":
        import torch

        fast = torch.cuda.get_device_capability(device)[0] >= 8
    else:
        fast = bool(_cpu_flags() & {"avx512_bf16", "amx_bf16"})
    return "bf16" if fast else "float32"


def describe(device: "torch.device") -> str:
    """The processor's name, e.g. "NVIDIA H200" or "AMD EPYC 9554 64-Core Processor"."""
    if device.type == "cuda":
        import torch

        return str(torch.cuda.get_device_name(device))
    return _cpu_field("model name") or platform.processor() or platform.machine()


def sent(tensor: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """A tensor of the host on a device; of pinned memory, so that the host waits for nothing."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def received(tensors: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Tensors on the host, without their gradients; the host waits for the device once, not for each."""
    import torch

    found = {name: tensor.detach().to("cpu", non_blocking=True) for name, tensor in tensors.items()}
    if any(tensor.is_cuda for tensor in tensors.values()):
        torch.cuda.current_stream().synchronize()
    return found


def set_up(device: "torch.device") -> None:
    """Make a run repeatable: OMP_NUM_THREADS threads (else 1), and deterministic kernels on a GPU.

    On a CPU equal thread counts are all that bit-identical results need.
    """
    import torch

    torch.set_num_threads(threads())
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # An operation without a deterministic form warns, which tells more than a run that ends.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.allow_tf32 = False  # "float32" is float32; TF32 has ten bits of mantissa
        # Filling fresh memory with NaN is a debugging aid that costs a kernel an allocation.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False


def _cpu_field(name: str) -> str:
    """The first value of a field of /proc/cpuinfo; empty where there is none."""
    try:
        text = CPU_INFO.read_text("utf-8")
    except OSError:
        return ""
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _cpu_flags() -> set[str]:
    return set(_cpu_field("flags").split())
