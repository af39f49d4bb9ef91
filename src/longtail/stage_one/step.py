"""What a step of training is: the interface of the files in `longtail.stage_one.steps`.

The loop has no case for any method. It makes batches of the streams that a step asks for, hands them over,
descends the loss that it gets back, and lets the step do what follows the optimiser's step.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from longtail.data.images import Images
from longtail.stage_one.batch import Batch

Sampler = Callable[[Tensor, torch.Generator, float], Tensor]


Augment = Callable[[Images, torch.Generator], Images]


class Outcome(NamedTuple):
    """What a step tells the loop: the loss to descend (0-d) and how many images were right (0-d, int64)."""

    loss: Tensor
    correct: Tensor


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Where one batch of every step comes from.

    Attributes:
        sampler: which images an epoch consists of: (labels, generator, progress) -> indices. It is asked
            again while there are fewer than the epoch has, and what is too many is left out. None: the
            images of the first stream in the same order, augmented anew.
        images: uint8 (M, C, H, W), on the device, or files; None: the training images of the phase.
        labels: their classes, int64 (M,), on the CPU; with images.
        augment: a whole epoch of images, uint8 to uint8; None: as the recipe says.
        start: progress of the phase from which on there is such a batch; the first stream has 0.
    """

    sampler: Sampler | None
    images: Images | None = None
    labels: Tensor | None = None
    augment: Augment | None = None
    start: float = 0.0


class Step:
    """What is computed of the batches of a step. A method overrides what it needs; the rest does nothing.

    Attributes:
        capturable: whether a GPU may record the step as it is now, once, and replay it; not where its course
            depends on the values of tensors. May change with `turn`.
        draws: whether it wants random numbers (`draw`).
        cast_together: whether layers may find their weights in bfloat16 already where a GPU computes in it
            (`casting`); not where the step itself reads the network's parameters or differentiates by them.
    """

    capturable: bool = True
    draws: bool = False
    cast_together: bool = False

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """The loss of one batch a stream; progress is a 0-d tensor in [0, 1] on the device.

        Images are normalised, modules in training mode at the beginning of an epoch.
        """
        raise NotImplementedError

    def modules(self) -> Mapping[str, nn.Module]:
        """What is trained or kept beside `network` and `loss`, by name; asked once.

        Parameters that require a gradient go to the optimiser. All parameters and buffers are in checkpoints,
        none in model.safetensors.
        """
        return {}

    def streams(self, own: Stream) -> Sequence[Stream]:
        """Where batches come from, `own` being the stream of the recipe; the first has a label to each image.

        An epoch is as long as the training images of the phase, whatever the streams are.
        """
        return [own]

    def turn(self, progress: float) -> Hashable:
        """Told before every step the progress at which its epoch began; what it returns tells courses apart.

        A method whose steps change during training (a loss from epoch 160 on) remembers here, on the host,
        which course it takes; steps of each course are recorded on their own.
        """
        return None

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random numbers of a step whose first batch has `size` images, from a CPU generator of the step.

        They reach the step as `batches[0].drawn`, on the device. Asked only where `draws` is true.
        """
        return ()

    def after(self, modules: nn.ModuleDict) -> None:
        """What follows the optimiser's step, e.g. moving averages; no gradient is recorded.

        What it needs of the batch, `__call__` keeps in attributes. A batch that is cut up into shards has
        one `after`, behind the last of them.
        """

    def divisor(self, modules: nn.ModuleDict, labels: Sequence[Tensor], progress: Tensor) -> Tensor | None:
        """What the loss divides its sum over images by, 0-d; None where that is their number.

        Parts of a batch share in its loss as in this; `labels` (B,) of one batch a stream.
        """
        return None
