"""The step of every recipe with one network and one loss."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from longtail.settings.phase import Freeze
from longtail.stage_one.batch import Batch
from longtail.stage_one.freezing import learning
from longtail.stage_one.phase import Outcome


class Supervised:
    """loss(network(images), labels), and what holds features to what they were, where a phase has that.

    Its modules are `network`, `loss` and, with `exemplars`, `before`, the network as the phase found it, and
    `retention`, which compares the features that the two make of the same images.

    Args:
        frozen: what of the network is in evaluation mode, its batch normalisation as it was; "none" where
            the mode is the same for all.
        seen: classes (C,) that training has had images of until now, bool; the loss is over these. None: all.
        exemplars: classes (C,) whose images in a batch are exemplars, bool; None: nothing is retained.
    """

    def __init__(
        self, frozen: Freeze = "none", seen: Tensor | None = None, exemplars: Tensor | None = None
    ) -> None:
        self._frozen, self._exemplars = frozen, exemplars
        self._classes = None if seen is None else seen.nonzero().flatten()
        self._position = None if seen is None else seen.cumsum(0) - 1

    def divisor(self, modules: nn.ModuleDict, labels: Sequence[Tensor], progress: Tensor) -> Tensor | None:
        """What the loss divides the sum over the one batch's images by, from its method `divisor`, if any."""
        of: Callable[[Tensor, Tensor], Tensor | None] | None = getattr(modules["loss"], "divisor", None)
        if of is None:
            return None
        own = labels[0]
        return of(own if self._position is None else self._position[own], progress)

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """The loss of the one batch."""
        (batch,) = batches
        network, loss = modules["network"], modules["loss"]
        if self._frozen != "none":
            network.eval()
            for part in learning(network, self._frozen):
                part.train()
        if self._exemplars is None:
            logits = network(batch.images).float()
        else:
            features = network.features(batch.images)  # type: ignore[operator]
            logits = network.get_submodule("head")(features).float()
        labels, others = batch.labels, batch.others
        if self._classes is not None and self._position is not None:
            logits = logits.index_select(1, self._classes)
            labels = self._position[labels]
            others = None if others is None else self._position[others]
        if others is None or batch.weight is None:
            value = loss(logits, labels, progress)
        else:
            value = loss(logits, labels, progress, batch.weight)
            value = value + loss(logits, others, progress, 1 - batch.weight)
        if self._exemplars is not None:
            # each step: an epoch begins with train() of all modules
            modules["before"].train(modules["retention"].settings.batchnorm == "train")  # type: ignore[union-attr]
            with torch.no_grad():
                before = modules["before"].features(batch.images)  # type: ignore[operator]
            value = value + modules["retention"](before, features, self._exemplars[batch.labels], progress)
        return Outcome(value, (logits.detach().argmax(dim=1) == labels).sum())
