"""Augmentation: a whole epoch in batched tensors against torchvision's PIL pipeline, picture by picture."""

from collections.abc import Callable
from statistics import median

import torch

from benchmarks import data
from benchmarks.peers import ldam_drw
from benchmarks.rows import Goal, Row, compared
from benchmarks.side import ONE_THREAD, OURS, Side, interleaved
from benchmarks.training import AUGMENTATIONS
from longtail.data.augmentation import augment
from longtail.data.normalisation import normalise
from longtail.device import set_up
from longtail.random import generator

PART = "augmentation"
NAMES = {"full": "crop, flip, AutoAugment, Cutout", "crop_flip": "crop, flip"}


def ours(kind: str, number: int) -> Callable[[], None]:
    """Augment and normalise an epoch of `number` images."""
    set_up(torch.device("cpu"))
    images = data.images(number)
    random = generator("benchmark", "augment")

    def measure() -> None:
        for batch in torch.split(augment(images, AUGMENTATIONS[kind], random), 128):
            normalise(batch, data.MEAN, data.STD)

    return measure


def peers(kind: str, number: int) -> Callable[[], None]:
    """The same by PIL, collated to batches."""
    script = ldam_drw.Script(number, 1, augmentation=kind)

    def measure() -> None:
        for _ in script.training:
            pass

    return measure


def rows(quick: bool) -> list[Row]:
    """The part's figures; the share is of the time that an image takes in training, augmentation included."""
    rounds, few, many = (1, 256, 2048) if quick else (6, 1024, 10_847)
    found = []
    with Side("benchmarks.training:ours", OURS, {"steps": 1 if quick else 3, "evaluated": 0}) as step:
        for kind, name in NAMES.items():
            with (
                Side("benchmarks.augmentation:ours", OURS, {"kind": kind, "number": many}) as one,
                Side("benchmarks.augmentation:peers", ONE_THREAD, {"kind": kind, "number": few}) as other,
            ):
                sides = {"ours": one, "peers": other} | ({"step": step} if kind == "full" else {})
                samples = interleaved(sides, rounds)
            ours = [1e6 * sample.cpu / many for sample in samples["ours"]]
            peers = [1e6 * sample.cpu / few for sample in samples["peers"]]
            load = median(sample.load for sample in samples["ours"])
            memory = max(sample.peak_mb for sample in samples["ours"])
            goal = Goal("ratio", 9, 15) if kind == "full" else None
            row = Row(
                PART, name, "us/image", goal=goal, load=load, peak_mb=memory, note="against PIL, one core"
            )
            found.append(compared(row, ours, peers))
            if kind == "full":
                images = [1e6 * s.found["train"] for s in samples["step"]]  # it crops and flips already
                precision = samples["step"][0].found["precision"]
                share = [100 * a / (a + t) for a, t in zip(ours, images, strict=True)]
                row = Row(PART, f"{name}: share of a {precision} training step", "%", goal=Goal("ours", 2, 1))
                found.append(compared(row, share))
    return found
