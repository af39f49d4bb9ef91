"""The one training loop. A method is a small object that the loop asks; none has a case of its own here.

A training is a phase, and a recipe of several is as many trainings, each of which begins with what the one
before has left. A phase says which images an epoch is made of (streams: one, or more for methods that see
several batches a step), how they are augmented and transformed, what a step computes, what is measured of
it, and how long and fast it learns. Everything that training changes lives in the modules and the
optimiser, and random numbers come from generators that are keyed by phase and epoch; so a checkpoint is
those tensors and three counters, and a training that was killed goes on to bit-identical results.
"""

import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longtail.device import sent
from longtail.errors import UserError
from longtail.random import generator
from longtail.stage_one.batch import Batch
from longtail.stage_one.casting import casting
from longtail.stage_one.epoch import Epoch, ready
from longtail.stage_one.graph import Replayed, Work, own_stream, pass_by
from longtail.stage_one.phase import HistoryRow, Phase, State
from longtail.stage_one.ranks import Ranks, Statistics, ranks
from longtail.stage_one.resuming import begin_momentum, left, make_optimiser, patience, resume, save
from longtail.stage_one.step import Outcome


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
    report: Callable[[HistoryRow, State], None] | None = None,
    history: Sequence[HistoryRow] = (),
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
        UserError: if the loss stops being a finite number, or a variable of the environment means nothing.
    """
    device, processes = phase.images.device, ranks()
    found = processes.broadcast(lambda: left(path, environment)) if path else None
    state, momentum = resume(found[0], found[1], modules) if found else (State(history=list(history)), {})
    if state.environments[-1:] != [environment]:
        state.environments.append(environment)
    for number, row in enumerate(state.history, 1):
        if report:
            report(row, State(history=state.history[:number]))
    seconds = patience()
    written = time.monotonic()
    with own_stream(device), _global_generator(modules, device):
        if phase.begin:
            phase.begin(modules, state.epoch == 0)
        optimiser, rates = make_optimiser(phase, modules, momentum)
        steps = Steps(phase, modules, optimiser, rates, precision, processes)
        while state.epoch < phase.epochs:
            row = _epoch(steps, seed, state)
            state.epoch += 1
            last = state.epoch == phase.epochs
            if evaluate and (last or (evaluate_every and state.epoch % evaluate_every == 0)):
                modules.eval()
                row |= evaluate()
            state.history.append(row)
            if path and processes.is_main and (time.monotonic() - written >= seconds or last):
                save(path, modules, optimiser, state)
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
        processes: Ranks = Ranks(),  # noqa: B008 - it is frozen
    ) -> None:
        self.phase, self.modules, self.rates, self.ranks = phase, modules, rates, processes
        self.factors = [group["factor"] for group in optimiser.param_groups]
        self._optimiser, self._precision, self._device = optimiser, precision, phase.images.device
        self._step = casting(phase.step, modules, self._device, precision)
        self.loss = torch.zeros((), dtype=torch.float64, device=self._device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self._device)
        self._reached: list[nn.Parameter] = []  # by the gradient of the last shard
        self._ahead: Epoch | None = None
        self.take: Work = self.take_as_it_comes
        if self._device.type == "cuda" and self.whole:
            self.take = Replayed(self.take_as_it_comes)

    @property
    def whole(self) -> bool:
        """Whether a batch goes through the network as one, in this process."""
        return self.phase.shards == 1 and self.ranks.size == 1

    def take_shards(
        self, shards: Iterable[tuple[Sequence[Batch], float | Tensor]], images: int, progress: Tensor
    ) -> None:
        """One step of a batch that is cut up.

        Args:
            shards: batches of each shard of this process, and its share in the loss of the whole batch.
            images: of the whole batch.
            progress: 0-d.
        """
        self._optimiser.zero_grad(set_to_none=True)
        statistics = Statistics(self.modules, self.ranks)
        for batches, share in shards:
            statistics.begin()
            outcome = self.outcome(batches, progress)
            (outcome.loss * share).backward()  # type: ignore[no-untyped-call]
            statistics.end()
            weight = images * share if isinstance(share, Tensor) else len(batches[0].labels)
            self.loss += outcome.loss.detach() * weight
            self.correct += outcome.correct
        statistics.average()
        learning = [parameter for group in self._optimiser.param_groups for parameter in group["params"]]
        reached = [parameter for parameter in learning if parameter.grad is not None]
        if reached:
            self._reached = reached
        for parameter in self._reached or learning:
            if parameter.grad is None:  # this process has no shard of a small last batch
                parameter.grad = torch.zeros_like(parameter)
        self.ranks.add(
            *(parameter.grad for parameter in self._reached or learning if parameter.grad is not None)
        )
        self._descend()

    def epoch(self, seed: int, number: int) -> Epoch:
        """An epoch of the phase, by the number of those that are finished."""
        epoch, self._ahead = self._ahead, None
        if epoch is None or epoch.number != number:
            epoch = ready(self.phase, self.factors, self.ranks, seed, number)
        return epoch

    def look_ahead(self, seed: int, number: int) -> None:
        """Make an epoch ready, if the phase has it, while the device is at work."""
        if number < self.phase.epochs:
            self._ahead = ready(self.phase, self.factors, self.ranks, seed, number)

    def normalised(self, batch: Batch) -> Batch:
        """A batch whose images are numbers that a network takes, uint8 no longer."""
        if batch.images.dtype != torch.uint8:
            return batch
        return batch._replace(images=self.phase.normalise(batch.images))

    def outcome(self, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """What a step computes of batches, before it changes anything but batch statistics."""
        batches = [self.normalised(batch) for batch in batches]
        with autocast(self._device, self._precision):
            return self._step(self.modules, batches, progress)

    def _descend(self) -> None:
        begin_momentum(self._optimiser)
        self._optimiser.step()
        with torch.no_grad():
            self.phase.step.after(self.modules)
        if self.phase.after:
            self.phase.after(self.modules)

    def take_as_it_comes(self, batches: Sequence[Batch], progress: Tensor, course: Hashable = None) -> None:
        """One step of whole batches; its course the step was told."""
        outcome = self.outcome(batches, progress)
        self._optimiser.zero_grad(set_to_none=True)
        outcome.loss.backward()  # type: ignore[no-untyped-call]
        self._descend()
        self.loss += outcome.loss.detach() * len(batches[0].labels)
        self.correct += outcome.correct


def _epoch(taking: Steps, seed: int, state: State) -> HistoryRow:
    """Train one epoch; its row of the history."""
    started = time.perf_counter()
    phase, modules = taking.phase, taking.modules
    key = (phase.name, state.epoch)
    epoch = taking.epoch(seed, state.epoch)
    steps, cut, progress, size = epoch.steps, epoch.cut, epoch.progress, phase.batch_size
    begun = phase.progress_at(steps[0])  # by which the epoch's streams were chosen too
    mixing = generator(seed, "transform", *key)
    taking.loss.zero_()
    taking.correct.zero_()

    def drawn(batches: list[Batch], *place: int) -> list[Batch]:
        """The batches of a step or shard, with the random numbers that the step wants."""
        if not phase.step.draws:
            return batches
        numbers = phase.step.draw(len(batches[0].labels), generator(seed, "draw", *key, *place))
        found = tuple(sent(tensor, batches[0].images.device) for tensor in numbers)
        return [batches[0]._replace(drawn=found), *batches[1:]]

    def loss_of(index: int) -> tuple[Tensor, Tensor]:
        phase.step.turn(begun)
        batches = drawn(epoch.batches(index)[: -1 if phase.pasting else None], index)
        return taking.outcome(batches, progress[index]).loss, batches[0].labels

    def seeded(*place: int) -> None:
        if has_random_layers(modules):
            torch.manual_seed(generator(seed, "global", *key, *place).initial_seed())

    def mixed(index: int, done: float, mixing: torch.Generator, *whole: int) -> list[Batch]:
        """The batches of a step or shard; what is one for the whole batch comes from a stream of the step."""
        batches = epoch.batches(index)
        if phase.pasting:
            *batches, others = batches
            shared = generator(seed, "transform", *key, *whole) if whole else mixing
            batches = [phase.pasting(batch, others, done, mixing, shared) for batch in batches]
        for transform in phase.transforms:
            shared = generator(seed, "transform", *key, *whole) if whole else mixing
            batches = [transform(taking.normalised(batch), mixing, shared) for batch in batches]
        return batches

    def sharded(step: int, first: int) -> Iterator[tuple[list[Batch], float | Tensor]]:
        start, stop = step * size, min((step + 1) * size, len(epoch.labels[0]))
        total = phase.step.divisor(modules, [labels[start:stop] for labels in epoch.labels], progress[step])
        for index, shard in enumerate(cut[step], first):  # chance is a shard's, wherever it is computed
            seeded(step, shard.number)
            share: float | Tensor = shard.share
            if total is not None:
                own = [labels[shard.start : shard.stop] for labels in epoch.labels]
                part = phase.step.divisor(modules, own, progress[step])
                assert part is not None
                share = part / total
            chance = generator(seed, "transform", *key, step, shard.number)
            batches = mixed(index, phase.progress_at(steps[step]), chance, step)
            yield drawn(batches, step, shard.number), share

    modules.train()
    observed: HistoryRow = {}
    for observer in phase.observers:
        seeded()
        observed |= observer(modules, loss_of, len(steps), state.epoch)
    seeded()
    done = 0  # shards
    for index in range(len(steps)):
        pass_by()
        taking.rates.copy_(epoch.rates[index])
        course = phase.step.turn(begun)
        if taking.whole:
            take = taking.take if phase.step.capturable else taking.take_as_it_comes
            batches = mixed(index, phase.progress_at(steps[index]), mixing)
            take(drawn(batches, index), progress[index], course)
        else:
            whole = min(size, len(epoch.labels[0]) - index * size)
            taking.take_shards(sharded(index, done), whole, progress[index])
            done += len(cut[index])

    sums = torch.stack([taking.loss, taking.correct.double()])
    taking.ranks.add(sums)
    seen = min(phase.images_per_epoch, len(steps) * size)
    curves = _curves(modules, progress[-1])
    told = torch.cat([sums / seen, *(value.double().view(1) for value in curves.values())])
    if told.is_cuda:
        taking.look_ahead(seed, state.epoch + 1)
    mean_loss, accuracy, *shown = told.tolist()  # the epoch's one wait
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
        **dict(zip(curves, shown, strict=True)),
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


def _curves(modules: nn.ModuleDict, progress: Tensor) -> dict[str, Tensor]:
    """What the loss has to show of itself, 0-d each, from its method `curves(progress)`; most have none."""
    show = getattr(modules["loss"], "curves", None) if "loss" in modules else None
    return show(progress) if show else {}
