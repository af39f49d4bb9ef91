"""What a step is made of: the phase and the run that it belongs to."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from longtail.data.labelled_images import Part
from longtail.random import generator
from longtail.settings.method_blocks import Method
from longtail.settings.methods import method_module
from longtail.settings.phase import PhaseSettings
from longtail.settings.recipe import Recipe
from longtail.stage_one.phase_classes import PhaseClasses
from longtail.stage_one.step import Sampler
from longtail.stage_one.teacher import Teacher, load_teacher

_SEEDING = threading.Lock()  # the global generator is one for all threads


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What `build` of a step's file, and `make` of that of companions, is handed beside its settings.

    Attributes:
        recipe: up to this phase.
        phase: its settings, with everything filled in.
        seed: of the run.
        network, loss: on the device; the network as the phase finds it.
        training: the images of the phase; for a step with the companions that were made of them, behind them.
        class_counts: training images of each class in the phase, int64 (C,), on the CPU.
        classes: what the phase has to do with which classes.
        parts: the other parts of the split, "validation" and "test", on the CPU.
        prepare: a batch of images, uint8 to what a network takes.
        device, precision: where and how the phase is computed ("bf16" or "float32").
        inputs: folders of finished runs by key, e.g. "teacher.0.stage_one" (see `teachers`).
    """

    recipe: Recipe
    phase: PhaseSettings
    seed: int
    network: nn.Module
    loss: nn.Module
    training: Part
    class_counts: Tensor
    classes: PhaseClasses
    parts: Mapping[str, Part]
    prepare: Callable[[Tensor], Tensor]
    device: torch.device
    precision: str
    inputs: Mapping[str, Path]

    def runs(self, key: str) -> list[dict[str, Path]]:
        """The folders of the finished runs that a key of the step's settings names.

        One for each seed, each by step: stage_one, and stage_two where the settings name a classifier.
        """
        found: dict[int, dict[str, Path]] = {}
        for name, folder in self.inputs.items():
            if name.startswith(f"{key}."):
                place, step = name.removeprefix(f"{key}.").split(".")
                found.setdefault(int(place), {})[step] = folder
        return [found[place] for place in sorted(found)]

    def teachers(self, key: str) -> list[Teacher]:
        """The networks of these runs, frozen, on the device, one for each seed."""
        channels, classes = self.training.images.shape[1], len(self.class_counts)
        return [load_teacher(run, channels, classes).to(self.device) for run in self.runs(key)]

    def seeded(self, make: Callable[[], nn.Module], *key: str | int) -> nn.Module:
        """A module with weights of the run's seed and of a key that says what it is, on the device."""
        return seeded(make, self.seed, "step", self.phase.name, *key).to(self.device)

    def generator(self, *key: str | int) -> torch.Generator:
        """A CPU generator of the run's seed and of a key that says what the numbers are for."""
        return generator(self.seed, "step", self.phase.name, *key)


def seeded(make: Callable[[], nn.Module], *key: str | int) -> nn.Module:
    """A module whose initial weights, of torch's global generator, are those of a key."""
    with _SEEDING, torch.random.fork_rng([]):
        torch.manual_seed(generator(*key).initial_seed())
        return make()


def sampler_of(method: Method) -> Sampler:
    """The sampler that a block of settings names, as a stream takes it."""
    indices = method_module("samplers", method.name).indices

    def sampler(labels: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        found: Tensor = indices(labels, generator, progress, method.options)
        return found

    return sampler
