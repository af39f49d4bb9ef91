"""What a network makes of images: logits, features, and accuracies as the history has them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from longtail.data.images import Images, evaluation_batch, in_batches
from longtail.data.labelled_images import Part
from longtail.device import received, sent
from longtail.stage_one.loop import autocast
from longtail.stage_one.ranks import ranks


def predict(
    network: nn.Module,
    images: Images,
    prepare: Callable[[Tensor], Tensor],
    where: torch.device,
    precision: str,
    of: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Logits (N, C), float32 on the CPU, of images uint8 (N, C, H, W), by a network in eval mode.

    `of` is another of its functions, e.g. `network.features`.
    """
    return predict_on(network, images, prepare, where, precision, of).cpu()


def predict_on(
    network: nn.Module,
    images: Images,
    prepare: Callable[[Tensor], Tensor],
    where: torch.device,
    precision: str,
    of: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The same on the device, for which the host does not wait."""
    network.eval()
    of = of or network
    if not isinstance(images, Tensor):
        images = images.to(where)
    found = []
    with torch.no_grad(), autocast(where, precision):
        for batch in in_batches(images, evaluation_batch(images)):
            found.append(of(prepare(sent(batch, where))).float())
    return torch.cat(found)


def _share(count: int) -> slice:
    """Which of a number of images this process looks at."""
    own = ranks().own(count)
    return slice(own.start, own.stop)


class Evaluation:
    """Measures a network on the test and validation images; remembers its last logits.

    Those of classes that are not `seen` (C,) yet are minus infinity: there is nothing in them.
    """

    def __init__(
        self,
        network: nn.Module,
        parts: dict[str, Part],
        prepare: Callable[[Tensor], Tensor],
        where: torch.device,
        precision: str,
        seen: Tensor,
    ) -> None:
        self._network, self._prepare, self._where, self._precision = network, prepare, where, precision
        self._unseen = ~seen
        self._parts = {name: part for name, part in parts.items() if len(part.labels)}
        self._logits: dict[str, Tensor] = {}

    def accuracies(self) -> dict[str, float | None]:
        """Columns of the history: the share of right images, of each part that has images."""
        found: dict[str, Tensor] = {}
        for name, part in self._parts.items():
            twin = next((other for other in found if part.same_images_as(self._parts[other])), None)
            found[name] = found[twin] if twin else self._predict(part.images)
        told = {
            name: (logits.argmax(dim=1) == sent(self._parts[name].labels, logits.device)).sum()
            for name, logits in found.items()
        }
        told = received({**found, **{f"{name} right": number for name, number in told.items()}})
        self._logits = {name: told[name] for name in found}
        return {
            f"{name}_accuracy": int(told[f"{name} right"]) / len(self._parts[name].labels) for name in found
        }

    def _predict(self, images: Images) -> Tensor:
        own = images[_share(len(images))]
        logits = torch.empty(0, len(self._unseen))  # of fewer images than processes
        if len(own):
            logits = predict_on(self._network, own, self._prepare, self._where, self._precision)
        logits = ranks().gather(logits)
        return logits.masked_fill_(sent(self._unseen, logits.device), -torch.inf)

    def last(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Logits and labels by part, of the network as it was last evaluated (now, if it never was)."""
        if not self._logits:
            self.accuracies()
        return {name: (logits, self._parts[name].labels) for name, logits in self._logits.items()}
