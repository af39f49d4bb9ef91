"""An epoch made ready: its images in order and augmented, its learning rates and its progress.

Nothing in it depends on what was trained before, and nothing makes the host wait for the device. So on a GPU
the host makes the next epoch ready while the device is still at the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.data.images import Images, in_batches
from longtail.device import sent
from longtail.errors import UserError
from longtail.random import generator
from longtail.stage_one.batch import Batch
from longtail.stage_one.phase import Phase
from longtail.stage_one.ranks import Ranks, Shard, shards
from longtail.stage_one.step import Sampler


@dataclass(frozen=True)
class Epoch:
    """What the steps of an epoch read.

    Attributes:
        number: finished epochs of the phase before it.
        steps: of the phase, counted from 0.
        cut: shards of this process, by step.
        streams: by stream, images and labels of each step, or of each shard.
        labels: by stream, those of all steps.
        rates: by step and group of parameters, on the device.
        progress: by step, on the device.
    """

    number: int
    steps: range
    cut: list[list[Shard]]
    streams: list[tuple[Sequence[Tensor], Sequence[Tensor]]]
    labels: list[Tensor]
    rates: Tensor
    progress: Tensor

    def batches(self, index: int) -> list[Batch]:
        """Images, uint8, and labels of a step or shard, one batch a stream."""
        return [Batch(images[index], labels[index]) for images, labels in self.streams]


def ready(phase: Phase, factors: Sequence[float], ranks: Ranks, seed: int, number: int) -> Epoch:
    """Make an epoch ready.

    Args:
        phase: whose epoch it is.
        factors: on the learning rate, by group of parameters.
        ranks: the processes that share out its shards.
        seed: of the run.
        number: finished epochs of the phase.
    """
    device, size = phase.images.device, phase.batch_size
    key = (phase.name, number)
    first = number * phase.steps_per_epoch
    steps = range(first, min(first + phase.steps_per_epoch, phase.steps))
    streams: list[tuple[Sequence[Tensor], Sequence[Tensor]]] = []
    every: list[Tensor] = []
    count = min(phase.images_per_epoch, len(steps) * size)
    cut = shards(count, size, phase.shards, ranks)
    progressed = phase.progress_at(first)
    chosen = leading = torch.empty(0, dtype=torch.int64)
    for place, stream in enumerate(phase.streams):
        if progressed < stream.start:
            continue
        every_image = phase.images if stream.images is None else stream.images
        every_label = phase.labels if stream.labels is None else stream.labels
        if stream.sampler is not None:
            numbers = generator(seed, "sampler", *key, place)
            chosen = _enough(stream.sampler, every_label, numbers, progressed, count)
        else:
            chosen = leading
        leading = leading if place else chosen
        augment = stream.augment or phase.augment
        images = augment(_those(every_image, chosen), generator(seed, "augment", *key, place))
        labels = sent(every_label[chosen], device)
        every.append(labels)
        if phase.shards == 1 and ranks.size == 1:
            streams.append((in_batches(images, size), torch.split(labels, size)))
        else:
            own = [torch.arange(shard.start, shard.stop) for step in cut for shard in step]
            rows, sizes = torch.cat(own), [len(part) for part in own]
            mine = _those(labels, rows)
            assert isinstance(mine, Tensor)
            streams.append((in_batches(_those(images, rows), sizes), torch.split(mine, sizes)))
    # Sent once an epoch: copies in the step loop would cost a launch each.
    rates = [[phase.rate_at(step) * factor for factor in factors] for step in steps]
    progress = [phase.progress_at(step) for step in steps]
    return Epoch(
        number,
        steps,
        cut,
        streams,
        every,
        sent(torch.tensor(rates, dtype=torch.float32), device),
        sent(torch.tensor(progress, dtype=torch.float32), device),
    )


def _enough(
    sampler: Sampler, labels: Tensor, numbers: torch.Generator, progress: float, count: int
) -> Tensor:
    """So many indices of a sampler, which is asked as often as that takes."""
    if not len(labels):
        raise UserError("step: a further stream of its batches has no image to draw from")
    chosen = sampler(labels, numbers, progress)
    while len(chosen) < count:
        chosen = torch.cat([chosen, sampler(labels, numbers, progress)])
    return chosen[:count]


def _those(images: Images, rows: Tensor) -> Images:
    """Some images, by indices of the host, which picture files are looked up by."""
    return images[sent(rows, images.device)] if isinstance(images, Tensor) else images[rows]
