"""Stage one: train a network on a long-tailed split.

Reads the split and the raw images; writes model.safetensors (the network after the last epoch),
history.csv (a row an epoch), metrics.json (test and validation) and live/ (curves for DVC).
"""

import csv
import json
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from longtail.augmentation import augment, normalise
from longtail.datasets import DATASETS
from longtail.device import describe, device, resolve_precision, set_up
from longtail.errors import UserError
from longtail.evaluation import metrics
from longtail.job import Job
from longtail.params import PhaseSettings, Recipe, StageOneSettings
from longtail.parts import Part, read_counts, read_part
from longtail.random import generator
from longtail.settings import method_module
from longtail.stage_one.curves import Curves
from longtail.stage_one.graph import Batch
from longtail.stage_one.loop import (
    Observer,
    Outcome,
    Phase,
    Row,
    Sampler,
    State,
    Step,
    autocast,
    has_random_layers,
    supervised,
    train,
)

EVALUATION_BATCH = 1000
_SEEDING = threading.Lock()  # the global generator is one for all threads


def compute(job: Job) -> None:
    """Train the recipe of `job.settings` and write the model, its history and its metrics."""
    (error,) = compute_together([job])
    if error:
        raise error


def compute_together(jobs: Sequence[Job]) -> list[Exception | None]:
    """Train several runs at once in this process, each in a thread and on a stream of its own.

    The steps of one small network leave most of a GPU idle. Every run is what it is when trained alone, but
    for its times; one that fails leaves the others alone. Networks that draw from the global generator
    (`has_random_layers`) take turns.

    Returns:
        What went wrong with each run, None where its outputs are written.
    """
    trainings = [Training(job) for job in jobs]
    errors: dict[int, Exception] = {}

    def attempt(number: int) -> None:
        try:
            trainings[number].run()
        except Exception as error:
            errors[number] = error

    alone = [number for number, training in enumerate(trainings) if has_random_layers(training.modules)]
    together = [number for number in range(len(trainings)) if number not in alone]
    threads = [threading.Thread(target=attempt, args=(number,), daemon=True) for number in together[1:]]
    for thread in threads:
        thread.start()
    for number in together[:1] + alone:
        attempt(number)
    for thread in threads:
        thread.join()
    for number, training in enumerate(trainings):
        if number not in errors:
            training.write(len(trainings))
    return [errors.get(number) for number in range(len(trainings))]


class Training:
    """One run: what it needs is made, then it is trained, then written.

    Attributes:
        modules: network and losses, on the device.
    """

    def __init__(self, job: Job) -> None:
        settings: StageOneSettings = job.settings
        dataset = DATASETS[settings.dataset]
        where = device()
        set_up(where)
        split, raw = job.inputs["split"], job.inputs["acquire"]
        training = read_part(split, raw, "train")

        def prepare(images: Tensor) -> Tensor:
            return normalise(images, dataset.mean, dataset.std)

        self.job, self._settings, self._where = job, settings, where
        self._precision = resolve_precision(settings.precision, where)
        self._class_counts = read_counts(split)
        modules = _modules(settings.recipe, self._class_counts, training.images.shape[1], settings.seed)
        self.modules = modules.to(where).to(memory_format=torch.channels_last)
        self._network = self.modules["network"]
        self._phases = _phases(
            settings.recipe, training, self._class_counts.to(where), prepare, settings.seed
        )
        parts = {part: read_part(split, raw, part) for part in ("test", "validation")}
        self._evaluation = Evaluation(self._network, parts, prepare, where, self._precision)
        self._state = State()
        job.facts.update(
            parameters=sum(parameter.numel() for parameter in self._network.parameters()),
            precision=self._precision,
            device=describe(where),
            steps=sum(phase.steps for phase in self._phases),
            epochs=sum(phase.epochs for phase in self._phases),
        )
        size = f"{job.facts['parameters']:,} parameters"
        print(f"{job.run}: {size}, {self._precision} on {describe(where)}", file=sys.stderr, flush=True)

    def run(self) -> None:
        """Train to the end."""
        job, where = self.job, self._where
        curves = Curves(job.folder / "live")
        with job.progress(job.facts["epochs"], "epoch") as progress:

            def report(row: Row, state: State) -> None:
                curves.add(row, len(state.history))
                progress.to(len(state.history), f"loss {row['train_loss']:.3f}")

            self._state = train(
                self._phases,
                self.modules,
                seed=self._settings.seed,
                precision=self._precision,
                environment=f"{describe(where)}, {self._precision}, torch {torch.__version__}, "
                f"{torch.get_num_threads()} threads",
                path=job.scratch / "checkpoint.safetensors",
                evaluate=self._evaluation.accuracies,
                evaluate_every=self._settings.recipe.evaluate_every,
                report=report,
            )

    def write(self, at_once: int = 1) -> None:
        """Write model, history and metrics of the training that is over."""
        job, state = self.job, self._state
        weights = {name: tensor.cpu().contiguous() for name, tensor in self._network.state_dict().items()}
        save_file(weights, job.folder / "model.safetensors")
        write_history(job.folder / "history.csv", state.history)
        measured = {
            part: metrics(*found, self._class_counts) for part, found in self._evaluation.last().items()
        }
        (job.folder / "metrics.json").write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
        job.facts.update(
            training_seconds=round(state.seconds, 3),
            images_per_second=round(state.images / state.seconds, 1),
            **({"runs_at_once": at_once} if at_once > 1 else {}),
        )


def predict(
    network: nn.Module,
    images: Tensor,
    prepare: Callable[[Tensor], Tensor],
    where: torch.device,
    precision: str,
) -> Tensor:
    """Logits (N, C), float32 on the CPU, of images uint8 (N, C, H, W), by a network in eval mode."""
    network.eval()
    found = []
    with torch.no_grad(), autocast(where, precision):
        for batch in torch.split(images, EVALUATION_BATCH):
            found.append(network(prepare(batch.to(where))).float())
    return torch.cat(found).cpu()


class Evaluation:
    """Measures a network on the test and validation images; remembers its last logits."""

    def __init__(
        self,
        network: nn.Module,
        parts: dict[str, Part],
        prepare: Callable[[Tensor], Tensor],
        where: torch.device,
        precision: str,
    ) -> None:
        self._network, self._prepare, self._where, self._precision = network, prepare, where, precision
        self._parts = {name: part for name, part in parts.items() if len(part.labels)}
        self._logits: dict[str, Tensor] = {}

    def accuracies(self) -> dict[str, float | None]:
        """Columns of the history: the share of right images, of each part that has images."""
        self._logits = {}
        for name, part in self._parts.items():
            twin = next((other for other in self._logits if _same(self._parts[other], part)), None)
            self._logits[name] = (
                self._logits[twin]
                if twin
                else predict(self._network, part.images, self._prepare, self._where, self._precision)
            )
        return {
            f"{name}_accuracy": float((logits.argmax(dim=1) == self._parts[name].labels).double().mean())
            for name, logits in self._logits.items()
        }

    def last(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Logits and labels by part, of the network as it was last evaluated (now, if it never was)."""
        if not self._logits:
            self.accuracies()
        return {name: (logits, self._parts[name].labels) for name, logits in self._logits.items()}


def write_history(path: Path, history: list[Row]) -> None:
    """The rows as CSV; every float so that it reads back as itself, an empty cell where a row has none."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def _modules(recipe: Recipe, class_counts: Tensor, channels: int, seed: int) -> nn.ModuleDict:
    """The freshly initialised network and the phases' losses, on the CPU, from the seed alone."""
    modules = nn.ModuleDict({"network": _network(recipe, channels, len(class_counts), seed, "network")})
    for number, phase in enumerate(recipe.phases):
        loss = phase.loss or recipe.loss
        try:
            module = method_module("losses", loss.name).build(loss.options, class_counts)
        except ValueError as error:
            raise UserError(f"loss {loss.name}: {error}") from None
        modules[_loss_name(number)] = module
    return modules


def _loss_name(number: int) -> str:
    """Of a phase's loss among the modules: loss, loss_1, loss_2."""
    return f"loss_{number}" if number else "loss"


def _network(recipe: Recipe, channels: int, classes: int, *key: str | int) -> nn.Module:
    """A fresh network, its weights from the generator of a key."""
    with _SEEDING, torch.random.fork_rng([]):
        torch.manual_seed(generator(*key).initial_seed())
        network: nn.Module = method_module("networks", recipe.network.name).build(
            recipe.network.options, channels, classes
        )
    return network


def _phases(
    recipe: Recipe, training: Part, class_counts: Tensor, prepare: Callable[[Tensor], Tensor], seed: int
) -> list[Phase]:
    """The phases of a recipe, on the device of the class counts."""
    images = training.images.to(class_counts.device)

    def new_head(name: str) -> dict[str, Tensor]:
        network = _network(recipe, images.shape[1], len(class_counts), seed, "head", name)
        return network.get_submodule("head").state_dict()

    return [
        Phase(
            name=phase.name,
            images=images,
            labels=training.labels,
            samplers=[_sampler(phase)],
            augment=lambda images, generator: augment(images, recipe.augmentation, generator),
            normalise=prepare,
            transforms=[
                method_module("transforms", transform.name).build(transform.options, class_counts)
                for transform in phase.transforms or []
            ],
            step=_step(_loss_name(number), frozen=phase.freeze == "trunk"),
            batch_size=recipe.batch_size,
            length=phase.schedule,
            learning_rate=phase.learning_rate,
            optimiser=recipe.optimiser,
            progress=recipe.progress,
            loss=_loss_name(number),
            begin=_beginning(phase, new_head),
            observers=_observers(recipe, class_counts),
        )
        for number, phase in enumerate(recipe.phases)
    ]


def _observers(recipe: Recipe, class_counts: Tensor) -> list[Observer]:
    try:
        return [
            method_module("observers", observer.name).build(observer.options, class_counts)
            for observer in recipe.observers
        ]
    except ValueError as error:
        raise UserError(f"observers: {error}") from None


def _sampler(phase: PhaseSettings) -> Sampler:
    indices = method_module("samplers", phase.sampler.name).indices

    def sampler(labels: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        found: Tensor = indices(labels, generator, progress, phase.sampler.options)
        return found

    return sampler


def _step(loss: str, frozen: bool) -> Step:
    def step(modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        if frozen:
            modules["network"].eval()  # batch normalisation stays as it is, too
        return supervised(modules, batches, progress, loss)

    return step


def _beginning(
    phase: PhaseSettings, new_head: Callable[[str], dict[str, Tensor]]
) -> Callable[[nn.ModuleDict, bool], None]:
    """Lets learn what is not frozen, and gives a phase that asks for it a new classifier."""

    def begin(modules: nn.ModuleDict, fresh: bool) -> None:
        network = modules["network"]
        head = network.get_submodule("head")
        network.requires_grad_(phase.freeze == "none")
        head.requires_grad_(True)
        if fresh and phase.reset_head:
            head.load_state_dict(new_head(phase.name))

    return begin


def _same(one: Part, other: Part) -> bool:
    """Whether two parts are the same images, as validation and test are with `validation: test`."""
    return one.images.shape == other.images.shape and torch.equal(one.images, other.images)
