"""How long a comparison takes on this machine: a rate that is measured in seconds, and a model on top of it.

Time of a training = epochs x pictures x (time of a picture in the network + time to decode it). The network's
is measured on a few steps of one size and scaled by multiply-accumulate operations, three times those of a
forward pass. On a CPU a run has one core, which decodes too; runs share the cores. On a GPU runs follow one
another, and all cores decode beside it.

Held against a comparison of six epochs on 3,340 photographs (resnet10, 64 pixels, two cores that others used
too): 21.0 s an epoch estimated, 23.8 s taken with the evaluation after each; 6 min for everything estimated,
5.5 min taken. Of 34 epochs 15 min were estimated and 19 taken while tests ran beside. Augmentation is not
in the model, nor what bfloat16 gains on a CPU; here they cancelled out.
The figures for a GPU have not been held against one.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from longtail import device
from longtail.data.decode import NotAPicture, center, square
from longtail.settings.methods import method_module, settings_of

# 10^9 multiply-accumulate operations of a forward pass at 224 x 224 (counted on torchvision's networks).
GMACS = {"resnet10": 0.89, "resnet18": 1.82, "resnet50": 4.09}
BLOCKS = {"resnet10": [1, 1, 1, 1], "resnet18": [2, 2, 2, 2], "resnet50": [3, 4, 6, 3]}
CROWDED = 1.25  # runs that share memory and caches with others take longer than one alone
PASS = 0.8  # of an epoch's time, as was measured: decoding and augmentation are the larger part
START = 6.0  # seconds until a job computes: Python, torch, the file of the run
STAGE_TWO = 30.0  # seconds a classifier over features takes; afg the longest
MEASURED_STEPS, WARM = 4, 1  # training steps that are measured, after some that are not
SAMPLE = 40  # pictures that are decoded to measure it


@dataclass(frozen=True)
class Machine:
    """What was measured here.

    Attributes:
        name: of the GPU, or the processor.
        gpu: whether there is one.
        cores: that this process may use.
        gmacs: 10^9 multiply-accumulate operations a second in training, of one run alone.
        decoding: seconds to decode one picture on one core.
    """

    name: str
    gpu: bool
    cores: int
    gmacs: float
    decoding: float

    def epoch(self, architecture: str, size: int, pictures: int) -> float:
        """Seconds of one epoch of one run, all that run at once considered."""
        network = 3 * macs(architecture, size) / self.gmacs
        if self.gpu:
            return pictures * max(network, self.decoding / self.cores)
        return pictures * (network + self.decoding) * self.crowded

    def passing(self, architecture: str, size: int, pictures: int) -> float:
        """Seconds of a pass over pictures, as for features or evaluation."""
        return PASS * self.epoch(architecture, size, pictures)

    @property
    def crowded(self) -> float:
        """Factor for runs at once."""
        return CROWDED if self.cores > 1 else 1.0

    def rounds(self, runs: int) -> int:
        """How often as many runs as go at once."""
        return -(-runs // (1 if self.gpu else self.cores))


def macs(architecture: str, size: int) -> float:
    """10^9 multiply-accumulate operations of a forward pass of one picture."""
    return GMACS[architecture] * (size / 224) ** 2


def measured(files: Sequence[Path], size: int) -> Machine:
    """Measure this machine: a few training steps of a small network, and decoding some pictures.

    Args:
        files: of pictures.
        size: in pixels, to decode them to.
    """
    import torch

    gpu = torch.cuda.is_available()
    cores = device.cores()
    name = torch.cuda.get_device_name() if gpu else "CPU"
    architecture, side, batch = ("resnet50", 224, 64) if gpu else ("resnet10", 96, 16)
    seconds = _step(architecture, side, batch, "cuda" if gpu else "cpu") / batch
    return Machine(name, gpu, cores, 3 * macs(architecture, side) / seconds, _decoding(files, size))


def _step(architecture: str, size: int, batch: int, device: str) -> float:
    """Seconds of a training step, the median of some."""
    import torch
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a run on the CPU has one
    try:
        block = Bottleneck if architecture == "resnet50" else BasicBlock
        network = ResNet(block, BLOCKS[architecture]).to(device, memory_format=torch.channels_last)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        images = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
        labels = torch.zeros(batch, dtype=torch.int64, device=device)
        times = []
        for _ in range(WARM + MEASURED_STEPS):
            started = time.perf_counter()
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = torch.nn.functional.cross_entropy(network(images), labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return sorted(times[WARM:])[MEASURED_STEPS // 2]


def forward_seconds(network: Mapping[str, Any], size: int) -> float:
    """Seconds that one picture takes in a network, on one core or on the GPU: the median of a few batches.

    Args:
        network: its block of settings; what it begins with is of no account.
        size: side of the picture in pixels.

    Raises:
        UserError: if there is no such network.
    """
    import torch

    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = 64 if where.type == "cuda" else 4
    given = {key: value for key, value in network.items() if key not in ("name", "pretrained")}
    options = settings_of("networks", network["name"]).model_validate(given)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = method_module("networks", network["name"]).build(options, 3, 2).to(where).eval()
        model = model.to(memory_format=torch.channels_last)
        images = torch.rand(batch, 3, size, size, device=where).contiguous(memory_format=torch.channels_last)
        precision = device.resolve_precision("auto", where)
        times = []
        for _ in range(WARM + MEASURED_STEPS):
            started = time.perf_counter()
            with torch.no_grad(), torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"):
                float(model.features(images).sum())
            times.append((time.perf_counter() - started) / batch)
    finally:
        torch.set_num_threads(threads)
    return sorted(times[WARM:])[MEASURED_STEPS // 2]


def _decoding(files: Sequence[Path], size: int) -> float:
    read = partial(square, channels=3, side=size, region=center(0.875))
    started, number = time.perf_counter(), 0
    for file in islice(files, 0, None, max(1, len(files) // SAMPLE)):
        try:
            read(file)
        except NotAPicture:
            continue
        number += 1
    return (time.perf_counter() - started) / max(1, number)
