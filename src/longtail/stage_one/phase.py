"""What the training loop is told of a phase, and the small objects that it asks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from longtail.data.images import Images
from longtail.settings.recipe import Optimiser
from longtail.settings.schedules import LearningRate, Length
from longtail.stage_one.batch import Batch
from longtail.stage_one.step import Augment, Step, Stream

HistoryRow = dict[str, Any]


class Observer(Protocol):
    """Measures something at the beginning of an epoch, and leaves everything as it was."""

    def __call__(
        self, modules: nn.ModuleDict, loss_of: Callable[[int], tuple[Tensor, Tensor]], steps: int, epoch: int
    ) -> HistoryRow:
        """Columns for the epoch's row of the history, None where there is nothing to say.

        `loss_of` makes the loss (0-d) that a step of the epoch has at the parameters as they are now, and the
        labels of its batch (B,), from images that no transform has mixed; `epoch` counts finished ones.
        """


def _alike(_name: str) -> float:
    return 1.0


# A batch, or a part of one, with random numbers of its own, and with those that all parts of the batch share.
Transform = Callable[[Batch, torch.Generator, torch.Generator], Batch]


class Pasting(Protocol):
    """A transform of two batches into one: the images of a stream of its own go into those of the phase."""

    def sampler(self, labels: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        """What its stream consists of, as the samplers of a phase say it."""

    def __call__(
        self,
        batch: Batch,
        partners: Batch,
        progress: float,
        generator: torch.Generator,
        shared: torch.Generator | None = None,
    ) -> Batch:
        """The batch, uint8 as it was, with something of as many partners; generators are a transform's."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training with one optimiser.

    Attributes:
        name: as history.csv has it.
        images: the training images, uint8 (N, C, H, W), on the device, or files that are decoded onto it.
        labels: their classes, int64 (N,), on the CPU.
        own: how many of them, the first ones, are those of the split, where others were made of these and
            stand behind them; an epoch is so long. None: all.
        streams: where the batches of an epoch come from, each of which makes one batch of every step.
        augment: a whole epoch of images, uint8 to uint8.
        normalise: a batch, uint8 to float.
        transforms: what mixes a normalised batch, in order; usually none.
        pasting: what mixes the batch of its own sampler, the last, into each of the others; usually nothing.
        step: what is computed of a batch.
        batch_size: images a batch; the last batch of an epoch may be smaller.
        length: epochs or iterations.
        learning_rate: by step.
        optimiser: the other settings of stochastic gradient descent.
        rate_factor: factor on the learning rate of a parameter of the modules, by its name.
        progress: whether the progress that step and streams see moves by "step" or by "epoch" (then it is
            the number of finished epochs / epochs, so 0 in the first).
        begin: prepares the modules, e.g. which of them learn; asked before the phase begins, and again where
            a killed training goes on in it, when its second argument is False.
        observers: what is measured at the beginning of every epoch.
        after: what is done with the modules after every step, as part of it.
        shards: into how many parts a batch is cut, which go through the network one by one or in several
            processes.
    """

    name: str
    images: Images
    labels: Tensor
    own: int | None = None
    streams: Sequence[Stream]
    augment: Augment
    normalise: Callable[[Tensor], Tensor]
    transforms: Sequence[Transform] = ()
    pasting: Pasting | None = None
    step: Step
    batch_size: int
    length: Length
    learning_rate: LearningRate
    optimiser: Optimiser
    progress: Literal["epoch", "step"]
    rate_factor: Callable[[str], float] = _alike
    begin: Callable[[nn.ModuleDict, bool], None] | None = None
    after: Callable[[nn.ModuleDict], None] | None = None
    observers: Sequence[Observer] = ()
    shards: int = 1

    @property
    def images_per_epoch(self) -> int:
        """Images of a whole epoch."""
        return len(self.labels) if self.own is None else self.own

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch."""
        return math.ceil(self.images_per_epoch / self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the phase."""
        return self.length.steps(self.steps_per_epoch)

    @property
    def epochs(self) -> int:
        """Epochs of the phase; the last one is cut short where iterations end inside it."""
        return math.ceil(self.steps / self.steps_per_epoch)

    def progress_at(self, step: int) -> float:
        """Share of the phase that is done before a step, counted from 0; in [0, 1)."""
        if self.progress == "step":
            return step / self.steps
        return (step // self.steps_per_epoch) / self.epochs

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.learning_rate.at(step, self.length, self.steps_per_epoch)


@dataclass
class State:
    """How far a training is.

    Attributes:
        epoch: finished epochs of the phase.
        history: a row an epoch, those of the phases before it first.
        images: images trained on.
        seconds: time it took, evaluation left out; over all processes that shared the training.
        environments: in which it was computed, in order; more than one where it went on elsewhere.
    """

    epoch: int = 0
    history: list[HistoryRow] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0
    environments: list[str] = field(default_factory=list)
