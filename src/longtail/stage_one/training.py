"""Stage one: train a network on a long-tailed split.

Reads the split and the raw images; writes model.safetensors (the network after the last epoch, or with
`weight_average` the moving average of its weights), history.csv (a row an epoch, which `dvc plots` draws) and
metrics.json (test and validation), which are of the network that is written.

A recipe of several phases is a run a phase: each reads the run of the phase before too, goes on from its
network, and writes the history of all. Recipes that begin alike share the runs with which they begin. A phase
with a memory bank writes bank.csv: which images its exemplars are.
"""

import json
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from longtail.data.images import Images
from longtail.data.labelled_images import Part, read_counts, read_part
from longtail.data.normalisation import mean_and_std, normalise
from longtail.device import describe, device, peak_memory_mb, received, resolve_precision, set_up
from longtail.metrics import metrics
from longtail.runs.job import Job
from longtail.runs.progress import Progress
from longtail.settings.frozen_features import PublishedTrunk
from longtail.settings.phases import phases
from longtail.settings.recipe import StageOneSettings
from longtail.stage_one.assembly import (
    make_loss,
    make_network,
    make_observers,
    make_phase,
    make_step,
    seed_of,
    with_companions,
)
from longtail.stage_one.bank import choose_bank, write_bank
from longtail.stage_one.class_means import start_at_class_means
from longtail.stage_one.evaluation import Evaluation, predict
from longtail.stage_one.freezing import learning
from longtail.stage_one.history import read_history, write_history
from longtail.stage_one.launch import launch, nodes, processes
from longtail.stage_one.loop import has_random_layers, train
from longtail.stage_one.moving_average import MovingAverage
from longtail.stage_one.networks.fused_batchnorm import fuse
from longtail.stage_one.phase import HistoryRow, State
from longtail.stage_one.phase_classes import phase_classes
from longtail.stage_one.published_trunk import write_published
from longtail.stage_one.ranks import ranks
from longtail.stage_one.step_context import StepContext

PARTS: tuple[Literal["test", "validation"], ...] = ("test", "validation")  # that it is measured on


def compute(job: Job) -> None:
    """Train the recipe of `job.settings` and write the model, its history and its metrics."""
    number = processes(job.settings)
    if number * nodes(job.settings) > 1:
        launch(job, number)
        return
    (error,) = compute_together([job])
    if error:
        raise error


def train_together(job: Job) -> None:
    """Train as one process of several, of which the first one writes."""
    training = TrainingRun(job)
    training.run()
    if ranks().is_main:
        training.write()
    job.facts.update(processes=ranks().size, peak_memory_mb_of_a_process=peak_memory_mb())


def compute_together(jobs: Sequence[Job]) -> list[Exception | None]:
    """Train several runs at once in this process, each in a thread and on a stream of its own.

    The steps of one small network leave most of a GPU idle. Every run is what it is when trained alone, but
    for its times; one that fails leaves the others alone. Networks that draw from the global generator
    (`has_random_layers`) take turns.

    Returns:
        What went wrong with each run, None where its outputs are written.
    """
    trainings: dict[int, TrainingRun] = {}
    errors: dict[int, Exception] = {}

    def attempt(number: int, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            errors[number] = error

    def prepare(number: int) -> None:
        if isinstance(jobs[number].settings.recipe, PublishedTrunk):
            write_published(jobs[number])
        else:
            trainings[number] = TrainingRun(jobs[number])

    for number in range(len(jobs)):
        attempt(number, partial(prepare, number))
    alone = [number for number, training in trainings.items() if has_random_layers(training.modules)]
    together = [number for number in trainings if number not in alone]
    threads = [
        threading.Thread(target=attempt, args=(number, trainings[number].run), daemon=True)
        for number in together[1:]
    ]
    for thread in threads:
        thread.start()
    for number in together[:1] + alone:
        attempt(number, trainings[number].run)
    for thread in threads:
        thread.join()
    for number, training in trainings.items():
        if number not in errors:
            attempt(number, partial(training.write, len(jobs)))
    return [errors.get(number) for number in range(len(jobs))]


class TrainingRun:
    """One run: what it needs is made, then it is trained, then written.

    Attributes:
        modules: network, its average if there is one, and losses, on the device.
    """

    def __init__(self, job: Job) -> None:
        settings: StageOneSettings = job.settings
        recipe = settings.recipe
        assert not isinstance(recipe, PublishedTrunk)
        mean, std = mean_and_std(settings.dataset, settings.images)
        where = device()
        set_up(where)
        split, raw = job.inputs["split"], job.inputs["acquire"]
        training = read_part(split, raw, "train", settings.images, job.pictures)

        def prepare(images: Tensor) -> Tensor:
            return normalise(images, mean, std)

        phase = phases(recipe)[-1]
        self._seed = seed = seed_of(phase, settings.seed)
        self.job, self._settings, self._recipe, self._where = job, settings, recipe, where
        self._precision = resolve_precision(settings.precision, where)
        self._class_counts = read_counts(split)
        self._classes = phase_classes(recipe, self._class_counts)
        self._before = Before(job.inputs.get("stage_one"))
        channels, classes = training.images.shape[1], len(self._class_counts)
        network = make_network(recipe, channels, classes, seed, "network")
        begun_with = self._before.load(network)
        network = network.to(where).to(memory_format=torch.channels_last)
        self._fused = fuse(learning(network, phase.freeze), where, self._precision)

        def features(images: Images) -> Tensor:
            of: Any = network.features
            return predict(network, images, prepare, where, self._precision, of)

        if recipe.head_start == "class_means" and "stage_one" not in job.inputs:
            start_at_class_means(network, features(training.images), training.labels)
        self._training = training
        self._bank = choose_bank(phase, self._classes.left_out, training, features, seed)
        members = self._classes.members(training.labels, self._bank)
        own = training if len(members) == len(training.labels) else training[members]
        counts = self._class_counts
        if not bool(self._classes.own.all()):
            # a class of which this phase sees no image, not even an exemplar, counts as one
            counts = own.labels.bincount(minlength=len(counts)).clamp_min(1)
        loss = make_loss(phase, counts[self._classes.seen]).to(where)
        parts: dict[str, Part] = {
            part: read_part(split, raw, part, settings.images, job.pictures) for part in PARTS
        }
        context = StepContext(
            recipe=recipe,
            phase=phase,
            seed=seed,
            network=network,
            loss=loss,
            training=own,
            class_counts=counts,
            classes=self._classes,
            parts=parts,
            prepare=prepare,
            device=where,
            precision=self._precision,
            inputs=job.inputs,
        )
        joined = with_companions(context)
        step = make_step(replace(context, training=joined))
        self.modules = nn.ModuleDict({"network": network, "loss": loss, **step.modules()}).to(where)
        self._result = network  # what is evaluated and written
        if recipe.weight_average:
            average = MovingAverage(network, recipe.weight_average.decay).to(where)
            self.modules["average"], self._result = average, average.network
        observers = make_observers(recipe, self._class_counts)
        size = len(own.labels)
        self._phase = make_phase(
            recipe, seed, joined, size, counts, observers, self._classes, prepare, where, step
        )
        self._evaluation = Evaluation(
            self._result, parts, prepare, where, self._precision, self._classes.seen
        )
        self._state = State()
        self._progress: Progress | None = None
        job.facts.update(
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            precision=self._precision,
            **({"batch_norm": self._fused} if self._fused else {}),
            device=describe(where),
            steps=self._phase.steps,
            epochs=self._phase.epochs,
            **({"exemplars": len(self._bank)} if phase.bank else {}),
            **({"companions": len(joined.labels) - size} if phase.companions else {}),
            **({"pretrained": begun_with} if begun_with else {}),
            **({"weights": "moving average"} if recipe.weight_average else {}),
        )
        parameters = f"{job.facts['parameters']:,} parameters"
        at = describe(where) if ranks().size == 1 else f"{ranks().size} x {describe(where)}"
        if ranks().is_main:
            how = f"{self._precision}, batch_norm {self._fused}" if self._fused else self._precision
            print(f"{job.run}: {parameters}, {how} on {at}", file=sys.stderr, flush=True)

    def run(self) -> None:
        """Train to the end."""
        job, where = self.job, self._where
        fused = f", batch_norm {self._fused}" if self._fused else ""
        several = f", {ranks().size} processes" if ranks().size > 1 else ""
        with ExitStack() as stack:
            if ranks().is_main:
                self._progress = stack.enter_context(job.progress(job.facts["epochs"], "epoch"))
            self._state = train(
                self._phase,
                self.modules,
                seed=self._seed,
                precision=self._precision,
                environment=f"{describe(where)}, {self._precision}, torch {torch.__version__}, "
                f"{torch.get_num_threads()} threads{fused}{several}",
                path=job.scratch / "checkpoint.safetensors",
                evaluate=self._evaluation.accuracies,
                evaluate_every=self._recipe.evaluate_every,
                report=self.report,
                history=self._before.history,
            )
        self._evaluation.last()  # of all processes together, also where a killed run had only to be written

    def report(self, row: HistoryRow, state: State) -> None:
        """Show how far the training is."""
        if self._progress:
            done = len(state.history) - len(self._before.history)
            self._progress.to(done, f"loss {row['train_loss']:.3f}")

    def write(self, at_once: int = 1) -> None:
        """Write model, history and metrics of the training that is over."""
        job, state = self.job, self._state
        weights = received(self._result.state_dict())
        weights = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(weights, job.folder / "model.safetensors")
        write_history(job.folder / "history.csv", state.history)
        measured = {
            part: metrics(*found, self._class_counts) for part, found in self._evaluation.last().items()
        }
        if self._classes.rich is not None and not bool((self._classes.rich & ~self._classes.seen).any()):
            phase, rich = phases(self._recipe)[-1].name, self._classes.rich
            measured["rich"] = {**self._before.rich, phase: _among(self._evaluation.last(), rich)}
        if len(self._bank):
            write_bank(job.folder / "bank.csv", self._bank, self._training)
        (job.folder / "metrics.json").write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
        job.facts.update(
            environments=state.environments,
            training_seconds=round(state.seconds, 3),
            images_per_second=round(state.images / state.seconds, 1),
            **({"runs_at_once": at_once} if at_once > 1 else {}),
        )


class Before:
    """What the run of the phase before has left; nothing for a first phase.

    Attributes:
        history: its rows, numbers as numbers.
        rich: accuracy on data-rich classes after each phase, as metrics.json has it.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.history: list[HistoryRow] = []
        self.rich: dict[str, dict[str, float | None]] = {}
        if folder:
            self.history = read_history(folder / "history.csv")
            self.rich = json.loads((folder / "metrics.json").read_text("utf-8")).get("rich", {})

    def load(self, network: nn.Module) -> str | None:
        """Give a network its weights and statistics; in a first phase those it is to begin with, if any.

        Returns:
            What a first phase begins with, None where it begins afresh.
        """
        if self._folder:
            network.load_state_dict(load_file(self._folder / "model.safetensors"))
            return None
        load: Callable[[], str | None] = getattr(network, "load_pretrained", lambda: None)
        return load()


def _among(found: dict[str, tuple[Tensor, Tensor]], classes: Tensor) -> dict[str, float | None]:
    """Share of right images of some classes (C,) by part, where only these can be answered."""
    result: dict[str, float | None] = {}
    for part, (logits, labels) in found.items():
        own = classes[labels]
        right = logits[own].masked_fill(~classes, -torch.inf).argmax(dim=1) == labels[own]
        result[part] = float(right.double().mean()) if len(right) else None
    return result
