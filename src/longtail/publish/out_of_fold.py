"""Probabilities of every picture's class by a classifier that was not trained on it: five folds.

Each fold holds a fifth of every class. A linear classifier over features is trained with cross-entropy on the
other four, and gives the probabilities of the fifth. Pictures of one group and class, e.g. a burst, are of
one fold: the label of a picture is not believed because the same one is on its copy.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.random import generator
from longtail.settings.schedules import CosineDecay, LearningRate
from longtail.stage_two.linear import LinearTraining

FOLDS = 5
EPOCHS, STEPS = 30, 500  # of a fold's training, each at least


@dataclass(frozen=True)
class FoldTraining:
    """How a fold's classifier is trained: over standardised features, so that one rate suits them all."""

    batch_size: int
    learning_rate: LearningRate
    momentum: float
    weight_decay: float


TRAINING = FoldTraining(64, LearningRate(peak=0.01, decay=CosineDecay()), 0.9, 0.01)


def folds(labels: Tensor, groups: Tensor, seed: int) -> Tensor:
    """The fold of each picture, int64 (N,): those of a class are dealt out in a random order.

    Each goes to the fold that has the fewest of its class. Among equals a class goes on where the one before
    has ended, so that folds are of one size.

    Args:
        labels: int64 (N,).
        groups: name of each picture's group, int64 (N,); those of one class are dealt out as one.
        seed: of the order.
    """
    found = torch.empty_like(labels)
    first = 0
    for label in sorted(set(labels.tolist())):
        own = (labels == label).nonzero().flatten()
        pieces = _pieces(own, groups)
        held = [0] * FOLDS
        for piece in torch.randperm(len(pieces), generator=generator(seed, "folds", label)).tolist():
            chosen = min(range(FOLDS), key=lambda fold: (held[fold], (fold - first) % FOLDS))
            found[pieces[piece]] = chosen
            held[chosen] += len(pieces[piece])
        first += len(own)
    return found


def _pieces(places: Tensor, groups: Tensor) -> list[list[int]]:
    """The places of each group, in the order in which groups come first."""
    found: dict[int, list[int]] = {}
    for place, group in zip(places.tolist(), groups[places].tolist(), strict=True):
        found.setdefault(group, []).append(place)
    return list(found.values())


def out_of_fold(features: Tensor, labels: Tensor, groups: Tensor, seed: int) -> Tensor:
    """Probabilities (N, C) of each picture by the classifier of the folds that do not hold it.

    Args:
        features: float32 (N, d), of any scale.
        labels: int64 (N,), 0 to C - 1; each class has at least as many pictures, or groups of them, as there
            are folds.
        groups: name of each picture's group, int64 (N,), which is not parted within a class.
        seed: of the folds, and of the order in which training goes.
    """
    classes = int(labels.max()) + 1
    spread = features.std(0, unbiased=False)
    inputs = (features - features.mean(0)) / torch.where(spread > 0, spread, 1.0)
    fold = folds(labels, groups, seed)
    found = torch.empty(len(labels), classes)
    for number in range(FOLDS):
        rows = (fold != number).nonzero().flatten()
        epochs = max(EPOCHS, math.ceil(STEPS / math.ceil(len(rows) / TRAINING.batch_size)))
        start = torch.zeros(classes, features.shape[1]), torch.zeros(classes)
        training = LinearTraining(*start, TRAINING, epochs, len(rows))
        for epoch in range(epochs):
            order = torch.randperm(len(rows), generator=generator(seed, "fold", number, epoch))
            training.labelled_epoch(inputs, labels, rows[order])
        rest = fold == number
        found[rest] = training.logits(inputs[rest]).softmax(1)
    return found
