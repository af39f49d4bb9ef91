"""Memory of a GPU: what a training is expected to take of it, and one line where it did not suffice."""

import re
from collections.abc import Mapping
from typing import Any

from longtail.errors import UserError

# Of ResNet-32 at batch 128, whose activations are 0.5 GB in float32, and of a network that is not of its
# family. By arithmetic with a margin, not measured.
FIXED_MB, ACTIVATIONS_MB, OTHER_MB = 500, 1000, 5000
EXHAUSTED = re.compile(r"CUDA.* out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED")


def gpu_memory(settings: Mapping[str, Any]) -> int:
    """MB of a GPU that a training of small images is expected to take, by its planned settings."""
    recipe = settings.get("recipe", {})
    network = recipe.get("network", {})
    batch = float(recipe.get("batch_size", 128) / recipe.get("shards", 1) / 128)
    if network.get("name") != "resnet_cifar":
        return FIXED_MB + round(OTHER_MB * batch)
    size = float(network.get("width", 16) / 16 * network.get("depth", 32) / 32)
    return FIXED_MB + round(ACTIVATIONS_MB * batch * size)


def in_a_line(error: Exception, planned: Mapping[str, Any], at_once: int) -> Exception:
    """The error of a step, as one of the user's where a GPU's memory did not suffice.

    Args:
        error: what the step raised.
        planned: what the run's command was told.
        at_once: runs that shared the GPU.
    """
    if type(error).__name__ != "OutOfMemoryError" and not EXHAUSTED.search(str(error)):
        return error
    tried = re.search(r"Tried to allocate [\d.]+ \w+", str(error))
    detail = f" ({tried[0][0].lower()}{tried[0][1:]})" if tried else ""
    recipe = planned["settings"].get("recipe")
    if recipe is None:
        helps = "end what else is on it, or compute on the CPU: CUDA_VISIBLE_DEVICES= in front of the command"
    else:
        alone = (
            f"a smaller batch_size (it is {recipe['batch_size']}) or more shards ({recipe.get('shards', 1)})"
        )
        helps = (
            f"set LONGTAIL_RUNS_PER_GPU below {at_once}, the runs that shared it; or"
            if at_once > 1
            else "end what else is on it (LONGTAIL_RUNS_PER_GPU=1 shares it with no other run); or"
        )
        helps += f" set {alone}, which makes another run"
    return UserError(f"{planned['run']}: the GPU ran out of memory{detail}: {helps}")
