"""Re-training a linear classifier on drawn images, by cross-entropy: what cRT and LOS do."""

from typing import Literal, Protocol

from longtail.random import generator
from longtail.stage_two.classifier import FeatureData, Fitted, Report, selection_score
from longtail.stage_two.draws import rows
from longtail.stage_two.initial import initial_classifier
from longtail.stage_two.linear import LinearRecipe, LinearTraining


class Retraining(LinearRecipe, Protocol):
    """What `retrain` reads of a method's settings."""

    @property
    def epochs(self) -> int:
        """Of as many draws as there are training images."""

    @property
    def init(self) -> Literal["random", "stage_one"]:
        """Where the classifier starts."""

    @property
    def sampler(self) -> str:
        """A name of `draws.SAMPLERS`."""


def retrain(
    data: FeatureData, settings: Retraining, seed: int, progress: Report, smoothing: float = 0.0
) -> Fitted:
    """Train on the sampler's images, each from a random one of its views [ours].

    Args:
        data: the features.
        settings: sampler, length, start and optimiser.
        seed: of start and draws.
        progress: told of each epoch.
        smoothing: share of a label that is spread over all classes.
    """
    views, images, _ = data.views.shape
    classes = len(data.class_counts)
    first = initial_classifier(settings.init, data, seed)
    inputs, labels = first.inputs(data.views).flatten(0, 1), data.labels.repeat(views)
    validation = first.inputs(data.validation)
    training = LinearTraining(first.weight, first.bias, settings, settings.epochs, images)
    labels_cpu = data.labels.cpu()

    history = []
    for epoch in range(settings.epochs):
        random = generator(seed, "stage_two", "sample", epoch)
        order = rows(settings.sampler, labels_cpu, views, random, epoch / settings.epochs)
        mean = training.labelled_epoch(inputs, labels, order.to(inputs.device), smoothing)
        score = selection_score(training.logits(validation), data.validation_labels, classes)
        history.append({"epoch": epoch + 1, "loss": mean, "validation": score})
        progress(epoch + 1, settings.epochs, f"loss {mean:.3f}")
    weight, bias = training.result()
    return Fitted(weight=weight, bias=bias, normalise=first.normalise, history=history)
