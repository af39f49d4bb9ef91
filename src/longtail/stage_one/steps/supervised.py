"""The step of every recipe that says nothing else: one network, one loss, one batch."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from longtail.settings.base import Settings as BaseSettings
from longtail.settings.methods import method_module
from longtail.settings.phase import Freeze
from longtail.stage_one.batch import Batch
from longtail.stage_one.freezing import learning
from longtail.stage_one.step import Outcome, Step
from longtail.stage_one.step_context import StepContext


class Settings(BaseSettings):
    """Nothing to set."""

    takes: ClassVar = ("shards", "transforms", "freeze", "classes", "retention", "observers")
    shares_weights: ClassVar = True  # shards of a loss that divides by weights (`divisor`)


class Supervised(Step):
    """loss(network(images), labels), and what holds features to what they were, where a phase has that.

    Its modules are `network`, `loss` and, with `exemplars`, `before`, the network as the phase found it, and
    `retention`, which compares the features that the two make of the same images.

    Args:
        frozen: what of the network is in evaluation mode, its batch normalisation as it was; "none" where
            the mode is the same for all.
        seen: classes (C,) that training has had images of until now, bool; the loss is over these. None: all.
        exemplars: classes (C,) whose images in a batch are exemplars, bool; None: nothing is retained.
        retaining: `before` and `retention`, with exemplars.
    """

    cast_together = True

    def __init__(
        self,
        frozen: Freeze = "none",
        seen: Tensor | None = None,
        exemplars: Tensor | None = None,
        retaining: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self._frozen, self._exemplars, self._retaining = frozen, exemplars, retaining or {}
        self._classes = None if seen is None else seen.nonzero().flatten()
        self._position = None if seen is None else seen.cumsum(0) - 1

    def modules(self) -> Mapping[str, nn.Module]:
        """What retention needs, where a phase has it."""
        return self._retaining

    def divisor(self, modules: nn.ModuleDict, labels: Sequence[Tensor], progress: Tensor) -> Tensor | None:
        """What the loss divides the sum over the one batch's images by, from its method `divisor`, if any."""
        of: Callable[[Tensor, Tensor], Tensor | None] | None = getattr(modules["loss"], "divisor", None)
        if of is None:
            return None
        own = labels[0]
        return of(own if self._position is None else self._position[own], progress)

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """The loss of the one batch."""
        (batch,) = batches
        network, loss = modules["network"], modules["loss"]
        if self._frozen != "none":
            network.eval()
            for part in learning(network, self._frozen):
                part.train()
        if self._exemplars is None:
            logits = network(batch.images).float()
        else:
            features = network.features(batch.images)  # type: ignore[operator]
            logits = network.get_submodule("head")(features).float()
        labels, others = batch.labels, batch.others
        if self._classes is not None and self._position is not None:
            logits = logits.index_select(1, self._classes)
            labels = self._position[labels]
            others = None if others is None else self._position[others]
        value = labelled_loss(loss, logits, batch._replace(labels=labels, others=others), progress)
        if self._exemplars is not None:
            # each step: an epoch begins with train() of all modules
            modules["before"].train(modules["retention"].settings.batchnorm == "train")  # type: ignore[union-attr]
            with torch.no_grad():
                before = modules["before"].features(batch.images)  # type: ignore[operator]
            value = value + modules["retention"](before, features, self._exemplars[batch.labels], progress)
        return Outcome(value, (logits.detach().argmax(dim=1) == labels).sum())


def labelled_loss(loss: nn.Module, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
    """The loss of logits (B, C) against the labels of a batch, which a transform may have mixed."""
    if batch.others is None or batch.weight is None:
        value: Tensor = loss(logits, batch.labels, progress)
        return value
    value = loss(logits, batch.labels, progress, batch.weight)
    value = value + loss(logits, batch.others, progress, 1 - batch.weight)
    return value


def build(settings: Settings, context: StepContext) -> Supervised:
    """The step of a phase."""
    phase, classes = context.phase, context.classes
    retaining: dict[str, nn.Module] = {}
    if phase.retention:
        retaining["before"] = copy.deepcopy(context.network).requires_grad_(False)
        retaining["retention"] = method_module("retention", phase.retention.name).build(
            phase.retention.options
        )
    return Supervised(
        frozen=phase.freeze if phase.frozen_batchnorm == "eval" else "none",
        seen=None if bool(classes.seen.all()) else classes.seen.to(context.device),
        exemplars=classes.left_out.to(context.device) if phase.retention else None,
        retaining=retaining,
    )
