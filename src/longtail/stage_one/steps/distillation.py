"""Distillation from finished runs: SSD's third stage (Li et al. 2021), and DiVE (He et al. 2021)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from longtail.settings.base import Neutral
from longtail.settings.base import Settings as BaseSettings
from longtail.settings.finished_runs import RunsOf
from longtail.settings.methods import method_module
from longtail.stage_one.batch import Batch
from longtail.stage_one.step import Outcome, Step
from longtail.stage_one.step_context import StepContext
from longtail.stage_one.steps.supervised import labelled_loss
from longtail.stage_one.teacher import Teacher


class Settings(BaseSettings):
    """Whose answers are learnt beside the labels, and how; the defaults are SSD's."""

    takes: ClassVar = ("shards", "transforms")

    teacher: RunsOf  # several (seeds: all, or a list) answer with the mean of their probabilities
    heads: Literal["two", "one"] = "two"  # a classifier each for labels and teacher [paper]; one: for both
    temperature: float = Field(2.0, gt=0)  # [code]
    power: float = Field(1.0, gt=0)  # of the teacher's probabilities, which then sum to one; DiVE 0.5
    labels: float = Field(1.0, ge=0)  # weight of the recipe's loss [code]; DiVE 0.5
    answers: float = Field(1.0, ge=0)  # weight of temperature^2 KL [code]; DiVE 0.5
    # statistics by which teachers normalise: eval, their own; train, those of each batch, as SSD's code
    teacher_batchnorm: Annotated[Literal["eval", "train"], Neutral("eval")] = "eval"
    # own: initial weights, order and augmentation of other random numbers than a teacher's of the same seed.
    # shared: those of the run's seed, so that a student may begin as its teacher did and see its batches
    chance: Annotated[Literal["own", "shared"], Neutral("shared")] = "own"  # [ours]


class Distilled(Step):
    """labels L(z, y) + answers T^2 KL(q || softmax(z_soft / T)), q ~ mean(softmax(z_teacher / T))^power.

    KL is a sum over classes and a mean over images. With two heads z is of a head that is trained and left
    out of the model, and z_soft of the network's own: the one that is evaluated. Teachers see the images that
    the network sees, and never change; with `teacher_batchnorm: train` their running statistics move, which
    nothing reads.

    Args:
        teachers: networks from normalised images to logits (B, C).
        settings: weights and temperature.
        hard: the head for labels; None with one head.
    """

    cast_together = True

    def __init__(self, teachers: Sequence[Teacher], settings: Settings, hard: nn.Module | None) -> None:
        self._teachers, self._settings, self._hard = teachers, settings, hard
        if settings.teacher_batchnorm == "train":
            for layer in (layer for teacher in teachers for layer in teacher.modules()):
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.train()

    def modules(self) -> Mapping[str, nn.Module]:
        """The head for labels, where there are two."""
        return {} if self._hard is None else {"hard": self._hard}

    def answers(self, images: Tensor) -> Tensor:
        """What the teachers say of normalised images: q (B, C)."""
        settings = self._settings
        with torch.no_grad():
            each = [(teacher(images) / settings.temperature).softmax(1) for teacher in self._teachers]
            shares = torch.stack(each).mean(0) ** settings.power
            return shares / shares.sum(1, keepdim=True)

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """The loss of the one batch; right is what the network's own head says of it."""
        (batch,) = batches
        settings, network = self._settings, modules["network"]
        features = network.features(batch.images)  # type: ignore[operator]
        soft = network.get_submodule("head")(features).float()
        hard = modules["hard"](features).float() if "hard" in modules else soft
        value = settings.labels * labelled_loss(modules["loss"], hard, batch, progress)
        guessed = (soft / settings.temperature).log_softmax(1)
        divergence = F.kl_div(guessed, self.answers(batch.images), reduction="batchmean")
        value = value + settings.answers * settings.temperature**2 * divergence
        return Outcome(value, (soft.detach().argmax(dim=1) == batch.labels).sum())


def build(settings: Settings, context: StepContext) -> Distilled:
    """The step with its teachers."""
    recipe, classes = context.recipe, len(context.class_counts)

    def head() -> nn.Module:
        network: nn.Module = method_module("networks", recipe.network.name).build(
            recipe.network.options, context.training.images.shape[1], classes
        )
        return network.get_submodule("head")

    hard = context.seeded(head, "hard") if settings.heads == "two" else None
    return Distilled(context.teachers("teacher"), settings, hard)
