"""Errors of a step that one line explains, since they come from its settings and its data."""

import re
from collections.abc import Mapping
from typing import Any

from longtail.errors import LONE_IMAGE, UserError

EXHAUSTED = re.compile(r"CUDA.* out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED")


def in_a_line(error: Exception, planned: Mapping[str, Any], at_once: int) -> Exception:
    """The error of a step, as one of the user's where memory of a GPU or images of a batch did not suffice.

    Args:
        error: what the step raised.
        planned: what the run's command was told.
        at_once: runs that shared the GPU.
    """
    recipe = planned["settings"].get("recipe")
    whole = recipe or planned["settings"]  # features of the training statistics have no recipe
    if LONE_IMAGE in str(error) and "batch_size" in whole:
        shards = f"fewer shards ({whole.get('shards', 1)}), " if recipe else ""
        return UserError(
            f"{planned['run']}: a last batch, or a shard of it, is one image, of whose 1 x 1 maps batch "
            f"normalisation has no variance: set another batch_size (it is {whole['batch_size']}), {shards}"
            "or larger images"
        )
    if type(error).__name__ != "OutOfMemoryError" and not EXHAUSTED.search(str(error)):
        return error
    tried = re.search(r"Tried to allocate [\d.]+ \w+", str(error))
    detail = f" ({tried[0][0].lower()}{tried[0][1:]})" if tried else ""
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
