"""The one training loop. A method is a small object that the loop asks; none has a case of its own here.

A training is a phase, and a recipe of several is as many trainings, each of which begins with what the one
before has left. A phase says which images an epoch is made of (samplers: one, or two for methods that see
two batches a step), how they are augmented and transformed, what a step computes, what is measured of it,
and how long and fast it learns. Everything that training changes lives in the modules and the optimiser, and
random numbers come from generators that are keyed by phase and epoch; so a checkpoint is those tensors
and three counters, and a training that was killed goes on to bit-identical results.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from longtail.errors import UserError
from longtail.params import Optimiser
from longtail.picture_files import Images, in_batches
from longtail.random import generator
from longtail.schedules import LearningRate, Length
from longtail.stage_one import checkpoint
from longtail.stage_one.graph import Batch, Replayed, Work, own_stream
from longtail.stage_one.team import Statistics, Team, shards, team

Row = dict[str, Any]


class Outcome(NamedTuple):
    """What a step tells the loop: the loss to descend (0-d) and how many images were right (0-d, int64)."""

    loss: Tensor
    correct: Tensor


class Step(Protocol):
    """Computes the loss of one step; progress is a 0-d tensor in [0, 1] on the device."""

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """The loss of one batch a sampler."""


class Observer(Protocol):
    """Measures something at the beginning of an epoch, and leaves everything as it was."""

    def __call__(
        self, modules: nn.ModuleDict, loss_of: Callable[[int], tuple[Tensor, Tensor]], steps: int, epoch: int
    ) -> Row:
        """Columns for the epoch's row of the history, None where there is nothing to say.

        `loss_of` makes the loss (0-d) that a step of the epoch has at the parameters as they are now, and the
        labels of its batch (B,), from images that no transform has mixed; `epoch` counts finished ones.
        """


def _alike(_name: str) -> float:
    return 1.0


Sampler = Callable[[Tensor, torch.Generator, float], Tensor]
Augment = Callable[[Images, torch.Generator], Images]
Transform = Callable[[Batch, torch.Generator], Batch]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training with one optimiser.

    Attributes:
        name: as history.csv has it.
        images: the training images, uint8 (N, C, H, W), on the device, or files that are decoded onto it.
        labels: their classes, int64 (N,), on the CPU.
        samplers: which images an epoch consists of: (labels, generator, progress) -> N indices; each
            sampler makes one batch of every step.
        augment: a whole epoch of images, uint8 to uint8.
        normalise: a batch, uint8 to float.
        transforms: what mixes a batch, in order; usually none.
        step: what is computed of a batch.
        batch_size: images a batch; the last batch of an epoch may be smaller.
        length: epochs or iterations.
        learning_rate: by step.
        optimiser: the other settings of stochastic gradient descent.
        rate_factor: factor on the learning rate of a parameter of the modules, by its name.
        progress: whether the progress that step and samplers see moves by "step" or by "epoch" (then it is
            the number of finished epochs / epochs, so 0 in the first).
        begin: prepares the modules, e.g. which of them learn; asked before the phase begins, and again where
            a killed training goes on in it, when its second argument is False.
        observers: what is measured at the beginning of every epoch.
        shards: into how many parts a batch is cut, which go through the network one by one or in several
            processes.
        capturable: whether a GPU may record a step once and replay it; not where its course depends on the
            values of tensors.
    """

    name: str
    images: Images
    labels: Tensor
    samplers: Sequence[Sampler]
    augment: Augment
    normalise: Callable[[Tensor], Tensor]
    transforms: Sequence[Transform] = ()
    step: Step
    batch_size: int
    length: Length
    learning_rate: LearningRate
    optimiser: Optimiser
    progress: Literal["epoch", "step"]
    rate_factor: Callable[[str], float] = _alike
    begin: Callable[[nn.ModuleDict, bool], None] | None = None
    observers: Sequence[Observer] = ()
    shards: int = 1
    capturable: bool = True

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch."""
        return math.ceil(len(self.labels) / self.batch_size)

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
    history: list[Row] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0
    environments: list[str] = field(default_factory=list)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bfloat16 where it is safe for "bf16", nothing for "float32"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def train(
    phase: Phase,
    modules: nn.ModuleDict,
    *,
    seed: int,
    precision: str,
    environment: str = "",
    path: Path | None = None,
    evaluate: Callable[[], dict[str, float | None]] | None = None,
    evaluate_every: int = 0,
    report: Callable[[Row, State], None] | None = None,
    history: Sequence[Row] = (),
) -> State:
    """Train the modules in place.

    Args:
        phase: what is trained.
        modules: everything that a step uses, on the device; what is to survive a kill is a parameter or
            a buffer of these.
        seed: of every random number.
        precision: "bf16" or "float32".
        environment: what bit-identical results depend on, e.g. processor and versions. A checkpoint of
            another environment is resumed, and the state names both; not with LONGTAIL_RESUME=strict.
        path: the checkpoint, read at the start and written after an epoch once
            LONGTAIL_CHECKPOINT_SECONDS (5) have passed since the last; None: no checkpoints.
        evaluate: columns for the history, asked every `evaluate_every` epochs and after the last one.
        evaluate_every: in epochs; 0: after the last one only.
        report: told every row, those of the past first.
        history: rows of the phases before.

    Returns:
        The state at the end; nothing is selected, the modules are those of the last epoch.

    Raises:
        UserError: if the loss stops being a finite number.
    """
    device, together = phase.images.device, team()
    found = together.told(lambda: _left(path, environment)) if path else None
    state, momentum = _resume(*found, modules) if found else (State(history=list(history)), {})
    if state.environments[-1:] != [environment]:
        state.environments.append(environment)
    for number, row in enumerate(state.history, 1):
        if report:
            report(row, State(history=state.history[:number]))
    patience = float(os.environ.get("LONGTAIL_CHECKPOINT_SECONDS", "5"))
    written = time.monotonic()
    with own_stream(device), _global_generator(modules, device):
        if phase.begin:
            phase.begin(modules, state.epoch == 0)
        optimiser, rates = _optimiser(phase, modules, momentum)
        steps = Steps(phase, modules, optimiser, rates, precision, together)
        while state.epoch < phase.epochs:
            row = _epoch(steps, seed, state)
            state.epoch += 1
            last = state.epoch == phase.epochs
            if evaluate and (last or (evaluate_every and state.epoch % evaluate_every == 0)):
                modules.eval()
                row |= evaluate()
            state.history.append(row)
            if path and together.leads and (time.monotonic() - written >= patience or last):
                _checkpoint(path, modules, optimiser, state)
                written = time.monotonic()
            if report:
                report(row, state)
    return state


class Steps:
    """The steps of a phase, and the sums that they leave on the device.

    Attributes:
        loss, correct: over the images since they were last set to nought, 0-d float64 and int64.
    """

    def __init__(
        self,
        phase: Phase,
        modules: nn.ModuleDict,
        optimiser: torch.optim.Optimizer,
        rates: Tensor,
        precision: str,
        together: Team = Team(),  # noqa: B008 - it is frozen
    ) -> None:
        self.phase, self.modules, self.rates, self.team = phase, modules, rates, together
        self.factors = [group["factor"] for group in optimiser.param_groups]
        self._optimiser, self._precision, self._device = optimiser, precision, phase.images.device
        self.loss = torch.zeros((), dtype=torch.float64, device=self._device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self._device)
        self._reached: list[nn.Parameter] = []  # by the gradient of the last shard
        self.take: Work = self._take
        if self._device.type == "cuda" and phase.capturable and self.whole:
            self.take = Replayed(self._take)

    @property
    def whole(self) -> bool:
        """Whether a batch goes through the network as one, in this process."""
        return self.phase.shards == 1 and self.team.size == 1

    def take_shards(self, shards: Iterable[tuple[Sequence[Batch], float]], progress: Tensor) -> None:
        """One step of a batch that is cut up: batches and share of it of each shard of this process."""
        self._optimiser.zero_grad(set_to_none=True)
        statistics = Statistics(self.modules, self.team)
        for batches, share in shards:
            statistics.begin()
            outcome = self.outcome(batches, progress)
            (outcome.loss * share).backward()  # type: ignore[no-untyped-call]
            statistics.end()
            self.loss += outcome.loss.detach() * len(batches[0].labels)
            self.correct += outcome.correct
        statistics.average()
        learning = [parameter for group in self._optimiser.param_groups for parameter in group["params"]]
        reached = [parameter for parameter in learning if parameter.grad is not None]
        if reached:
            self._reached = reached
        for parameter in self._reached or learning:
            if parameter.grad is None:  # this process has no shard of a small last batch
                parameter.grad = torch.zeros_like(parameter)
        self.team.add(
            *(parameter.grad for parameter in self._reached or learning if parameter.grad is not None)
        )
        self._optimiser.step()

    def outcome(self, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """What a step computes of batches, before it changes anything but batch statistics."""
        with autocast(self._device, self._precision):
            return self.phase.step(self.modules, batches, progress)

    def _take(self, batches: Sequence[Batch], progress: Tensor) -> None:
        outcome = self.outcome(batches, progress)
        self._optimiser.zero_grad(set_to_none=True)
        outcome.loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self.loss += outcome.loss.detach() * len(batches[0].labels)
        self.correct += outcome.correct


def _epoch(taking: Steps, seed: int, state: State) -> Row:
    """Train one epoch; its row of the history."""
    started = time.perf_counter()
    phase, modules = taking.phase, taking.modules
    device = phase.images.device
    key = (phase.name, state.epoch)
    first = state.epoch * phase.steps_per_epoch
    steps = range(first, min(first + phase.steps_per_epoch, phase.steps))
    size = phase.batch_size
    streams = []
    cut = shards(min(len(phase.labels), len(steps) * size), size, phase.shards, taking.team)
    for number, sampler in enumerate(phase.samplers):
        chosen = sampler(phase.labels, generator(seed, "sampler", *key, number), phase.progress_at(first))
        chosen = chosen[: len(steps) * size]
        images = phase.augment(phase.images[chosen.to(device)], generator(seed, "augment", *key, number))
        labels = phase.labels[chosen].to(device)
        if taking.whole:
            streams.append((in_batches(images, size), torch.split(labels, size)))
        else:
            own = [torch.arange(shard.start, shard.stop) for step in cut for shard in step]
            rows, sizes = torch.cat(own).to(device), [len(part) for part in own]
            streams.append((in_batches(images[rows], sizes), torch.split(labels[rows], sizes)))
    mixing = generator(seed, "transform", *key)

    # Moved once an epoch: a copy to the device in the step loop would make the host wait.
    rates = torch.tensor(
        [[phase.rate_at(step) * factor for factor in taking.factors] for step in steps],
        dtype=torch.float32,
        device=device,
    )
    progress = torch.tensor([phase.progress_at(step) for step in steps], dtype=torch.float32, device=device)
    taking.loss.zero_()
    taking.correct.zero_()

    def drawn(index: int) -> list[Batch]:
        return [Batch(phase.normalise(images[index]), labels[index]) for images, labels in streams]

    def loss_of(index: int) -> tuple[Tensor, Tensor]:
        batches = drawn(index)
        return taking.outcome(batches, progress[index]).loss, batches[0].labels

    def seeded(*place: int) -> None:
        if has_random_layers(modules):
            torch.manual_seed(generator(seed, "global", *key, *place).initial_seed())

    def mixed(index: int, mixing: torch.Generator) -> list[Batch]:
        batches = drawn(index)
        for transform in phase.transforms:
            batches = [transform(batch, mixing) for batch in batches]
        return batches

    def sharded(step: int, first: int) -> Iterator[tuple[list[Batch], float]]:
        for index, shard in enumerate(cut[step], first):  # chance is a shard's, wherever it is computed
            seeded(step, shard.number)
            yield mixed(index, generator(seed, "transform", *key, step, shard.number)), shard.share

    modules.train()
    observed: Row = {}
    for observer in phase.observers:
        seeded()
        observed |= observer(modules, loss_of, len(steps), state.epoch)
    seeded()
    done = 0  # shards
    for index in range(len(steps)):
        taking.rates.copy_(rates[index])
        if taking.whole:
            taking.take(mixed(index, mixing), progress[index])
        else:
            taking.take_shards(sharded(index, done), progress[index])
            done += len(cut[index])

    sums = torch.stack([taking.loss, taking.correct.double()])
    taking.team.add(sums)
    seen = min(len(phase.labels), len(steps) * size)
    mean_loss, accuracy = (sums / seen).tolist()  # the epoch's one wait
    state.images += seen
    state.seconds += time.perf_counter() - started
    if not math.isfinite(mean_loss):
        raise UserError(
            f"the loss is not finite at epoch {state.epoch + 1}; lower learning_rate.peak "
            f"(it is {phase.learning_rate.peak:g}) or lengthen learning_rate.warmup"
        )
    return {
        "phase": phase.name,
        "epoch": state.epoch + 1,
        "step": steps.stop,
        "learning_rate": phase.rate_at(steps[-1]),
        "progress": phase.progress_at(steps[-1]),
        **_curves(modules, progress[-1]),
        "train_loss": mean_loss,
        "train_accuracy": accuracy,
        **observed,
    }


def has_random_layers(modules: nn.Module) -> bool:
    """Whether the network draws random numbers of its own, which come from torch's global generator."""
    return any(
        isinstance(module, nn.modules.dropout._DropoutNd)
        or type(module).__name__ in ("DropPath", "StochasticDepth")
        for module in modules.modules()
    )


def _global_generator(modules: nn.Module, device: torch.device) -> AbstractContextManager[Any]:
    """Give the global generator back as it was, where it is used; trainings that share a process use none."""
    if not has_random_layers(modules):
        return nullcontext()
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _curves(modules: nn.ModuleDict, progress: Tensor) -> Row:
    """What the loss has to show of itself, from its method `curves(progress)`; most have none."""
    show = getattr(modules["loss"], "curves", None) if "loss" in modules else None
    return {name: float(value) for name, value in show(progress).items()} if show else {}


def _optimiser(
    phase: Phase, modules: nn.ModuleDict, momentum: dict[str, Tensor]
) -> tuple[torch.optim.Optimizer, Tensor]:
    """The optimiser of a phase with the momentum it had, and its groups' rates, a tensor that it reads."""
    parameters = {name: p for name, p in modules.named_parameters() if p.requires_grad}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(phase.rate_factor(name), []).append(parameter)
    rates = torch.zeros(len(groups), device=phase.images.device)
    optimiser = torch.optim.SGD(
        [
            {"params": group, "factor": factor, "lr": rate}
            for (factor, group), rate in zip(groups.items(), rates, strict=True)
        ],
        momentum=phase.optimiser.momentum,
        weight_decay=phase.optimiser.weight_decay,
        nesterov=phase.optimiser.nesterov,
        fused=True,
    )
    for name, buffer in momentum.items():
        parameter = parameters[name]
        optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
    return optimiser, rates


def _checkpoint(
    path: Path, modules: nn.ModuleDict, optimiser: torch.optim.Optimizer, state: State
) -> None:
    tensors = {f"modules.{name}": tensor for name, tensor in modules.state_dict().items()}
    for name, parameter in modules.named_parameters():
        buffer = optimiser.state[parameter].get("momentum_buffer") if parameter in optimiser.state else None
        if buffer is not None:
            tensors[f"momentum.{name}"] = buffer
    checkpoint.write(path, tensors, asdict(state))


def _left(path: Path, environment: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of a checkpoint that may be gone on from; None: begin at the start."""
    found = checkpoint.read(path)
    if found is None:
        return None
    tensors, state = found
    if "environment" in state:  # as it was written before it was gone on from elsewhere
        state["environments"] = [state.pop("environment")]
    if (was := state.get("environments", [""])[-1]) != environment:
        if os.environ.get("LONGTAIL_RESUME") == "strict":
            checkpoint.discard(path, f"of another environment ({was}, here {environment})")
            return None
        print(
            f"{path}: goes on from {was} on {environment}: no longer bit-repeatable, as run.json will say "
            "(LONGTAIL_RESUME=strict starts anew)",
            file=sys.stderr,
            flush=True,
        )
    if set(state) != set(State.__dataclass_fields__):
        checkpoint.discard(path, "of other code, which counted otherwise")
        return None
    return tensors, state


def _resume(
    tensors: dict[str, Tensor], state: dict[str, Any], modules: nn.ModuleDict
) -> tuple[State, dict[str, Tensor]]:
    """State and momentum of a checkpoint, whose tensors go into the modules."""
    parts: dict[str, dict[str, Tensor]] = {"modules": {}, "momentum": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    modules.load_state_dict(parts["modules"])
    return State(**state), parts["momentum"]
