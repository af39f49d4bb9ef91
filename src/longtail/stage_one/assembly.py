"""A recipe's modules and its last phase, made for the training loop."""

import copy
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from longtail.data.augmentation import augment
from longtail.data.labelled_images import Part
from longtail.errors import UserError
from longtail.random import generator
from longtail.settings.frozen_features import PublishedTrunk
from longtail.settings.methods import method_module
from longtail.settings.phase import PhaseSettings
from longtail.settings.phases import phases
from longtail.settings.recipe import Recipe, StageOneSettings
from longtail.stage_one.freezing import learning
from longtail.stage_one.phase import Observer, Phase, Sampler
from longtail.stage_one.phase_classes import PhaseClasses
from longtail.stage_one.supervised_step import Supervised

_SEEDING = threading.Lock()  # the global generator is one for all threads


def make_modules(network: nn.Module, phase: PhaseSettings, class_counts: Tensor) -> nn.ModuleDict:
    """The network, the loss over the classes seen so far, of these counts, and what retains features."""
    assert phase.loss is not None
    try:
        loss = method_module("losses", phase.loss.name).build(phase.loss.options, class_counts)
    except ValueError as error:
        raise UserError(f"loss {phase.loss.name}: {error}") from None
    modules = nn.ModuleDict({"network": network, "loss": loss})
    if phase.retention:
        modules["before"] = copy.deepcopy(network).requires_grad_(False)
        modules["retention"] = method_module("retention", phase.retention.name).build(phase.retention.options)
    return modules


def make_network(recipe: Recipe | PublishedTrunk, channels: int, classes: int, *key: str | int) -> nn.Module:
    """A fresh network, its weights from the generator of a key."""
    with _SEEDING, torch.random.fork_rng([]):
        torch.manual_seed(generator(*key).initial_seed())
        network: nn.Module = method_module("networks", recipe.network.name).build(
            recipe.network.options, channels, classes
        )
    return network


def make_phase(
    settings: StageOneSettings,
    recipe: Recipe,
    training: Part,
    class_counts: Tensor,
    observers: Sequence[Observer],
    phase_classes: PhaseClasses,
    prepare: Callable[[Tensor], Tensor],
    where: torch.device,
) -> Phase:
    """The last phase of a recipe, on the device."""
    phase = phases(recipe)[-1]
    images = training.images.to(where)
    seen, new, left_out = (
        classes.to(where) for classes in (phase_classes.seen, phase_classes.new, phase_classes.left_out)
    )

    def begin(modules: nn.ModuleDict, fresh: bool) -> None:
        network = modules["network"]
        head = network.get_submodule("head")
        network.requires_grad_(False)
        for part in learning(network, phase.freeze):
            part.requires_grad_(True)
        rows = torch.ones_like(new) if phase.reset_head else new
        if fresh and recipe.then and rows.any():
            other = make_network(
                recipe, images.shape[1], len(class_counts), settings.seed, "head", phase.name
            )
            for name, tensor in other.get_submodule("head").state_dict().items():  # a row a class
                head.state_dict()[name][rows] = tensor.to(where)[rows]

    def rate_factor(name: str) -> float:
        in_trunk = name.startswith("network.") and not name.startswith("network.head.")
        return recipe.optimiser.trunk_rate if in_trunk else 1.0

    return Phase(
        name=phase.name,
        images=images,
        labels=training.labels,
        samplers=[_sampler(phase)],
        augment=lambda images, generator: augment(images, recipe.augmentation, generator),
        normalise=prepare,
        transforms=[
            method_module("transforms", transform.name).build(transform.options, class_counts.to(where))
            for transform in phase.transforms or []
        ],
        step=Supervised(
            frozen=phase.freeze if phase.frozen_batchnorm == "eval" else "none",
            seen=None if bool(phase_classes.seen.all()) else seen,
            exemplars=left_out if phase.retention else None,
        ),
        batch_size=recipe.batch_size,
        length=phase.schedule,
        learning_rate=phase.learning_rate,
        optimiser=recipe.optimiser,
        rate_factor=rate_factor,
        progress=recipe.progress,
        begin=begin,
        observers=observers,
        shards=recipe.shards,
    )


def make_observers(recipe: Recipe, class_counts: Tensor) -> list[Observer]:
    """What a recipe measures on the way."""
    return [
        method_module("observers", observer.name).build(observer.options, class_counts)
        for observer in recipe.observers
    ]


def _sampler(phase: PhaseSettings) -> Sampler:
    indices = method_module("samplers", phase.sampler.name).indices

    def sampler(labels: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        found: Tensor = indices(labels, generator, progress, phase.sampler.options)
        return found

    return sampler
