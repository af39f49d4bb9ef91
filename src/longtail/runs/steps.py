"""The steps, in the order in which data flows: the module that computes each, and its block of settings."""

import importlib
from types import ModuleType
from typing import Any

STEPS = ("acquire", "split", "stage_one", "features", "stage_two")
# what is made of finished runs
PUBLISHED = ("tables", "figures", "models", "label_issues", "frame", "page", "report")
MODULES = {
    "acquire": "longtail.data.acquire",
    "split": "longtail.data.split",
    "stage_one": "longtail.stage_one.training",
    "features": "longtail.features.extract",
    "stage_two": "longtail.stage_two.fitting",
}
_SETTINGS = {
    "acquire": ("longtail.settings.acquire", "AcquireSettings"),
    "split": ("longtail.settings.split", "SplitSettings"),
    "stage_one": ("longtail.settings.recipe", "StageOneSettings"),
    "features": ("longtail.settings.classifier", "FeaturesSettings"),
    "stage_two": ("longtail.settings.classifier", "StageTwoSettings"),
}


def step_of(key: str) -> str:
    """The step of what a run is built on, by its key: a step, or e.g. `teacher.0.stage_one`."""
    return key.rpartition(".")[2]


def module_of(step: str) -> ModuleType:
    """Import what computes a step: a module with `compute(job)`."""
    return importlib.import_module(MODULES[step])


def settings_of_step(step: str, data: dict[str, Any]) -> Any:
    """The settings of a run as its step reads them, from JSON data."""
    module, name = _SETTINGS[step]
    return getattr(importlib.import_module(module), name).model_validate(data)
