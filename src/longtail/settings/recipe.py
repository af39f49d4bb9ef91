"""How stage one is trained."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from longtail.settings.augmentation import Augmentation
from longtail.settings.base import Neutral, Settings
from longtail.settings.data import Pictures
from longtail.settings.frozen_features import PublishedTrunk, refusal
from longtail.settings.method_blocks import Loss, Network, Observer, Sampler, StepMethod, Transform
from longtail.settings.phase import Classes, Freeze, FrozenBatchnorm, PhaseSettings
from longtail.settings.phases import phases
from longtail.settings.rich_classes import Rich
from longtail.settings.schedules import LearningRate, Length


class Optimiser(Settings):
    """Stochastic gradient descent."""

    momentum: float = Field(0.9, ge=0, lt=1)  # of stochastic gradient descent
    weight_decay: float = Field(5e-4, ge=0)  # on all weights
    nesterov: bool = False  # Nesterov's form of momentum
    # on the rate of everything but the head; Decoupling on Places-LT: 0.1
    trunk_rate: Annotated[float, Neutral(1.0)] = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Optimiser":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: true needs a momentum above 0")
        return self


class WeightAverage(Settings):
    """A moving average of the weights, which is evaluated, written and gone on from in their place."""

    decay: float = Field(0.999, ge=0, lt=1)  # of the average, each step


Transforms = Annotated[list[Transform], Neutral([]), Field(max_length=1)]  # a batch is mixed once


class Training(Settings):
    """What the recipes of stage one share. The defaults are GLAG's for CIFAR-100-LT."""

    network: Network = Field({"name": "resnet_cifar"}, validate_default=True)  # what is trained
    sampler: Sampler = Field({"name": "instance"}, validate_default=True)  # which images an epoch is made of
    augmentation: Augmentation = Augmentation()
    transforms: Transforms = Field([])  # of batches: mixup, remix, minority_cutmix
    batch_size: int = Field(128, ge=2, le=1_000_000)  # images of a step
    # parts of a batch, each normalised by its own statistics: on so many devices, or one after the other
    # where memory holds no whole batch (gradient accumulation)
    shards: Annotated[int, Neutral(1)] = Field(1, ge=1, le=10_000)
    devices: int = Field(
        1, ge=1, le=10_000
    )  # at most, for one run; they share the shards, and change no result
    schedule: Length = Length(epochs=200)
    learning_rate: LearningRate = LearningRate(peak=0.1, warmup=5)
    optimiser: Optimiser = Optimiser()
    weight_average: Annotated[WeightAverage | None, Neutral(None)] = None  # null: the weights themselves
    progress: Literal["epoch", "step"] = "epoch"  # how often the t of gamma(t) moves
    evaluate_every: int = Field(20, ge=0, le=1_000_000)  # epochs; 0: after the last one only
    observers: Annotated[list[Observer], Neutral([])] = Field([])  # what is measured on the way: gradients

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """All keys but, in the identity, where a run is computed."""
        found = super().kept(hashed)
        if hashed:
            del found["devices"]
        return found

    @model_validator(mode="after")
    def _devices_share_the_shards(self) -> "Training":
        if self.shards % self.devices:
            raise ValueError(
                f"devices {self.devices} cannot share {self.shards} shards; e.g. shards: {self.devices}"
            )
        if self.batch_size < 2 * self.shards:
            raise ValueError(f"shards {self.shards} of a batch of {self.batch_size} leave one image to some")
        if self.observers and self.shards > 1:
            raise ValueError("observers measure the loss of a whole batch; they need shards: 1")
        return self

    @model_validator(mode="after")
    def _observers_are_told_apart(self) -> "Training":
        names = [observer.name for observer in self.observers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"observers name {', '.join(twice)} twice")
        return self


class Recipe(Training):
    """How stage one is trained: one phase, and what follows it."""

    loss: Loss  # of the first phase, and of later ones that name none
    # what is computed of the batches of a step; supervised: the loss of one batch
    step: StepMethod = Field({"name": "supervised"}, validate_default=True)
    classes: Classes = "all"  # of the first phase
    freeze: Annotated[Freeze, Neutral("none")] = "none"  # in the first phase
    frozen_batchnorm: FrozenBatchnorm = "eval"  # in the first phase
    # how the first phase's head begins: class_means, of a cosine head, as LIFT's does without texts
    head_start: Annotated[Literal["random", "class_means"], Neutral("random")] = "random"
    rich: Rich = Rich(above=100)  # data-rich classes, where a phase asks for them; the others are data-poor
    # further phases, each of which goes on with the network
    then: Annotated[list[PhaseSettings], Neutral([])] = Field([])

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """All keys but `rich` where no phase asks for it, and the step where it is the usual one.

        Version 0.1 divided what a batch shares, sums of weights and shares of mixing, shard by shard: runs
        that this concerned are others now.
        """
        found = super().kept(hashed)
        if hashed and self.shards > 1 and self._shares_over_the_batch():
            found["shared_by"] = "batch"
        if all(phase.classes == "all" for phase in self.phases):
            del found["rich"]
        if hashed and self.step.name == "supervised":
            del found["step"]
        return found

    def _shares_over_the_batch(self) -> bool:
        """Whether the parts of a batch have something in common: a divisor, or a share of mixing."""
        return any(_divides_by_weights(phase) or phase.transforms for phase in self.phases)

    def out_of_scope(self) -> str | None:
        """What is wrong with which classes the phases see, taken together; None where nothing is."""
        seen: set[str] = set()
        for phase in self.phases:
            own = {"rich", "poor"} if phase.classes == "all" else {phase.classes}
            if phase.bank and not seen - own:
                return f"the bank of phase {phase.name} is of classes that no phase before it has seen"
            seen |= own
        missing = {"rich", "poor"} - seen
        return f"no phase sees the images of data-{missing.pop()} classes" if missing else None

    def in_vain(self) -> str | None:
        """What the recipe says that would never come to be; None where there is nothing such.

        Asked of settings alone: a record of a finished run says what it says.
        """
        frozen = all(phase.freeze == "trunk" for phase in self.phases)
        adapted = bool(getattr(self.network.options, "adapters", None))
        if adapted and frozen:
            return (
                "freeze: trunk leaves adapters as they begin, without effect; take freeze: all_but_adapters"
            )
        for phase in self.phases:
            if phase.freeze == "all_but_adapters" and not adapted:
                return f"phase {phase.name}: freeze: all_but_adapters needs a network with adapters"
            if said := _never_starts(phase, self.progress):
                return f"phase {phase.name}: {said}"
        return None

    def until(self, number: int) -> "Recipe":
        """The recipe that ends with phase `number`, counted from 0."""
        return self.model_copy(update={"then": self.then[:number]})

    @property
    def learns_from_validation(self) -> bool:
        """Whether a step trains on validation images, so that these cannot judge the network."""
        steps = [phase.step.options for phase in self.phases if phase.step]
        return any(getattr(options, "learns_from_validation", False) for options in steps)

    @property
    def phases(self) -> list[PhaseSettings]:
        """All phases, with everything filled in; the first is named train."""
        return phases(self)

    @model_validator(mode="after")
    def _phases_are_told_apart(self) -> "Recipe":
        names = [phase.name for phase in self.phases]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two phases are named {', '.join(twice)}; the first phase's name is train")
        return self

    @model_validator(mode="after")
    def _retention_is_of_unmixed_images(self) -> "Recipe":
        if self.transforms and any(phase.retention and phase.transforms is None for phase in self.then):
            raise ValueError(
                "a phase with retention takes no transforms, but has the recipe's; give it transforms: []"
            )
        return self

    @model_validator(mode="after")
    def _class_means_start_a_cosine_head(self) -> "Recipe":
        if self.head_start == "class_means" and getattr(self.network.options, "head", None) != "cosine":
            raise ValueError("head_start: class_means needs a network with head: cosine")
        return self

    @model_validator(mode="after")
    def _frozen_features_have_a_plain_head(self) -> "Recipe":
        if wrong := refusal(self):
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def _steps_take_what_there_is(self) -> "Recipe":
        """A step says in `takes` what else it can do with, and by `refusal` what it cannot have."""
        for phase in self.phases:
            assert phase.step is not None
            takes = getattr(phase.step.options, "takes", ())
            asked = {
                "shards": self.shards > 1,
                "observers": bool(self.observers),
                "transforms": bool(phase.transforms),
                "freeze": phase.freeze != "none",
                "classes": any(other.classes != "all" for other in self.phases),
                "retention": phase.retention is not None,
            }
            if wrong := [key for key, is_asked in asked.items() if is_asked and key not in takes]:
                raise ValueError(f"step {phase.step.name} (phase {phase.name}) takes no {wrong[0]}")
            for key, method in (("step", phase.step), ("companions", phase.companions)):
                refusal = getattr(method.options, "refusal", None) if method else None
                if method and refusal and (said := refusal(self)):
                    raise ValueError(f"{key} {method.name} (phase {phase.name}): {said}")
        return self

    @model_validator(mode="after")
    def _shards_share_what_one_loss_divides_by(self) -> "Recipe":
        """Shards share a divisor of weights over one batch; of a second one, or of pasted labels, none."""
        for phase in self.phases if self.shards > 1 else ():
            assert phase.step is not None
            pasting = [one.name for one in phase.transforms or () if getattr(one.options, "pastes", False)]
            knows = getattr(phase.step.options, "shares_weights", False)
            for wrong in [*([] if knows else [f"step {phase.step.name}"]), *pasting]:
                if _divides_by_weights(phase):
                    raise ValueError(f"{wrong}: shards share no loss that divides by weights; set shards: 1")
        return self

    @model_validator(mode="after")
    def _the_rate_gets_where_it_says(self) -> "Recipe":
        """What lies behind the end would never come to be, nor a start without warm-up."""
        for phase in self.phases:
            if wrong := phase.learning_rate.in_vain(phase.schedule):
                raise ValueError(f"learning_rate of phase {phase.name}: {wrong}")
        return self

    @model_validator(mode="after")
    def _a_scale_is_of_a_cosine_head(self) -> "Recipe":
        network = self.network.options
        usual = type(network).model_fields.get("scale")
        if usual and getattr(network, "head", None) != "cosine" and network.scale != usual.default:  # type: ignore[attr-defined]
            raise ValueError(f"network {self.network.name}: scale is of a cosine head; set head: cosine")
        return self

    @model_validator(mode="after")
    def _losses_fit_the_head(self) -> "Recipe":
        """A loss with a scale is one of scaled cosines, as a cosine head of that scale makes them."""
        network = self.network.options
        scale = getattr(network, "scale", None) if getattr(network, "head", None) == "cosine" else None
        for loss in (phase.loss for phase in self.phases if phase.loss):
            wanted = getattr(loss.options, "scale", None)
            if wanted not in (None, scale):
                raise ValueError(
                    f"loss {loss.name} with scale {wanted:g} needs a network with "
                    f"head: cosine, scale: {wanted:g}"
                )
        return self


def _never_starts(phase: PhaseSettings, progress: str) -> str | None:
    """Which `start` of a loss or a step no epoch of a phase gets to; 1 says never, and may."""
    if phase.schedule.epochs is None or progress != "epoch":
        return None
    epochs = phase.schedule.epochs
    last = (epochs - 1) / epochs
    for kind, method in (("loss", phase.loss), ("step", phase.step)):
        if method is None:
            continue
        for options in (method.options, getattr(method.options, "reweight", None)):
            start = getattr(options, "start", 0.0)
            if last < start < 1:
                return (
                    f"start {start:g} of {kind} {method.name} is never reached: the last of {epochs} "
                    f"epochs begins at {last:.4g}; set a smaller one, or progress: step"
                )
    return None


def _divides_by_weights(phase: PhaseSettings) -> bool:
    """Whether the loss of a phase divides its sum over images by something else than their number."""
    loss = phase.loss.options if phase.loss else None
    return getattr(loss, "average", "") == "weights" or getattr(loss, "reweight", None) is not None


class StageOneSettings(Settings):
    """Everything that stage one reads."""

    dataset: str
    images: Annotated[Pictures | None, Neutral(None)] = None  # of picture files
    recipe: Recipe | PublishedTrunk  # or no recipe: a trunk as it was published, which nothing trains
    seed: int = Field(ge=0)
    precision: Literal["auto", "bf16", "float32"] = "auto"
