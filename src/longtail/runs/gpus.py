"""The GPUs of this machine: which there are, which of them torch can use, and why not the others.

Asked of nvidia-smi; where it is missing, as in many containers, of the driver's own library in a process of
its own, since the first question to it settles which GPUs a process sees. Imports no torch, which takes
seconds.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

DEV = Path("/dev")
QUERY = ("compute_cap", "memory.total", "driver_version", "display_active")
# What a build of torch for a version of CUDA needs: of the driver, and of the card.
DRIVERS = {11: 450, 12: 525, 13: 580}
CAPABILITIES = {11: (3, 7), 12: (5, 0), 13: (7, 5)}
DISPLAY_CARD = 4  # so many times more memory has the card that computes
ON_THE_CPU = "CUDA_VISIBLE_DEVICES= in front of the command computes on the CPU"

# Prints the version of CUDA that the driver has, and a line a device; names are those of cuda.h.
PROBE = """
import ctypes, json
cuda = ctypes.CDLL("libcuda.so.1")
number, memory, uuid = ctypes.c_int(), ctypes.c_size_t(), (ctypes.c_ubyte * 16)()
name = ctypes.create_string_buffer(256)
def asked(call, *arguments):
    assert getattr(cuda, call)(*arguments) == 0, call
    return number.value
print(asked("cuDriverGetVersion", ctypes.byref(number)) // 1000)
asked("cuInit", 0)
for device in range(asked("cuDeviceGetCount", ctypes.byref(number))):
    capability = [asked("cuDeviceGetAttribute", ctypes.byref(number), at, device) for at in (75, 76)]
    asked("cuDeviceGetName", name, 256, device)
    asked("cuDeviceGetUuid", ctypes.byref(uuid), device)
    asked("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    display = asked("cuDeviceGetAttribute", ctypes.byref(number), 17, device)
    found = bytes(uuid).hex(), name.value.decode(), capability, memory.value >> 20, bool(display)
    print(json.dumps(found))
"""


class Device(NamedTuple):
    """What a run can be given: a GPU, or a slice of one that MIG has cut.

    Attributes:
        name: as CUDA_VISIBLE_DEVICES takes it: a UUID, or an index where nothing tells one.
        model: e.g. "NVIDIA H100 80GB HBM3".
        capability: CUDA's version of the card's features; None where unknown.
        memory_mb: None where unknown.
        driver: its version; empty where unknown.
        cuda: the newest major version of CUDA that the driver runs; None where unknown.
        display: whether it shows a desktop.
    """

    name: str
    model: str = ""
    capability: tuple[int, int] | None = None
    memory_mb: int | None = None
    driver: str = ""
    cuda: int | None = None
    display: bool = False


@cache
def installed() -> list[list[Device]]:
    """The devices of each GPU: itself, or its slices where it is cut into slices."""
    return _by_nvidia_smi() or _by_the_driver() or _by_device_files()


def visible() -> list[Device]:
    """The devices that the user leaves to this process, usable or not; none without a GPU.

    An index in CUDA_VISIBLE_DEVICES is taken in nvidia-smi's order. One name for one device matters: index
    and UUID of the same one must meet at the same lock.
    """
    gpus = installed()
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None or not gpus:
        return [device for devices in gpus for device in devices]
    named = {device.name: device for devices in gpus for device in devices}
    found: list[Device] = []
    for entry in (item.strip() for item in wanted.split(",")):
        if entry.isdigit():
            if int(entry) >= len(gpus):
                break  # as CUDA reads it: what follows an impossible entry is invisible
            found.extend(gpus[int(entry)])
        elif entry and not entry.startswith("-"):
            begin = [device for name, device in named.items() if name.startswith(entry)]  # as CUDA reads it
            found.append(named.get(entry) or (begin[0] if len(begin) == 1 else Device(entry)))
        else:
            break
    return found


def usable() -> list[Device]:
    """The visible devices that a run can be given: torch can use them, and they are there to compute.

    A card that shows the desktop, or one with a fraction of the memory of another, is left alone where the
    user has not named it in CUDA_VISIBLE_DEVICES.
    """
    found = [device for device in visible() if not why_not(device)]
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return found
    most = max((device.memory_mb or 0 for device in found), default=0)
    return [device for device in found if not _is_for_the_display(device, most)]


def why_not(device: Device) -> str:
    """Why torch cannot use a device, and what helps; empty if it can, as far as is known."""
    version, cuda = torch_cuda()
    if cuda is None:
        return f"torch {version} is built without CUDA; install a build with it"
    major = int(cuda.split(".")[0])
    least = CAPABILITIES.get(major, CAPABILITIES[max(CAPABILITIES)])
    if device.capability and device.capability < least:
        card, needed = (".".join(map(str, pair)) for pair in (device.capability, least))
        return f"compute capability {card}, and torch {version} needs {needed}"
    return _old_driver(device, version, cuda)


def refusal() -> str:
    """One line if all that a GPU lacks is another driver; empty if one can be used, or nothing helps."""
    version, cuda = torch_cuda()
    if cuda is None or usable():
        return ""
    for device in visible():
        if _old_driver(device, version, cuda) == (reason := why_not(device)) != "":
            return f"{_called(device)} cannot be used: {reason}; {ON_THE_CPU}"
    return ""


def left_alone() -> list[str]:
    """A line for each visible GPU that no run will be given."""
    given = {device.name for device in usable()}
    return [
        f"{_called(device)} is not used: {why_not(device) or 'a display card beside larger ones'}"
        for device in visible()
        if device.name not in given
    ]


@cache
def torch_cuda() -> tuple[str, str | None]:
    """Version of torch, and of the CUDA that it is built for; read from its files, without an import."""
    spec = find_spec("torch")
    places = spec.submodule_search_locations if spec else None
    try:
        text = Path((places or ["torch"])[0], "version.py").read_text("utf-8")
    except OSError:
        return "", None
    version, cuda = (re.search(rf"^{name}\b.*= '([^']+)'", text, re.M) for name in ("__version__", "cuda"))
    return version[1] if version else "", cuda[1] if cuda else None


def free_mb(names: Sequence[str]) -> int | None:
    """Memory that every one of some devices has free, in MB, as nvidia-smi says, else all that they have."""
    everything = {device.name: device.memory_mb for devices in installed() for device in devices}
    left = dict(everything)
    for line in _asked("--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits").splitlines():
        uuid, _, free = (word.strip() for word in line.partition(","))
        if uuid in left and free.isdigit():
            left[uuid] = int(free)
    known = [size for name in names if (size := left.get(name)) is not None]
    return min(known, default=None)


def parse_listing(text: str) -> list[list[Device]]:
    """What `nvidia-smi -L` prints: devices by GPU, the MIG slices where there are any."""
    gpus: list[tuple[Device, list[Device]]] = []
    for line in text.splitlines():
        if (found := re.search(r"\(UUID: ([^)]+)\)", line)) is None:
            continue
        if model := re.match(r"GPU \d+: (.*) \(UUID", line):
            gpus.append((Device(found[1], model[1].strip()), []))
        elif gpus:
            size = re.search(r"\d+g\.(\d+)gb", line)
            slice_of = gpus[-1][0]._replace(name=found[1], memory_mb=int(size[1]) << 10 if size else None)
            gpus[-1][1].append(slice_of)
    return [slices or [gpu] for gpu, slices in gpus]


def _by_nvidia_smi() -> list[list[Device]]:
    gpus = parse_listing(_asked("-L"))
    if not gpus:
        return []
    facts: list[dict[str, str]] = []
    for fields in (QUERY, QUERY[1:]):  # old drivers do not know the first
        lines = _asked(f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits").splitlines()
        facts = [dict(zip(fields, map(str.strip, line.split(",")), strict=False)) for line in lines]
        if len(facts) == len(gpus):
            break
    else:
        return gpus
    return [[_with(device, known) for device in devices] for devices, known in zip(gpus, facts, strict=True)]


def _with(device: Device, known: dict[str, str]) -> Device:
    """A device with what nvidia-smi says of its GPU; a slice has its own memory."""
    capability = re.fullmatch(r"(\d+)\.(\d+)", known.get("compute_cap", ""))
    memory = known.get("memory.total", "")
    return device._replace(
        capability=(int(capability[1]), int(capability[2])) if capability else None,
        memory_mb=device.memory_mb or (int(memory) if memory.isdigit() else None),
        driver=known.get("driver_version", ""),
        display=known.get("display_active") == "Enabled",
    )


def _asked(*arguments: str) -> str:
    """What nvidia-smi answers; empty where it is not there, or fails."""
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


@cache
def _by_the_driver() -> list[list[Device]]:
    if not _device_files() and not (DEV / "dxg").exists():  # Windows' Linux has the latter
        return []
    number, *lines = _probed() or [""]
    found = []
    for line in lines:
        uuid, model, (major, minor), memory, display = json.loads(line)
        name = re.sub(r"(.{8})(.{4})(.{4})(.{4})(.{12})", r"GPU-\1-\2-\3-\4-\5", uuid)
        found.append([Device(name, model, (major, minor), memory, "", int(number), display)])
    return found


@cache
def _probed() -> list[str]:
    """Lines of PROBE; none where the driver's library is missing or finds no GPU."""
    hidden = ("CUDA_VISIBLE_DEVICES", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # nvidia-smi's
    probe = [sys.executable, "-c", PROBE]
    done = subprocess.run(probe, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def _by_device_files() -> list[list[Device]]:
    return [[Device(str(index))] for index in range(len(_device_files()))]


def _device_files() -> list[Path]:
    return [file for file in DEV.glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name)]


def _old_driver(device: Device, version: str, cuda: str) -> str:
    """What is wrong with the driver; empty if nothing is, as far as is known.

    Packages for compatibility let an old driver run a newer CUDA, so its library has the last word.
    """
    major = int(cuda.split(".")[0])
    needed = DRIVERS.get(major, DRIVERS[max(DRIVERS)])
    driver = re.match(r"\d+", device.driver)
    if device.cuda is not None:
        old = device.cuda < major
    else:
        old = driver is not None and int(driver[0]) < needed
        if old and (said := _probed()):
            old = int(said[0]) < major
    called = f"NVIDIA driver {device.driver}" if device.driver else "the NVIDIA driver"
    return old * (
        f"{called} is too old for torch {version} (CUDA {cuda}): install driver {needed} or later, or a "
        "torch for an older CUDA"
    )


def _is_for_the_display(device: Device, most: int) -> bool:
    size = device.memory_mb
    return size is not None and (DISPLAY_CARD * size < most or (device.display and size < most))


def _called(device: Device) -> str:
    return f"GPU {device.model or device.name}"
