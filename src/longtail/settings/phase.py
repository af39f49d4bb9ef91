"""One phase of stage one."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from longtail.settings.base import Neutral, Settings
from longtail.settings.method_blocks import (
    Companions,
    Exemplars,
    Loss,
    Retention,
    Sampler,
    StepMethod,
    Transform,
)
from longtail.settings.names import EntryName
from longtail.settings.schedules import LearningRate, Length


class Bank(Settings):
    """Exemplars of the classes that a phase leaves out (Asynchronous modelling); their number is ours."""

    per_class: int = Field(20, ge=1, le=1_000_000)  # iCaRL: 2,000 in all, 20 a class of CIFAR-100
    choice: Exemplars = Field({"name": "herding"}, validate_default=True)  # which images of a class


Classes = Annotated[Literal["all", "rich", "poor"], Neutral("all")]


# What keeps its weights: the network but for its head; or but for its head and its last residual block, or
# the last stage of blocks (Decoupling's "last block" on Places-LT may mean either), or its adapters.
# features: the trunk as it was published, whose features are made once; the recipe trains the head on them.
Freeze = Literal["none", "trunk", "all_but_last_block", "all_but_last_stage", "all_but_adapters", "features"]


# Of what is frozen: train, as in Decoupling's code, takes each batch's statistics and moves the running ones.
FrozenBatchnorm = Annotated[Literal["eval", "train"], Neutral("eval")]


# What of the network a phase has for itself, begun anew with the head; the rest it shares with those before.
# Asynchronous modelling says that it splits the network, and not where [ours].
Apart = Annotated[Literal["none", "last_block", "last_stage", "all"], Neutral("none")]


class PhaseSettings(Settings):
    """One stretch of stage one; what is null is the recipe's."""

    name: EntryName  # which no other phase of the recipe has
    sampler: Sampler  # which images an epoch is made of
    schedule: Length
    learning_rate: LearningRate
    loss: Loss | None = None  # null: the recipe's
    step: Annotated[StepMethod | None, Neutral(None)] = None  # what is computed of its batches
    transforms: Annotated[list[Transform], Field(max_length=1)] | None = None  # null: the recipe's
    reset_head: bool = False  # begin with a new classifier
    apart: Apart = "none"  # what of the network it has for itself, begun anew; the rest goes on
    freeze: Freeze = "none"  # what keeps its weights
    frozen_batchnorm: FrozenBatchnorm = "eval"  # statistics of what is frozen: its own, or each batch's
    classes: Classes = "all"  # whose images it sees; rich and poor by the recipe's `rich`
    bank: Annotated[Bank | None, Neutral(None)] = None  # of the classes that it leaves out
    retention: Annotated[Retention | None, Neutral(None)] = None  # of the bank's features
    # images that are made of its training images, once, by the network of the phase before; they join them
    companions: Annotated[Companions | None, Neutral(None)] = None

    @model_validator(mode="after")
    def _something_is_frozen(self) -> "PhaseSettings":
        if self.frozen_batchnorm != "eval" and self.freeze == "none":
            raise ValueError(
                "frozen_batchnorm: train has no use where nothing is frozen; set freeze, e.g. to trunk"
            )
        return self

    @model_validator(mode="after")
    def _what_is_apart_learns(self) -> "PhaseSettings":
        learns = {
            "last_block": ("none", "all_but_last_block", "all_but_last_stage"),
            "last_stage": ("none", "all_but_last_stage"),
            "all": ("none",),
        }
        if self.apart != "none" and self.freeze not in (fitting := learns[self.apart]):
            raise ValueError(
                f"apart: {self.apart} begins anew what freeze: {self.freeze} would keep from learning; "
                f"freeze may be {' or '.join(fitting)}"
            )
        return self

    @model_validator(mode="after")
    def _bank_has_a_use(self) -> "PhaseSettings":
        if self.bank is not None and self.classes == "all":
            raise ValueError("a bank is for the classes that a phase leaves out: classes: poor, or rich")
        if self.retention is not None and self.bank is None:
            raise ValueError("retention needs a bank: what it compares are features of exemplars")
        if self.retention is not None and self.freeze == "trunk":
            raise ValueError("retention has nothing to hold where freeze: trunk keeps all features")
        if self.retention is not None and self.transforms:
            raise ValueError("retention and transforms exclude each other: a mixed image is no exemplar")
        if self.retention is not None and self.companions is not None:
            raise ValueError("retention and companions exclude each other: a made image is no exemplar")
        return self
