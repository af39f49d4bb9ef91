"""What is measured on: images and features made up in the shape of the real ones."""

import torch
from torch import Tensor

from longtail.data.imbalance import exponential_counts, pareto_counts
from longtail.random import generator

CLASSES = 100
TEST_IMAGES, VALIDATION_IMAGES = 10_000, 1_980  # of CIFAR-100, and with `validation: unused` at ratio 100
CHUNK = 4096  # features that are made up at once: what is measured is not our own memory
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def cifar_counts() -> Tensor:
    """Training images of each class of CIFAR-100-LT at ratio 100, int64 (100,); 10,847 in all."""
    return torch.from_numpy(exponential_counts(CLASSES, 500, 100))


def imagenet_counts(share: float = 1.0) -> Tensor:
    """Class sizes like ImageNet-LT's, int64 (1000,), largest first.

    The official list is drawn, no function gives it; a Pareto tail from 1,280 to 5 with this exponent has
    115,848 images (the list: 115,846) and 383 / 468 / 149 many, medium and few-shot classes (385 / 479 /
    136). `share` makes all classes smaller, but none below 2.
    """
    return (torch.from_numpy(pareto_counts(1000, 1280, 5, 5.4565)) * share).long().clamp_min(2)


def labels_of(counts: Tensor) -> Tensor:
    """Labels of a training set with these class sizes, in their order."""
    return torch.repeat_interleave(torch.arange(len(counts)), counts)


def images(number: int) -> Tensor:
    """Noise, uint8 (number, 3, 32, 32)."""
    drawn = torch.randint(256, (number, 3, 32, 32), generator=generator("benchmark", "images", number))
    return drawn.to(torch.uint8)


def features(labels: Tensor, dimensions: int, *key: int) -> Tensor:
    """Features as behind a ReLU, >= 0, float32 (N, dimensions), around a mean for each class."""
    random = generator("benchmark", "features", dimensions, *key)
    means = torch.rand(
        int(labels.max()) + 1, dimensions, generator=generator("benchmark", "means", dimensions)
    )
    made = torch.empty(len(labels), dimensions)
    for own, rows in zip(torch.split(labels, CHUNK), torch.split(made, CHUNK), strict=True):
        rows.normal_(0, 0.3, generator=random).add_(means[own]).clamp_min_(0)
    return made
