"""What an epoch of a classifier is made of: images by a sampler, each in a random one of its views."""

import torch
from torch import Tensor

from longtail.stage_one.samplers import class_aware, class_balanced, instance

SAMPLERS = {"instance": instance, "class_balanced": class_balanced, "class_aware": class_aware}


def rows(
    sampler: str,
    labels: Tensor,
    views: int,
    random: torch.Generator,
    progress: float,
    samples_per_class: int | None = None,
) -> Tensor:
    """N rows of the features (V, N, d) flattened to (V N, d), int64 on the CPU.

    A draw takes a random view [ours], so that an image of a small class, drawn many times, is seen in many.

    Args:
        sampler: a name of `SAMPLERS`, with its own defaults.
        labels: class of each training image, (N,), on the CPU.
        views: V.
        random: a CPU generator.
        progress: share of the training that is done, in [0, 1].
        samples_per_class: of class_aware; None: its default.
    """
    module = SAMPLERS[sampler]
    settings = module.Settings()
    if samples_per_class is not None and sampler == "class_aware":
        settings = module.Settings(samples_per_class=samples_per_class)
    drawn: Tensor = module.indices(labels, random, progress, settings)
    return torch.randint(views, drawn.shape, generator=random) * len(labels) + drawn
