"""Quantities that change during training: the strength gamma(t) of the loss, and the learning rate.

Imports no torch, so that params.yaml can be read without it; a schedule of gamma works on 0-d tensors
and on numbers alike.
"""

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from longtail.settings.base import Settings

if TYPE_CHECKING:
    from torch import Tensor

COMPUTES = True  # hashed with the runs that it computes (longtail.runs.code_identity)


class Constant(Settings):
    """gamma(t) = a: 0 is cross-entropy, 1 Balanced Softmax, anything else logit adjustment with tau = a."""

    form: Literal["constant"] = "constant"
    a: float = Field(ge=0)  # the strength throughout

    def __call__(self, progress: "Tensor") -> "Tensor":
        """Strength at progress, a 0-d tensor in [0, 1]; 0-d."""
        return progress * 0 + self.a


class Power(Settings):
    """gamma(t) = a t^b (GLAG eq. 4, our reading): concave for b < 1, linear for 1, convex for b > 1."""

    form: Literal["power"] = "power"
    a: float = Field(1.0, ge=0)  # the strength at the end
    b: float = Field(2.0, gt=0)  # below 1 concave, 1 linear, above 1 convex

    def __call__(self, progress: "Tensor") -> "Tensor":
        """Strength at progress, a 0-d tensor in [0, 1]; 0-d."""
        return self.a * progress**self.b


class Exponential(Settings):
    """gamma(t) = a (e^(bt) - 1) / (e^b - 1): convex for b > 0, concave for b < 0."""

    form: Literal["exponential"]
    a: float = Field(1.0, ge=0)  # the strength at the end
    b: float = Field(2.0, ge=-80, le=80)  # what float32 can raise e to

    def __call__(self, progress: "Tensor") -> "Tensor":
        """Strength at progress, a 0-d tensor in [0, 1]; 0-d. Linear in the limit b = 0."""
        if self.b == 0:
            return self.a * progress
        return self.a * (progress * self.b).expm1() / math.expm1(self.b)


class Cosine(Settings):
    """gamma(t) = a (1 - cos(pi t / 2)): convex, with a horizontal start."""

    form: Literal["cosine"]
    a: float = Field(1.0, ge=0)  # the strength at the end

    def __call__(self, progress: "Tensor") -> "Tensor":
        """Strength at progress, a 0-d tensor in [0, 1]; 0-d."""
        return self.a * (1 - (progress * (math.pi / 2)).cos())


def _form(value: Any) -> str:
    return str(value.get("form", "power") if isinstance(value, dict) else getattr(value, "form", "power"))


Gamma = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Power, Tag("power")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[Cosine, Tag("cosine")],
    Discriminator(_form),
]


class Length(Settings):
    """How long a phase trains: a number of epochs or of iterations (steps), one of the two."""

    epochs: int | None = Field(None, ge=1, le=1_000_000)  # or iterations, one of the two
    iterations: int | None = Field(None, ge=1, le=1_000_000_000)  # steps of the optimiser

    def model_post_init(self, _: Any) -> None:
        """Exactly one of the two is given."""
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("give epochs or iterations, one of the two, e.g. {epochs: 200}")

    @property
    def words(self) -> str:
        """As a table says it, e.g. "200 epochs"."""
        return f"{self.epochs} epochs" if self.epochs else f"{self.iterations} iterations"

    def steps(self, steps_per_epoch: int) -> int:
        """Number of steps in all."""
        return self.iterations if self.iterations is not None else (self.epochs or 0) * steps_per_epoch

    def in_steps(self, amount: float, steps_per_epoch: int) -> float:
        """An amount in this length's own unit (epochs or iterations) as steps."""
        return amount if self.iterations is not None else amount * steps_per_epoch


class CosineDecay(Settings):
    """Half a cosine from the peak to zero (Loshchilov and Hutter 2017) over what follows the warm-up."""

    form: Literal["cosine"] = "cosine"


class StepDecay(Settings):
    """The peak times a factor from each milestone on; milestones in the unit of what decays."""

    form: Literal["step"]
    at: list[float] = Field(min_length=1)  # milestones in ascending order
    # on the peak, one from each milestone on
    factors: list[Annotated[float, Field(ge=0)]] = Field(min_length=1)

    def model_post_init(self, _: Any) -> None:
        """One factor a milestone, milestones in order."""
        if len(self.at) != len(self.factors) or sorted(self.at) != self.at:
            raise ValueError("at and factors need one factor a milestone, milestones in ascending order")


class LearningRate(Settings):
    """Linear warm-up from `start` to `peak` over `warmup` (in the schedule's unit), then decay."""

    peak: float = Field(gt=0)  # the largest rate
    start: float = Field(0.0, ge=0)  # where the warm-up begins
    warmup: float = Field(0, ge=0)  # in the unit of the schedule
    decay: CosineDecay | StepDecay = Field(CosineDecay(), discriminator="form")  # what follows the warm-up

    def in_vain(self, length: Length) -> str | None:
        """What would have no effect in so long a training; None where everything has one."""
        end = length.epochs or length.iterations or 0
        if self.warmup > end:
            return f"warmup {self.warmup:g} is longer than the schedule, {length.words}"
        if self.start and not self.warmup:
            return f"start {self.start:g} is where a warm-up begins; set warmup, or leave start out"
        if isinstance(self.decay, StepDecay) and self.decay.at[-1] >= end:
            return f"decay at {self.decay.at[-1]:g} is not before the end of the schedule, {length.words}"
        return None

    def at(self, step: int, length: Length, steps_per_epoch: int) -> float:
        """Learning rate of a step, counted from 0."""
        total = length.steps(steps_per_epoch)
        warmup = length.in_steps(self.warmup, steps_per_epoch)
        if step < warmup:
            return self.start + (self.peak - self.start) * (step + 1) / warmup
        if isinstance(self.decay, StepDecay):
            factor = 1.0
            for milestone, value in zip(self.decay.at, self.decay.factors, strict=True):
                if step >= length.in_steps(milestone, steps_per_epoch):
                    factor = value
            return self.peak * factor
        return self.peak * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup))) / 2
