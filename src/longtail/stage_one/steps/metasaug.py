"""MetaSAug with LDAM (Li et al. 2021): features are moved along their class's covariance, which is learnt."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call

from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import StepDecay
from longtail.stage_one.batch import Batch
from longtail.stage_one.losses.ldam import LDAMLoss, ReweightSettings
from longtail.stage_one.losses.ldam import Settings as MarginSettings
from longtail.stage_one.samplers import instance
from longtail.stage_one.step import Outcome, Step, Stream
from longtail.stage_one.step_context import StepContext

if TYPE_CHECKING:
    from longtail.settings.recipe import Recipe


class Settings(BaseSettings):
    """How much features are moved, and whether validation images say how."""

    takes: ClassVar = ()

    start: float = Field(
        0.8, ge=0, lt=1
    )  # share of the phase with the recipe's own loss [code]: epoch 160 of 200
    strength: float = Field(0.75, ge=0)  # lambda [code], of 0.25, 0.5, 0.75, 1; it grows as strength * t
    max_margin: float = Field(0.5, ge=0)  # of the rarest class [code]; LDAM's margins without its scale
    beta: float = Field(0.9999, ge=0, lt=1)  # of the class weights, by effective numbers [code]
    meta: Literal["on", "off"] = (
        "on"  # off: covariances as they are estimated, and no image beside the training's
    )
    meta_images: int = Field(
        10, ge=1, le=1_000_000
    )  # validation images a class of the meta step, or all it has [code]
    meta_rate: float = Field(0.1, ge=0)  # of the covariances [code]
    inner_rate: float = Field(0.1, ge=0)  # of the network's copy in the meta step [code], times
    # these factors from these shares of the phase on [code]
    inner_decay: StepDecay = StepDecay(form="step", at=[0.8, 0.9], factors=[0.01, 0.0001])

    @property
    def learns_from_validation(self) -> bool:
        """Whether validation images train the network, so that they cannot judge it."""
        return self.meta == "on"

    @field_validator("inner_decay")
    @classmethod
    def _of_shares(cls, decay: StepDecay) -> StepDecay:
        if decay.at[-1] > 1:
            raise ValueError(f"at {decay.at[-1]:g} is no share of the phase; the shares are between 0 and 1")
        return decay

    def refusal(self, recipe: "Recipe") -> str | None:
        """What of a recipe the step cannot have; None where there is nothing such."""
        if getattr(recipe.network.options, "head", "linear") != "linear":
            return "takes a network with a linear head; set head: linear"
        return None


class ClassStatistics(nn.Module):
    """Running mean and covariance of the features of each class, over all batches that it was told.

    The covariance is that of all features told (divided by their number), whatever the batches were.

    Attributes:
        count: features told, (C,).
        mean, covariance: (C, d) and (C, d, d); 0 of a class that has had none.
    """

    count: Tensor
    mean: Tensor
    covariance: Tensor

    def __init__(self, classes: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(classes))
        self.register_buffer("mean", torch.zeros(classes, dimensions))
        self.register_buffer("covariance", torch.zeros(classes, dimensions, dimensions))

    @torch.no_grad()
    def tell(self, features: Tensor, labels: Tensor) -> None:
        """Features (B, d) of classes (B,).

        With w = m / (m + k) of m features now and k before, u and B their mean and covariance:
        S <- (1 - w) S + w B + w (1 - w) (mu - u)(mu - u)^T,  mu <- (1 - w) mu + w u.
        """
        features = features.to(self.mean.dtype)
        classes = torch.arange(len(self.count), device=labels.device)
        own = (labels == classes[:, None]).to(features.dtype)  # (C, B)
        now = own.sum(1)
        some = now.clamp_min(1)
        mean = own @ features / some[:, None]
        apart = features - mean[labels]
        squares = (apart.unsqueeze(2) * apart.unsqueeze(1)).flatten(1)  # (B, d d)
        spread = (own @ squares / some[:, None]).view_as(self.covariance)
        weight = now / (now + self.count).clamp_min(1)
        away = self.mean - mean
        between = away.unsqueeze(2) * away.unsqueeze(1)
        w = weight[:, None, None]
        self.covariance.mul_(1 - w).add_(w * spread).add_(w * (1 - w) * between)
        self.mean.lerp_(mean, weight[:, None])
        self.count.add_(now)


def semantic_shift(
    weight: Tensor, labels: Tensor, covariance: Tensor, strength: Tensor, other: Tensor | None = None
) -> Tensor:
    """q_ij = strength / 2 (w_j - w_y)^T S_y (v_j - v_y) with y = labels_i and v = w, (B, C).

    The expected growth of the logits, against that of the own class, of features that are moved at random
    with covariance strength S_y. One table of C rows, a row a class, or of B where these are fewer.

    Args:
        weight: w (C, d).
        labels: (B,).
        covariance: S (C, d, d), symmetric.
        strength: 0-d.
        other: v (C, d), where it is not w.
    """
    by_class = len(weight) <= len(labels)

    def apart(vectors: Tensor) -> Tensor:  # (rows, C, d)
        vectors = vectors.to(covariance.dtype)
        return vectors - (vectors if by_class else vectors[labels]).unsqueeze(1)

    spread = covariance if by_class else covariance[labels]
    # in bfloat16 its rounding would be a hundred times what the meta step changes
    with torch.autocast(weight.device.type, enabled=False):
        first = apart(weight)
        table = strength / 2 * ((first @ spread) * (first if other is None else apart(other))).sum(2)
    return table[labels] if by_class else table


class MetaSAug(Step):
    """The recipe's loss; from `start` on Li et al. 2021, section 3, with margins m_c and class weights:

        Z_ij = z_ij + q_ij - [j = y_i] m_{y_i},   L(theta, S) = weighted mean of CE(Z, y)
        theta' = theta - eta grad L(theta, S)
        S' = S - meta_rate d/dS CE(network theta'(meta images), their classes)

    and the step is one down L(theta, S'). S' is not kept; S takes in the features of the batch.

    The derivative by S is exact, though no second derivative of the network is taken. With v the gradient of
    the meta loss by theta' it is -eta d/dS of the derivative of L along v, which needs the derivative of the
    logits along v and no other: one pass of forward-mode differentiation.

    Args:
        settings: as they are.
        loss: L of Z without margins.
        statistics: S.
        meta: the images of the meta step; None without it.
    """

    def __init__(
        self, settings: Settings, loss: LDAMLoss, statistics: ClassStatistics, meta: Stream | None
    ) -> None:
        self._settings, self._loss, self._statistics, self._meta = settings, loss, statistics, meta
        self._late = False
        self._told: tuple[Tensor, Tensor] | None = None  # features and labels of the batch

    def modules(self) -> Mapping[str, nn.Module]:
        """Margins and class weights, and the statistics of features."""
        return {"margins": self._loss, "statistics": self._statistics}

    def streams(self, own: Stream) -> Sequence[Stream]:
        """The recipe's, and from `start` on the meta images."""
        return [own] if self._meta is None else [own, self._meta]

    def turn(self, progress: float) -> Hashable:
        """Whether it has started."""
        self._late = progress >= self._settings.start
        return self._late

    def shift(self, weight: Tensor, covariance: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """q (B, C) by head weights (C, d) and S (C, d, d)."""
        return semantic_shift(weight, batch.labels, covariance, self._settings.strength * progress)

    def loss(
        self, logits: Tensor, weight: Tensor, covariance: Tensor, batch: Batch, progress: Tensor
    ) -> Tensor:
        """L of logits z (B, C), head weights (C, d) and S (C, d, d), 0-d."""
        shifted = logits + self.shift(weight, covariance, batch, progress)
        value: Tensor = self._loss(shifted, batch.labels, progress)
        return value

    def inner_rate(self, progress: Tensor) -> Tensor:
        """Eta at a progress, 0-d."""
        decay, factor = self._settings.inner_decay, torch.ones_like(progress)
        for start, now in zip(decay.at, decay.factors, strict=True):
            factor = torch.where(progress >= start, now, factor)
        return self._settings.inner_rate * factor

    def covariance_gradient(
        self, modules: nn.ModuleDict, logits: Tensor, batch: Batch, meta: Batch, progress: Tensor
    ) -> Tensor:
        """The derivative of the meta loss by S, (C, d, d); running statistics of the network stay.

        Args:
            modules: of the training.
            logits: z of the batch (B, C), with their graph, which stays.
            batch, meta: images and labels.
            progress: 0-d.
        """
        network, S = modules["network"], self._statistics.covariance  # noqa: N806
        names, parameters = zip(*network.named_parameters(), strict=True)
        head = network.get_submodule("head").get_parameter("weight")
        eta = self.inner_rate(progress)

        def statistics() -> dict[str, Tensor]:  # which a pass may move
            return {name: buffer.clone() for name, buffer in network.named_buffers()}

        value = self.loss(logits, head, S, batch, progress)
        slope = torch.autograd.grad(value, parameters, retain_graph=True)
        moved = [(p.detach() - eta * g).requires_grad_() for p, g in zip(parameters, slope, strict=True)]
        state = dict(zip(names, moved, strict=True)) | statistics()
        answers = functional_call(network, state, (meta.images,)).float()
        along = torch.autograd.grad(F.cross_entropy(answers, meta.labels), moved)
        with torch.no_grad(), forward_ad.dual_level():
            state = {
                name: forward_ad.make_dual(p.detach(), v)  # type: ignore[no-untyped-call]
                for name, p, v in zip(names, parameters, along, strict=True)
            }
            dual = functional_call(network, state | statistics(), (batch.images,)).float()
            # of z along v
            change = forward_ad.unpack_dual(dual).tangent  # type: ignore[no-untyped-call]
        return -eta * self.mixed_derivative(
            logits.detach(), change, head.detach(), along[names.index("head.weight")], batch, progress
        )

    def mixed_derivative(
        self,
        logits: Tensor,
        change: Tensor,
        weight: Tensor,
        weight_change: Tensor,
        batch: Batch,
        progress: Tensor,
    ) -> Tensor:
        """d/dS of the sum over images and classes of dL/dZ times the change of Z = z + q, (C, d, d).

        Args:
            logits, change: z (B, C), and how it changes along a direction of the network's parameters.
            weight, weight_change: of the head (C, d), the same.
            batch: its labels.
            progress: 0-d.
        """
        S = self._statistics.covariance.detach().clone().requires_grad_()  # noqa: N806
        strength = self._settings.strength * progress
        shifted = logits + self.shift(weight, S, batch, progress)
        (slope,) = torch.autograd.grad(
            self._loss(shifted, batch.labels, progress), shifted, create_graph=True
        )
        for one, other in ((weight, weight_change), (weight_change, weight)):
            change = change + semantic_shift(one, batch.labels, S, strength, other)
        (found,) = torch.autograd.grad((slope * change).sum(), S)
        return found

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """The loss of a batch, which the meta images may have moved."""
        batch, network = batches[0], modules["network"]
        features = network.features(batch.images)  # type: ignore[operator]
        head = network.get_submodule("head")
        logits = head(features).float()
        if self._late:
            covariance = self._statistics.covariance
            if self._meta is not None:
                slope = self.covariance_gradient(modules, logits, batch, batches[1], progress)
                covariance = covariance - self._settings.meta_rate * slope
            value = self.loss(logits, head.get_parameter("weight"), covariance, batch, progress)
            self._told = features.detach(), batch.labels
        else:
            value = modules["loss"](logits, batch.labels, progress)
        return Outcome(value, (logits.detach().argmax(dim=1) == batch.labels).sum())

    def after(self, modules: nn.ModuleDict) -> None:
        """The statistics take in the features of the batch."""
        if self._late:
            assert self._told is not None
            self._statistics.tell(*self._told)


def balanced(labels: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Indices of a random choice of so many images of each class (N,), or of all where it has fewer."""
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]
    counts = labels.bincount()
    first = (counts.cumsum(0) - counts)[labels[order]]
    return order[torch.arange(len(order)) - first < most]


def build(settings: Settings, context: StepContext) -> MetaSAug:
    """The step of a network with a linear head.

    Raises:
        ValueError: if a class has no training image, or there is no image for meta that is none of the test.
    """
    classes, dimensions = context.network.get_submodule("head").get_parameter("weight").shape
    margins = MarginSettings(
        max_margin=settings.max_margin,
        scale=1.0,
        reweight=ReweightSettings(beta=settings.beta, start=0.0),
    )
    meta = None
    if settings.meta == "on":
        part = context.parts["validation"]
        if part.same_images_as(context.parts["test"]):
            raise ValueError(
                "meta: on learns from validation images, here those of the test; "
                "set validation: unused or holdout, or meta: off"
            )
        chosen = balanced(part.labels, settings.meta_images, context.generator("meta"))
        if not len(chosen):
            raise ValueError("meta: on needs validation images, and there are none; set meta: off")

        def shuffled(labels: Tensor, generator: torch.Generator, progress: float) -> Tensor:
            return instance.indices(labels, generator, progress, instance.Settings())

        images = part[chosen].images.to(context.device)
        meta = Stream(sampler=shuffled, images=images, labels=part.labels[chosen], start=settings.start)
        _load_forward_mode()
    statistics = ClassStatistics(classes, dimensions).to(context.device)
    loss = LDAMLoss(margins, context.class_counts).to(context.device)
    return MetaSAug(settings, loss, statistics, meta)


def _load_forward_mode() -> None:
    """Forward-mode differentiation for the first time loads code of torch's that warns of torch's own use."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))  # type: ignore[no-untyped-call]
