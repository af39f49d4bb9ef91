"""A training that takes milliseconds: 50 small images of five unequal classes, a network with dropout."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longtail.losses.logit_adjusted import Settings, build
from longtail.params import Optimiser
from longtail.samplers import instance
from longtail.schedules import LearningRate, Length
from longtail.stage_one.loop import Phase, supervised

LABELS = torch.arange(5).repeat_interleave(torch.tensor([24, 13, 7, 4, 2]))


def normalise(images: Tensor) -> Tensor:
    """uint8 to [-1, 1]."""
    return images.float() / 127.5 - 1


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random half of the images from right to left."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


@pytest.fixture
def make_phase() -> Callable[..., Phase]:
    """A phase of seven steps an epoch (batches of 8, the last of 2), with anything replaced."""
    noise = torch.randint(0, 100, (50, 1, 6, 6), generator=torch.Generator().manual_seed(0))
    images = (noise + 30 * LABELS[:, None, None, None]).to(torch.uint8)

    def make(**changes: Any) -> Phase:
        values: dict[str, Any] = {
            "name": "train",
            "images": images,
            "labels": LABELS,
            "samplers": [lambda y, g, t: instance.indices(y, g, t, instance.Settings())],
            "augment": flip,
            "normalise": normalise,
            "step": supervised,
            "batch_size": 8,
            "length": Length(epochs=4),
            "learning_rate": LearningRate(peak=0.05, warmup=1),
            "optimiser": Optimiser(),
            "progress": "epoch",
        }
        return Phase(**values | changes)

    return make


@pytest.fixture
def make_modules() -> Callable[..., nn.ModuleDict]:
    """The same network, with batch statistics and dropout, and GraLoss, on every call."""

    def make(dropout: float = 0.2) -> nn.ModuleDict:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            network = nn.Sequential(
                nn.Conv2d(1, 6, 3),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.Flatten(),
                nn.Dropout(dropout),
                nn.Linear(96, 5),
            )
        return nn.ModuleDict({"network": network, "loss": build(Settings(), LABELS.bincount())})

    return make
