"""Texts of tables."""

import pandas as pd

from longtail.settings.phases import phases
from longtail.settings.recipe import Recipe

NOT_APPLICABLE = "n/a"
HEADS = {"accuracy": "all", "linear": "linear on all data"}  # of columns that are not called by their name
COMPLETE = "complete training set"  # what a classifier learnt from that reads all training images


def length(recipe: Recipe) -> str:
    """How long stage one trains, e.g. `200 epochs`; phases one after another as `200 epochs + 30 epochs`."""
    return " + ".join(phase.schedule.words for phase in phases(recipe))


def augmentation(recipe: Recipe) -> str:
    """What happens to a training image, e.g. `crop 4 + flip + AutoAugment + Cutout 16`."""
    settings = recipe.augmentation
    steps = {
        "resized crop": settings.resized_crop is not None,
        f"crop {settings.crop}": settings.crop,
        "flip": settings.flip,
        "colour jitter": settings.jitter is not None,
        "RandAugment": settings.randaugment is not None,
        "AutoAugment": settings.autoaugment != "none",
        f"Cutout {settings.cutout}": settings.cutout,
        **{transform.name: True for phase in phases(recipe) for transform in phase.transforms or []},
        **{phase.companions.name: True for phase in phases(recipe) if phase.companions},
    }
    return " + ".join(step for step, on in steps.items() if on) or "none"


def number(value: float | None, decimals: int = 2) -> str:
    """A number as a table prints it, without -0; "" for none or nan."""
    return "" if value is None or pd.isna(value) else f"{round(float(value), decimals) + 0.0:.{decimals}f}"
