"""Labels and self-supervision together: the first stage of SSD (Li et al. 2021)."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from longtail.data.contrastive_view import ContrastiveView
from longtail.settings.augmentation import Jitter
from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.batch import Batch
from longtail.stage_one.step import Augment, Outcome, Step, Stream
from longtail.stage_one.step_context import StepContext

if TYPE_CHECKING:
    from longtail.settings.recipe import Recipe


class KeyView(BaseSettings):
    """How the image behind a key is augmented: MoCo-v2's numbers [code], without blur [ours]."""

    smallest: float = Field(0.2, gt=0, le=1)  # share of the image's area that is seen at least
    jitter_chance: float = Field(0.8, ge=0, le=1)  # that colours change
    brightness: float = Field(0.4, ge=0, le=1)  # the factor is within 1 ± this
    contrast: float = Field(0.4, ge=0, le=1)  # the factor is within 1 ± this
    saturation: float = Field(0.4, ge=0, le=1)  # the factor is within 1 ± this
    hue: float = Field(0.1, ge=0, le=0.5)  # of the circle
    grey_chance: float = Field(0.2, ge=0, le=1)  # that it has no colour
    flip: bool = True  # left and right at random


class Settings(BaseSettings):
    """The contrastive loss beside that of the labels."""

    takes: ClassVar = ()

    weight: float = Field(1.0, ge=0)  # of the contrastive loss [code]
    temperature: float = Field(0.2, gt=0)  # [code]
    dimensions: int = Field(128, ge=1, le=65_536)  # of queries and keys [code]
    # keys of batches before; ours, fewer than training images. [code] on ImageNet-LT: 115,712, about as many
    queue: int = Field(8192, ge=2, le=10_000_000)
    momentum: float = Field(0.999, ge=0, lt=1)  # of the encoder of keys [code]
    # parts of a batch of keys, each normalised by its own statistics; ours. 2 of 128: as on two devices
    key_parts: int = Field(1, ge=1, le=1024)
    view: KeyView = KeyView()  # what the encoder of keys sees; queries: the recipe's augmentation

    def refusal(self, recipe: "Recipe") -> str | None:
        """What of a recipe the step cannot have; None where there is nothing such."""
        if self.queue < recipe.batch_size:
            return f"queue {self.queue} holds no batch of {recipe.batch_size}; take a multiple of it"
        anew = [one for one in recipe.then if one.reset_head or one.apart != "none"]
        if any(one.step and one.step.options == self for one in anew):
            return "keys are of the network as the phase finds it, which apart or reset_head begins anew"
        return None


class KeyQueue(nn.Module):
    """The keys of the last batches and their classes, the oldest of which the next batch replaces.

    Args:
        vectors: at first, (K, d), unit length.

    Attributes:
        vectors: keys (K, d).
        labels: their classes, int64 (K,); 0 at first, as in the authors' code.
        place: of the oldest, 0-d.
    """

    vectors: Tensor
    labels: Tensor
    place: Tensor

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.register_buffer("labels", torch.zeros(len(vectors), dtype=torch.int64))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def put(self, vectors: Tensor, labels: Tensor) -> None:
        """Keys (B, d) of a batch, at most K, and their classes (B,)."""
        count, size = len(labels), len(self.labels)
        rows = (self.place + torch.arange(count, device=labels.device)).remainder(size)
        self.vectors.index_copy_(0, rows, vectors)
        self.labels.index_copy_(0, rows, labels)
        self.place.add_(count).remainder_(size)


def masked_contrast(queries: Tensor, keys: Tensor, labels: Tensor, queue: KeyQueue, heat: float) -> Tensor:
    """Mean of -log( e^(q.k / T) / (e^(q.k / T) + sum over queued keys of other classes e^(q.k' / T)) ), 0-d.

    Queued keys of an image's own class are left out: they are no negatives, and no positives either.

    Args:
        queries, keys: of the two views of each image, unit length (B, d).
        labels: classes (B,).
        queue: of keys.
        heat: T.
    """
    positive = (queries * keys).sum(1, keepdim=True) / heat
    others = (queries @ queue.vectors.T) / heat
    others = others.masked_fill(labels[:, None] == queue.labels, -torch.inf)
    return (torch.cat([positive, others], dim=1).logsumexp(1) - positive[:, 0]).mean()


class Contrastive(Step):
    """L(classifier(f(x)), y) + weight masked_contrast(g(f(x)), g'(f'(x')), y).

    g is a projector, f' and g' moving averages of f and g: of their parameters only, batch normalisation of
    f' goes on with what f' sees. x' is another view of the image.

    Args:
        settings: of the loss.
        view: makes x'.
        modules: projector, key_network, key_projector and queue.
    """

    def __init__(self, settings: Settings, view: Augment, modules: Mapping[str, nn.Module]) -> None:
        self._settings, self._view, self._modules = settings, view, modules
        self._made: tuple[Tensor, Tensor] | None = None  # keys of the batch, for the queue

    def modules(self) -> Mapping[str, nn.Module]:
        """The projector learns; encoder and projector of keys follow; the queue is kept."""
        return self._modules

    def streams(self, own: Stream) -> Sequence[Stream]:
        """The recipe's, and its images in the other view."""
        return [own, Stream(sampler=None, augment=self._view)]

    def keys(self, modules: nn.ModuleDict, images: Tensor) -> Tensor:
        """Unit vectors (B, d) of the other views, without gradient."""
        encode = modules["key_network"].features
        with torch.no_grad():
            parts = [encode(part) for part in images.chunk(self._settings.key_parts)]  # type: ignore[operator]
            return F.normalize(modules["key_projector"](torch.cat(parts)).float(), dim=1)

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """The loss of a batch and its other view."""
        (own, other), network = batches, modules["network"]
        features = network.features(own.images)  # type: ignore[operator]
        logits = network.get_submodule("head")(features).float()
        value = modules["loss"](logits, own.labels, progress)
        queries = F.normalize(modules["projector"](features).float(), dim=1)
        keys, queue = self.keys(modules, other.images), modules["queue"]
        self._made = keys, own.labels
        assert isinstance(queue, KeyQueue)
        with torch.autocast(queries.device.type, enabled=False):
            contrast = masked_contrast(queries, keys, own.labels, queue, self._settings.temperature)
        value = value + self._settings.weight * contrast
        return Outcome(value, (logits.detach().argmax(dim=1) == own.labels).sum())

    def after(self, modules: nn.ModuleDict) -> None:
        """The encoder of keys follows, and the keys of the batch go into the queue."""
        for name in ("network", "projector"):
            own: list[Tensor] = list(modules[name].parameters())
            average: list[Tensor] = list(modules[f"key_{name}"].parameters())
            torch._foreach_lerp_(average, own, 1 - self._settings.momentum)
        assert self._made is not None
        modules["queue"].put(*self._made)  # type: ignore[operator]


def build(settings: Settings, context: StepContext) -> Contrastive:
    """The step, with the encoder of keys as the network is now."""
    wide = context.network.get_submodule("head").get_parameter("weight").shape[1]

    def project() -> nn.Module:
        return nn.Sequential(nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, settings.dimensions))

    projector = context.seeded(project, "projector")
    random = context.generator("queue")
    first = torch.randn(settings.queue, settings.dimensions, generator=random)
    view = settings.view
    strengths = Jitter(brightness=view.brightness, contrast=view.contrast, saturation=view.saturation)
    seen = ContrastiveView(
        smallest=view.smallest,
        jitter=strengths,
        hue=view.hue,
        jitter_chance=view.jitter_chance,
        grey_chance=view.grey_chance,
        flip=view.flip,
    )
    modules = {
        "projector": projector,
        "key_network": copy.deepcopy(context.network).requires_grad_(False),
        "key_projector": copy.deepcopy(projector).requires_grad_(False),
        "queue": KeyQueue(F.normalize(first, dim=1)).to(context.device),
    }
    return Contrastive(settings, seen, modules)
