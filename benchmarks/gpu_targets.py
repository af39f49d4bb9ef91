"""What is measured on a GPU beside whole runs, by the clock; on a CPU the same code runs, for the tests."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import data, loader, stage_two
from benchmarks.training import CROP_FLIP, Ours
from longtail.data.augmentation import augment
from longtail.data.picture_loader import PictureFiles
from longtail.device import device, set_up
from longtail.features.extract import Extractor
from longtail.random import generator
from longtail.settings.data import Pictures
from longtail.settings.methods import method_module, settings_of
from longtail.stage_one.graph import WARM_UP
from longtail.stage_one.observers.gradients import Gradients, Settings

# As the CUDA runtime and driver call them, in torch's profiler.
LAUNCHES = {
    "cudaLaunchKernel",
    "cudaLaunchKernelExC",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cudaGraphLaunch",
}
LAUNCHES |= {"cudaMemcpyAsync", "cudaMemsetAsync"}
WAITS = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"}
GENERATED = 4096  # rows of a piece of a generation epoch


def clocked(work: Callable[[], object]) -> float:
    """Seconds until the device has done it."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def training(images: int | None = None, augmentation: str = "full", precision: str = "auto") -> Ours:
    """The project's loop on all images of ratio 100, or the first so many."""
    side = Ours(precision, augmentation)
    side.images, side.labels = side.images[:images], side.labels[:images]
    return side


def epoch(
    epochs: int, precision: str = "auto", every: int = 0, images: int | None = None, batch: int = 128
) -> Callable[[], dict[str, float | str]]:
    """Seconds of an epoch, the start of a training left out; gradients are measured every `every` epochs."""
    side = training(images, precision=precision)
    observers = [Gradients(Settings(every=every), data.cifar_counts())] if every else []

    def trained(number: int) -> float:
        return clocked(lambda: side.train(epochs=number, batch=batch, observers=observers))

    def measure() -> dict[str, float | str]:
        short, long = trained(WARM_UP + 1), trained(WARM_UP + 1 + epochs)
        return {"epoch": (long - short) / epochs, "precision": side.precision}

    return measure


def launches(epochs: int = 1, images: int | None = None, batch: int = 128) -> Callable[[], dict[str, float]]:
    """What torch's profiler counts, a step, once all steps are recorded; the epoch's own part is shared out.

    `kernels` are kernels and copies on the device, `launches` and `waits` calls of the host, `convolutions`
    those that the host asked for, of which a replayed step has none.
    """
    side = training(images)
    steps = epochs * -(-len(side.labels) // batch)

    def counted(number: int) -> Counter[str]:
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        with profile(activities=kinds) as seen:
            clocked(lambda: side.train(epochs=number, batch=batch))
        found: Counter[str] = Counter()
        for event in seen.events() or ():
            found["kernels"] += event.device_type.name == "CUDA"
            found["launches"] += event.name in LAUNCHES
            found["waits"] += event.name in WAITS
            found["convolutions"] += event.name == "aten::convolution"
        return found

    def measure() -> dict[str, float]:
        short, long = counted(WARM_UP + 1), counted(WARM_UP + 1 + epochs)
        return {name: (long[name] - short[name]) / steps for name in long}

    return measure


def features(images: int | None = None) -> Callable[[], dict[str, float]]:
    """Images a second of a view of all training images: augmented, through the network, to the host."""
    side = training(images)
    extract = Extractor(side.modules["network"], data.MEAN, data.STD, side.where, side.precision)

    def view() -> None:
        seen = augment(side.images, side.augmentation, generator("benchmark", "view"))
        for _ in extract.stream(seen):
            pass

    return lambda: {"speed": len(side.labels) / clocked(view)}


def afg(epochs: int, divisor: int = 1) -> Callable[[], dict[str, float]]:
    """Seconds of a whole fit of AFG at ratio 100; a divisor makes all classes smaller."""
    set_up(device())
    known = stage_two.feature_data((data.cifar_counts() // divisor).clamp_min(1))
    method = method_module("stage_two", "afg")
    settings = method.Settings(generation_epochs=epochs)

    def fit() -> None:
        method.fit(known.to(device()), settings, 0, lambda done, total, note: None)

    return lambda: {"fit": clocked(fit)}


def generation(share: float = 1.0, dimensions: int = 2048) -> Callable[[], dict[str, float]]:
    """Seconds of a generation epoch of AFG with ImageNet-LT's class sizes, features on the device."""
    set_up(device())
    known = stage_two.feature_data(data.imagenet_counts(share), views=1, dimensions=dimensions)
    known = known.to(device())
    method = method_module("stage_two", "afg")
    settings = method.Settings()
    generate = method.feature_generator(known, settings)
    confidence = torch.full((len(known.class_counts),), settings.confidence.initial, device=device())
    random = generator("benchmark", "epoch")

    def generated() -> None:
        order = torch.randperm(len(generate.labels), generator=random).to(device())
        for _ in generate(torch.split(order, GENERATED), 0, confidence, random):
            pass

    made = int((known.class_counts.max() - known.class_counts).sum())
    return lambda: {"epoch": clocked(generated), "features": made}


def photographs(
    steps: int, folder: str = "", batch: int = 128, architecture: str = "resnet50", size: int = 224
) -> Callable[[], dict[str, float]]:
    """Images a second of steps on photographs, decoded and augmented on the way, or on noise in memory.

    Args:
        steps, batch: of a training.
        folder: of the photographs; noise where none is named.
        architecture, size: the network, and how wide its pictures are.
    """
    side = training()
    number = steps * batch
    network = settings_of("networks", "resnet").model_validate({"architecture": architecture})
    made = method_module("networks", "resnet").build(network, 3, data.CLASSES)
    side.modules["network"] = made.to(side.where).to(memory_format=torch.channels_last)
    side.labels = torch.arange(number) % data.CLASSES
    if folder:
        look, names = Pictures(size=size), loader.names(Path(folder))
        rows = torch.arange(number) % len(names)
        images: Any = PictureFiles(Path(folder), names, look, rows, side.where)
        side.augmentation = loader.TRAINING
    else:
        noise = torch.randint(256, (batch, 3, size, size), generator=generator("benchmark", "noise"))
        images = noise.to(torch.uint8).repeat(steps, 1, 1, 1).to(side.where)
        side.augmentation = CROP_FLIP
    side.images = images

    return lambda: {"speed": number / clocked(lambda: side.train(steps, batch=batch))}
