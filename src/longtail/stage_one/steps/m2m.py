"""M2m's step (Kim et al. 2020): images of frequent classes, moved until another network sees a rare one.

Major-to-minor translation changes images of a batch before the network sees them. What it needs is a finished
run that was trained without, whose network says what an image has become.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import log
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from longtail.settings.base import Settings as BaseSettings
from longtail.settings.finished_runs import RunOf
from longtail.settings.method_blocks import Sampler
from longtail.stage_one.batch import Batch
from longtail.stage_one.step import Outcome, Step, Stream
from longtail.stage_one.step import Sampler as StreamSampler
from longtail.stage_one.step_context import StepContext, sampler_of

NOISE = 0.5  # length of the noise that an attack starts from [code]
SMALL = 1e-10  # beside the length of a gradient [code]


class Settings(BaseSettings):
    """Whose network judges, when translation begins, and how far it goes; the defaults are the authors'."""

    source: RunOf  # g: a run of plain cross-entropy
    start: float = Field(0.8, ge=0, le=1)  # share of the phase before [code]: epoch 160 of 200
    sampler: Sampler = Field({"name": "class_balanced"}, validate_default=True)  # from then on [code]
    # a = 1 - beta^(n_seed - n_class). null: 1 - 5 / n_1 (ours), so that any size of the largest class has the
    # chances of CIFAR-10, where n_1 is 5,000 and the code's beta 0.999
    beta: float | None = Field(None, ge=0, lt=1)
    lam: float = Field(0.5, ge=0)  # weight of the network's own score of the seed's class [code]
    score: Literal["cosine", "logit"] = "cosine"  # of a cosine head, without its scale [code] or with it
    gamma: float = Field(0.9, ge=0, le=1)  # least probability by g [code]
    iterations: int = Field(10, ge=1, le=10_000)  # [code]
    step_size: float = Field(0.1, gt=0)  # length of each, in pixels of 0 to 1 [code]
    # length 0.5 of an image (the paper; ours); of all that a channel has in a batch, which is next to nothing
    # (the code); none
    noise: Literal["image", "channel", "none"] = "image"


class Pixels:
    """Normalised images, and the same as numbers from 0 to 1.

    Args:
        offset, spread: normalised images are pixels times spread plus offset; (1, channels, 1, 1).
    """

    def __init__(self, offset: Tensor, spread: Tensor) -> None:
        self._offset, self._spread = offset, spread

    def of(self, images: Tensor) -> Tensor:
        """Normalised images (B, channels, H, W) to pixels."""
        return ((images - self._offset) / self._spread).clamp(0, 1)

    def normalised(self, pixels: Tensor) -> Tensor:
        """The other way."""
        return pixels * self._spread + self._offset


class Translation(Step):
    """Kim et al. 2020, algorithm 1, with n the class sizes, g the judge and f the network:

        image i of class k is one to replace with chance 1 - n_k / n_1;
        its seed is image j of the batch with chance ~ a_ij = 1 - beta^max(n_{y_j} - n_k, 0);
        x = clip(x_j + noise), and then `iterations` times
        x <- clip(x - step_size G / ||G||), G = d/dx (CE(g(x), k) + lam f_{y_j}(x));
        x takes the place of image i, if softmax(g(x))_k >= gamma, with chance a_ij

    Pixels of x are in [0, 1]. Both networks are in evaluation mode meanwhile, and nothing but x has a
    gradient. All images of a batch are moved, those that stay too: so the host need not know which, and a GPU
    records the step.

    Args:
        judge: g, from normalised images to logits.
        class_counts: n, (C,), on the device.
        pixels: how images are normalised.
        shape: of an image, (channels, H, W).
        sampler: of the images from `start` on.
    """

    draws = True

    def __init__(
        self,
        judge: nn.Module,
        settings: Settings,
        class_counts: Tensor,
        pixels: Pixels,
        shape: Sequence[int],
        sampler: StreamSampler,
    ) -> None:
        largest = int(class_counts.max())
        self.beta = max(1 - 5 / largest, 0.0) if settings.beta is None else settings.beta
        self._log_beta = log(max(self.beta, 1e-300))
        self._judge, self._settings, self._pixels = judge, settings, pixels
        self._counts, self._largest = class_counts.float(), largest
        self._shape, self._sampler = tuple(shape), sampler
        self._translates = settings.start == 0

    def streams(self, own: Stream) -> Sequence[Stream]:
        """The recipe's, and from `start` on with the other sampler."""
        before, after, start = own.sampler, self._sampler, self._settings.start
        assert before is not None

        def sampler(labels: Tensor, generator: torch.Generator, progress: float) -> Tensor:
            return (after if progress >= start else before)(labels, generator, progress)

        return [replace(own, sampler=sampler)]

    def turn(self, progress: float) -> bool:
        """Whether images are translated."""
        self._translates = progress >= self._settings.start
        return self._translates

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What decides on images (B,), seeds (B, B) and acceptance (B,); noise (B, channels, H, W)."""
        if not self._translates:
            return ()
        which, whether = torch.rand(2, size, generator=generator)
        race = torch.empty(size, size).exponential_(generator=generator).clamp_min(1e-30)
        if self._settings.noise == "none":
            return which, race, whether
        noise = torch.rand(size, *self._shape, generator=generator) - 0.5
        over = (1, 2, 3) if self._settings.noise == "image" else (0, 2, 3)
        noise *= NOISE / torch.linalg.vector_norm(noise, dim=over, keepdim=True)
        return which, race, whether, noise

    def chances(self, labels: Tensor) -> Tensor:
        """a (B, B) of labels (B,): of an image, down, with another as its seed, across."""
        sizes = self._counts[labels]
        more = (sizes[None, :] - sizes[:, None]).clamp_min(0)
        return -torch.expm1(more * self._log_beta)

    def seeds(self, labels: Tensor, race: Tensor) -> tuple[Tensor, Tensor]:
        """Which image of the batch is the seed of each, (B,), and its a, (B,), 0 where there is none."""
        chances = self.chances(labels)
        # The first of exponential times with rates a: each with chance a / sum a.
        chosen = (race / chances).argmin(dim=1)
        return chosen, chances.gather(1, chosen[:, None])[:, 0]

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """What f says of classes (B,) in normalised images (B, channels, H, W): (B,)."""
        logits = network(images).float()
        if self._settings.score == "cosine":
            logits = logits / getattr(network.get_submodule("head"), "scale", 1.0)
        found: Tensor = logits.gather(1, labels[:, None])[:, 0]
        return found

    def moved(self, network: nn.Module, x: Tensor, labels: Tensor, origins: Tensor) -> Tensor:
        """Pixels (B, channels, H, W) of classes `origins` (B,) on their way to classes `labels` (B,)."""
        for _ in range(self._settings.iterations):
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                images = self._pixels.normalised(x)
                value = F.cross_entropy(self._judge(images), labels, reduction="sum")
                value = value + self._settings.lam * self.score(network, images, origins).sum()
                (slope,) = torch.autograd.grad(value, x)
            length = torch.linalg.vector_norm(slope, dim=(1, 2, 3), keepdim=True)
            x = (x.detach() - self._settings.step_size * slope / (length + SMALL)).clamp(0, 1)
        return x

    def translated(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Normalised images of a batch, some of them replaced, and which, bool (B,); the network stays."""
        which, race, whether, *noise = batch.drawn
        labels, was = batch.labels, network.training
        network.eval()
        with torch.no_grad():
            chosen, chance = self.seeds(labels, race)
            x = self._pixels.of(batch.images[chosen])
            for numbers in noise:
                x = (x + numbers).clamp(0, 1)
            made = self._pixels.normalised(self.moved(network, x, labels, labels[chosen]))
            sure = self._judge(made).softmax(dim=1).gather(1, labels[:, None])[:, 0] >= self._settings.gamma
            asked = which >= self._counts[labels] / self._largest
            accepted = asked & sure & (whether < chance)
            images = torch.where(accepted[:, None, None, None], made, batch.images)
        network.train(was)
        return images, accepted

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """The loss of the batch, translated from `start` on."""
        (batch,) = batches
        images = self.translated(modules["network"], batch)[0] if self._translates else batch.images
        logits = modules["network"](images).float()
        correct = (logits.detach().argmax(dim=1) == batch.labels).sum()
        return Outcome(modules["loss"](logits, batch.labels, progress), correct)


def pixels_of(context: StepContext) -> Pixels:
    """How the images of a run are normalised."""
    black = torch.zeros(1, context.training.images.shape[1], 1, 1, dtype=torch.uint8, device=context.device)
    offset = context.prepare(black)
    return Pixels(offset, context.prepare(255 - black) - offset)


def build(settings: Settings, context: StepContext) -> Translation:
    """The step with its judge."""
    (judge,) = context.teachers("source")
    return Translation(
        judge,
        settings,
        context.class_counts.to(context.device),
        pixels_of(context),
        context.training.images.shape[1:],
        sampler_of(settings.sampler),
    )
