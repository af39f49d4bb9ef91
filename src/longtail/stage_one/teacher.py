"""Networks of finished runs, frozen: teachers of a network that is trained."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from longtail.errors import UserError
from longtail.runs.store import record
from longtail.settings.methods import method_module, settings_of

TUKEY_OFFSET = 1e-6  # as stage two has it


class Teacher(nn.Module):
    """The network of a finished run and a classifier over its features, in evaluation mode for good.

    It learns nothing and its statistics stay. Gradients through it to images are there unless the caller
    switches them off. A step keeps it as an attribute, not among its modules: a training that goes on reads
    it again.

    Args:
        network: has `features` and `head`.
        classifier: of stage two, by the names of classifier.safetensors; None: the network's own head.
    """

    def __init__(self, network: nn.Module, classifier: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.network = network
        for name, tensor in (classifier or {}).items():
            if name in ("weight", "bias", "center"):
                self.register_buffer(name, tensor)
        self._tukey = float(classifier["tukey"]) if classifier else 1.0
        self._normalise = classifier is not None and "normalise" in classifier
        self._own_head = classifier is None
        self.requires_grad_(False).train()

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in evaluation mode."""
        super().train(False)
        return self

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to features (B, d), float32."""
        found: Tensor = self.network.features(images)  # type: ignore[operator]
        return found.float()

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to logits (B, C), float32."""
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            if self._own_head:
                logits: Tensor = self.network.get_submodule("head")(features)
                return logits.float()
            if self._tukey == 0:
                features = (features + TUKEY_OFFSET).log()
            elif self._tukey != 1:
                features = features**self._tukey
            if "center" in self._buffers:
                features = features - self.get_buffer("center")
            if self._normalise:
                features = F.normalize(features, dim=-1)
            return F.linear(features, self.get_buffer("weight"), self.get_buffer("bias"))


def load_teacher(run: Mapping[str, Path], channels: int, classes: int) -> Teacher:
    """The network of a finished run of stage one, with the classifier of one of stage two if there is one.

    Args:
        run: folders by step, stage_one and perhaps stage_two.
        channels, classes: of the images.

    Raises:
        UserError: if its weights do not fit the network that it says it has.
    """
    block = dict(record(run["stage_one"])["settings"]["recipe"]["network"])
    name = str(block.pop("name"))
    block.pop("pretrained", None)  # it has weights of its own
    network: nn.Module = method_module("networks", name).build(
        settings_of("networks", name).model_validate(block), channels, classes
    )
    file = run["stage_one"] / "model.safetensors"
    try:
        network.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{file}: does not fit network {name}: {' '.join(str(error).split())}") from None
    classifier = load_file(run["stage_two"] / "classifier.safetensors") if "stage_two" in run else None
    return Teacher(network.to(memory_format=torch.channels_last), classifier)
