"""A classifier to take home: preprocessing, backbone, rebalanced classifier and calibration in one module."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from longtail.errors import UserError
from longtail.export.folder import DESCRIPTION, WEIGHTS, Description, opened, read
from longtail.settings.methods import method_module, settings_of
from longtail.stage_two.classifier import TUKEY_OFFSET


class Exported(nn.Module):
    """Images to calibrated probabilities and logits.

    logits = W z + b with z = normalise(tukey(x) - center) of the backbone's features x, as
    `longtail.stage_two.classifier.Fitted` has it; probabilities = softmax(logits / temperature).

    Args:
        description: everything but the weights.

    Raises:
        ValueError: if the network it names does not exist, or cannot have its settings.
    """

    def __init__(self, description: Description) -> None:
        super().__init__()
        options = {key: value for key, value in description.network.items() if key != "name"}
        name = str(description.network.get("name"))
        settings = settings_of("networks", name).model_validate(options)
        classes, dimensions = len(description.classes), description.dimensions
        self.network = method_module("networks", name).build(settings, description.channels, classes)
        self.network.head = nn.Identity()  # stage one's own classifier: `weight` stands for it
        self.weight = nn.Parameter(torch.zeros(classes, dimensions), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(classes), requires_grad=False)
        center = torch.zeros(dimensions) if description.center else None
        self.center = None if center is None else nn.Parameter(center, requires_grad=False)
        spread, middle = (
            torch.tensor(values, dtype=torch.float64, device="cpu").view(1, -1, 1, 1)
            for values in (description.std, description.mean)
        )
        # As longtail.data.normalisation.normalise computes it, to the last bit.
        self.register_buffer("scale", (1 / (255 * spread)).float(), persistent=False)
        self.register_buffer("shift", (-middle / spread).float(), persistent=False)
        self.tukey, self.normalise = description.tukey, description.normalise
        self.temperature = description.temperature

    def features(self, images: Tensor) -> Tensor:
        """Features (B, d) of images (B, C, H, W), values 0 to 255, uint8 or float."""
        pixels = torch.addcmul(self.get_buffer("shift"), images.float(), self.get_buffer("scale"))
        found: Tensor = self.network.features(pixels.contiguous(memory_format=torch.channels_last))
        return found.float()

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, d)."""
        z = features
        if self.tukey == 0:
            z = (z + TUKEY_OFFSET).log()
        elif self.tukey != 1:
            z = z**self.tukey
        if self.center is not None:
            z = z - self.center
        if self.normalise:
            z = F.normalize(z, dim=-1)
        return F.linear(z, self.weight, self.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and logits, each (B, C), of images (B, C, H, W), values 0 to 255, uint8 or float."""
        logits = self.classify(self.features(images))
        return (logits / self.temperature).softmax(1), logits


def assembled(description: Description, tensors: dict[str, Tensor]) -> Exported:
    """The module with its weights, on the CPU, to predict with.

    Raises:
        ValueError: if the weights do not fit the description.
    """
    with torch.device("meta"):  # what a damaged description asks for is compared before it takes memory
        model = Exported(description)
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())) from None
    if wrong := sorted(name for name, tensor in tensors.items() if tensor.dtype != torch.float32):
        raise ValueError(f"{', '.join(wrong)} should be float32")
    return model.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def load_exported(model: str | Path) -> tuple[Exported, Description]:
    """Read an exported model back: the module, in evaluation mode on the CPU, and its model.json.

    Raises:
        UserError: if it is no exported model, or damaged.
    """
    folder, _, description = opened(model)
    content = read(folder, WEIGHTS, description)
    try:
        return assembled(description, load(content)), description
    except SafetensorError as error:
        reason: Any = error
    except ValidationError as error:
        reason = f"{DESCRIPTION}: network: {error.errors()[0]['msg']}"
    except ValueError as error:
        reason = error
    raise UserError(f"{folder / WEIGHTS}: cannot be used ({reason}); export the model again")
