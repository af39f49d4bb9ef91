"""A training that takes milliseconds: 50 small images of five unequal classes, a network with dropout."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longtail.errors import UserError
from longtail.settings.recipe import Optimiser
from longtail.settings.schedules import LearningRate, Length
from longtail.stage_one.batch import Batch
from longtail.stage_one.losses.logit_adjusted import Settings, build
from longtail.stage_one.networks import extension
from longtail.stage_one.phase import Phase
from longtail.stage_one.samplers import instance
from longtail.stage_one.step import Outcome, Step, Stream
from longtail.stage_one.steps.supervised import Supervised
from tests.tiny_runs import write_inputs

COUNTS = [40, 20, 8, 3, 1]
LABELS = torch.arange(5).repeat_interleave(torch.tensor([24, 13, 7, 4, 2]))


class Computed(Step):
    """A step that is nothing but a function of modules, batches and progress."""

    def __init__(self, compute: Callable[..., Outcome]) -> None:
        self._compute = compute

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        return self._compute(modules, batches, progress)


def normalise(images: Tensor) -> Tensor:
    """uint8 to [-1, 1]."""
    return images.float() / 127.5 - 1


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random half of the images from right to left."""
    chosen = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
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
            "streams": [Stream(sampler=lambda y, g, t: instance.indices(y, g, t, instance.Settings()))],
            "augment": flip,
            "normalise": normalise,
            "step": Supervised(),
            "batch_size": 8,
            "length": Length(epochs=4),
            "learning_rate": LearningRate(peak=0.05, warmup=1),
            "optimiser": Optimiser(),
            "progress": "epoch",
        }
        values |= changes
        if not isinstance(values["step"], Step):
            values["step"] = Computed(values["step"])
        return Phase(**values)

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


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Raw images and a split of five classes that differ in brightness: 72 train, 10 validation, 25 test."""
    return write_inputs(tmp_path, COUNTS)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the extension is built."""
    folder = tmp_path_factory.mktemp("extension")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(extension.VARIABLE, str(folder))
        try:
            extension.build()
        except UserError as error:
            pytest.skip(str(error))
        if extension.extension() is None:
            pytest.skip("this processor has no AVX512_BF16")
    return folder


@pytest.fixture
def use_extension(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings use the extension."""
    monkeypatch.setenv(extension.VARIABLE, str(built))
    torch.set_num_threads(1)
