"""Memory of a GPU that a training is expected to take."""

from collections.abc import Mapping
from typing import Any

# Of ResNet-32 at batch 128, whose activations are 0.5 GB in float32, and of a network that is not of its
# family. By arithmetic with a margin, not measured.
FIXED_MB, ACTIVATIONS_MB, OTHER_MB = 500, 1000, 5000


def gpu_memory(settings: Mapping[str, Any]) -> int:
    """MB of a GPU that a training of small images is expected to take, by its planned settings."""
    recipe = settings.get("recipe", {})
    network = recipe.get("network", {})
    batch = float(recipe.get("batch_size", 128) / recipe.get("shards", 1) / 128)
    if network.get("name") != "resnet_cifar":
        return FIXED_MB + round(OTHER_MB * batch)
    size = float(network.get("width", 16) / 16 * network.get("depth", 32) / 32)
    return FIXED_MB + round(ACTIVATIONS_MB * batch * size)
