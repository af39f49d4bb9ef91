"""What a network is shown of picture files: as its published weights want it, where settings say nothing."""

import json
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from longtail.errors import UserError
from longtail.runs.store import home, write_json
from longtail.settings.data import Pictures, PublishedData
from longtail.settings.known_weights import EMBEDDED, EMBEDDED_WEIGHTS, KnownWeights
from longtail.settings.method_blocks import Method
from longtail.settings.params import Params
from longtail.settings.recipe import Recipe


def pictures_of(params: Params, recipe: Recipe) -> Pictures | None:
    """`data.images` for a recipe: keys that the settings leave out are those of its weights, if these say so.

    None where images are no files.
    """
    if isinstance(params.data, PublishedData):
        return None
    look = params.data.images
    weights = weights_of(recipe.network)
    if weights is None or look.channels != len(weights.mean):
        return look
    given = look.model_fields_set
    return look.model_copy(
        update={key: value for key, value in weights.preprocessing().items() if key not in given}
    )


def seen_otherwise(params: Params, one: Recipe, other: Recipe) -> list[str]:
    """The keys of `data.images` that two recipes have unlike, as of pretrained weights of two kinds."""
    look, otherwise = pictures_of(params, one), pictures_of(params, other)
    return [key for key, value in look or () if value != getattr(otherwise, key)]


def weights_of(network: Method) -> KnownWeights | None:
    """What is known of the weights that a network begins with; None where nothing is, or it begins afresh."""
    options = network.options
    pretrained = getattr(options, "pretrained", None)
    if pretrained == EMBEDDED:
        return EMBEDDED_WEIGHTS
    architecture = getattr(options, "architecture", "")
    if network.name != "timm_model" or not pretrained or "." not in architecture:
        return None
    return _of_timm(architecture, Path.cwd())


@cache
def _of_timm(architecture: str, root: Path) -> KnownWeights | None:
    """What timm says, remembered in `.longtail/weights` as long as timm is of the same version.

    Raises:
        UserError: if timm is not installed, or does not answer.
    """
    try:
        own = version("timm")
    except PackageNotFoundError:
        raise UserError("network timm_model: timm is not installed; `make environment` installs it") from None
    memory = home(root) / "weights" / f"{architecture}-timm{own}.json"
    with suppress(OSError, ValueError):
        return _read(json.loads(memory.read_text("utf-8")))
    command = [sys.executable, "-m", "longtail.stage_one.networks.timm_weights", architecture]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or ["no word"])[-1][:160]
        raise UserError(f"network timm_model: {architecture}: timm does not know its weights ({reason})")
    found = json.loads(asked.stdout)
    with suppress(OSError):  # what cannot be remembered is asked again
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_json(memory, found)
    return _read(found)


def _read(found: object) -> KnownWeights | None:
    return None if found is None else KnownWeights.model_validate(found)
