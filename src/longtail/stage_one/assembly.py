"""A recipe's modules and its last phase, made for the training loop."""

from collections.abc import Callable, Sequence
from typing import Any

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
from longtail.settings.recipe import Recipe
from longtail.stage_one.freezing import begun_anew, learning
from longtail.stage_one.moving_average import update_average
from longtail.stage_one.phase import Observer, Pasting, Phase
from longtail.stage_one.phase_classes import PhaseClasses
from longtail.stage_one.step import Step, Stream
from longtail.stage_one.step_context import StepContext, sampler_of, seeded


def seed_of(phase: PhaseSettings, run: int) -> int:
    """The seed of a phase's random numbers: the run's, or one of its own where the step has `chance: own`."""
    assert phase.step is not None
    own = getattr(phase.step.options, "chance", "shared") == "own"
    return generator(run, phase.step.name).initial_seed() if own else run


def make_loss(phase: PhaseSettings, class_counts: Tensor) -> nn.Module:
    """The loss over the classes seen so far, of these counts."""
    assert phase.loss is not None
    try:
        loss: nn.Module = method_module("losses", phase.loss.name).build(phase.loss.options, class_counts)
    except ValueError as error:
        raise UserError(f"loss {phase.loss.name}: {error}") from None
    return loss


def make_network(recipe: Recipe | PublishedTrunk, channels: int, classes: int, *key: str | int) -> nn.Module:
    """A fresh network, its weights from the generator of a key."""

    def make() -> nn.Module:
        network: nn.Module = method_module("networks", recipe.network.name).build(
            recipe.network.options, channels, classes
        )
        return network

    return seeded(make, *key)


def make_step(context: StepContext) -> Step:
    """What a step of the phase computes."""
    method = context.phase.step
    assert method is not None
    try:
        step: Step = method_module("steps", method.name).build(method.options, context)
    except ValueError as error:
        raise UserError(f"step {method.name}: {error}") from None
    return step


def with_companions(context: StepContext) -> Part:
    """The training images of the phase, and behind them those that its `companions` make of them, if any.

    Their network is the phase's as it begins, so a training that goes on makes the same images again.

    Raises:
        UserError: if they cannot be made by this network.
    """
    own, method = context.training, context.phase.companions
    if method is None:
        return own
    context.network.eval()
    try:
        made: Part = method_module("companions", method.name).make(method.options, context)
    except ValueError as error:
        raise UserError(f"companions {method.name}: {error}") from None
    assert isinstance(own.images, Tensor)  # settings of picture files are refused when they are read
    assert isinstance(made.images, Tensor)
    return Part(
        torch.cat([own.images, made.images]),
        torch.cat([own.labels, made.labels]),
        torch.cat([own.samples, made.samples]),
    )


def make_phase(
    recipe: Recipe,
    seed: int,
    training: Part,
    images_per_epoch: int,
    class_counts: Tensor,
    observers: Sequence[Observer],
    phase_classes: PhaseClasses,
    prepare: Callable[[Tensor], Tensor],
    where: torch.device,
    step: Step,
) -> Phase:
    """The last phase of a recipe, on the device; its companions are the last of the training images."""
    phase = phases(recipe)[-1]
    images = training.images.to(where)
    new = phase_classes.new.to(where)

    def begin(modules: nn.ModuleDict, fresh: bool) -> None:
        network = modules["network"]
        head = network.get_submodule("head")
        network.requires_grad_(False)
        for part in learning(network, phase.freeze):
            part.requires_grad_(True)
        rows = torch.ones_like(new) if phase.reset_head else new
        if fresh and recipe.then and rows.any():
            other = make_network(recipe, images.shape[1], len(class_counts), seed, "head", phase.name)
            for name, tensor in other.get_submodule("head").state_dict().items():  # a row a class
                head.state_dict()[name][rows] = tensor.to(where)[rows]
        if fresh and phase.apart != "none":
            other = make_network(recipe, images.shape[1], len(class_counts), seed, "apart", phase.name)
            parts = zip(begun_anew(network, phase.apart), begun_anew(other, phase.apart), strict=True)
            for part, new_part in parts:
                part.load_state_dict(new_part.state_dict())

    transforms: list[Any] = [
        method_module("transforms", transform.name).build(transform.options, class_counts.to(where))
        for transform in phase.transforms or []
    ]
    # a transform that has a sampler puts images of a stream of its own into those of the phase
    pasting: list[Pasting] = [transform for transform in transforms if hasattr(transform, "sampler")]

    def rate_factor(name: str) -> float:
        in_trunk = name.startswith("network.") and not name.startswith("network.head.")
        return recipe.optimiser.trunk_rate if in_trunk else 1.0

    return Phase(
        name=phase.name,
        images=images,
        labels=training.labels,
        own=images_per_epoch,
        streams=[
            *step.streams(Stream(sampler=sampler_of(phase.sampler))),
            *(Stream(sampler=transform.sampler) for transform in pasting),
        ],
        augment=lambda images, generator: augment(images, recipe.augmentation, generator),
        normalise=prepare,
        transforms=[transform for transform in transforms if transform not in pasting],
        pasting=pasting[0] if pasting else None,
        step=step,
        batch_size=recipe.batch_size,
        length=phase.schedule,
        learning_rate=phase.learning_rate,
        optimiser=recipe.optimiser,
        rate_factor=rate_factor,
        progress=recipe.progress,
        begin=begin,
        after=update_average if recipe.weight_average else None,
        observers=observers,
        shards=recipe.shards,
    )


def make_observers(recipe: Recipe, class_counts: Tensor) -> list[Observer]:
    """What a recipe measures on the way."""
    return [
        method_module("observers", observer.name).build(observer.options, class_counts)
        for observer in recipe.observers
    ]
