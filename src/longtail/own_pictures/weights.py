"""Which published weights `longtail init` begins with: asked for, cached, in the environment, or to be had.

A larger network gives better features and takes longer: of what is cached the best one is taken whose pass
over the pictures fits into the time there is. What is in the environment always fits.
"""

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from longtail.errors import UserError, shown
from longtail.orchestration.preprocessing import weights_of
from longtail.settings.known_weights import EMBEDDED, EMBEDDED_ARCHITECTURE, KnownWeights
from longtail.settings.method_blocks import Method
from longtail.settings.methods import settings_of

# timm's, the best features first (docs/how-to/pretrained.md): what a cache is searched for.
CACHED = (
    "vit_base_patch14_dinov2.lvd142m",
    "vit_small_patch14_dinov2.lvd142m",
    "vit_base_patch16_clip_224.openai",
    "convnext_tiny.in12k_ft_in1k",
    "resnet50.a1_in1k",
    "tf_efficientnet_lite0.in1k",
)
DOWNLOADED = "tf_efficientnet_lite0.in1k"  # where there is nothing else; 19 MB
HUB = ("huggingface.co", 443)
PATIENCE = 3.0  # seconds for an answer of it


@dataclass(frozen=True)
class Weights:
    """A network with published weights.

    Attributes:
        network: the block of settings.
        what: which weights these are, in words.
        why: they were taken, in words.
        licence: of the weights.
        size: side of the square that the network is shown, in pixels; None: not stated.
        seconds: of a forward pass of one picture on one core, or on the GPU.
    """

    network: dict[str, Any]
    what: str
    why: str
    licence: str
    size: int | None
    seconds: float

    @property
    def is_transformer(self) -> bool:
        """Whether adapters fit into it."""
        return str(self.network["architecture"]).startswith(("vit_", "deit", "eva", "beit"))


def choose_weights(
    asked: str | None, seconds_of: Callable[[dict[str, Any], int], float], seconds: float, passes: float
) -> Weights | None:
    """The weights to begin with; None where there are none, so that a network begins afresh.

    Args:
        asked: what the user asked for: a name of timm's with its tag, torchvision, efficientnet_lite0, or
            ARCHITECTURE=FILE; None: look for some.
        seconds_of: measures a forward pass of one picture, by the block of settings and the side in pixels.
        seconds: that all passes may take on this machine.
        passes: over how many pictures a core, or the GPU, has to go.

    Raises:
        UserError: if what was asked for is not there.
    """
    if asked is not None:
        return _weights(_network(asked), "as asked for", seconds_of)
    too_slow = []
    for name in filter(_is_cached, CACHED):
        found = _weights(_timm(name), "found in this machine's cache", seconds_of)
        if found.seconds * passes <= seconds:
            return found
        too_slow.append(name)
    but = f"; {', '.join(too_slow)} in the cache would take longer (--weights, --minutes)" if too_slow else ""
    if _is_embedded():
        return _weights(_network(EMBEDDED), f"in the environment, no network is needed{but}", seconds_of)
    if _hub_answers():
        return _weights(_timm(DOWNLOADED), f"to be downloaded once, 19 MB{but}", seconds_of)
    return None


def _weights(
    network: dict[str, Any], why: str, seconds_of: Callable[[dict[str, Any], int], float]
) -> Weights:
    known = _known(network)
    size = known.size if known else None
    licence = known.licence if known else "not stated"
    what = known.source if known else f"{network['architecture']}, pretrained: {network['pretrained']}"
    return Weights(network, what, why, licence, size, seconds_of(network, size or 224))


def _known(network: dict[str, Any]) -> KnownWeights | None:
    options = {key: value for key, value in network.items() if key != "name"}
    try:
        checked = settings_of("networks", network["name"]).model_validate(options)
    except ValidationError as error:
        raise UserError(f"--weights: {error.errors()[0]['msg']}") from None
    return weights_of(Method(name=network["name"], options=checked))


def _network(asked: str) -> dict[str, Any]:
    architecture, is_file, file = asked.partition("=")
    if asked == EMBEDDED:
        return {"name": "timm_model", "architecture": EMBEDDED_ARCHITECTURE, "pretrained": EMBEDDED}
    if asked == "torchvision":
        return {"name": "resnet", "architecture": "resnet50", "pretrained": "torchvision"}
    if is_file and Path(file).expanduser().is_file():
        name = "resnet" if re.fullmatch(r"resnet\d+|resnext\d+", architecture) else "timm_model"
        return {"name": name, "architecture": architecture, "pretrained": file}
    if not is_file and re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", asked) and not Path(asked).exists():
        return _timm(asked)
    raise UserError(
        f"--weights {shown(asked)}: should be {EMBEDDED}, torchvision, a name of timm's with the tag that "
        "says which weights (resnet50.a1_in1k), or an architecture and a file of its weights (resnet50=FILE)"
    )


def _timm(name: str) -> dict[str, Any]:
    return {"name": "timm_model", "architecture": name, "pretrained": True}


def _is_cached(name: str) -> bool:
    """Whether timm's weights lie in the cache of model hubs."""
    with suppress(ImportError):
        from huggingface_hub import try_to_load_from_cache

        files = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")
        return any(isinstance(try_to_load_from_cache(f"timm/{name}", file), str) for file in files)
    return False


def _is_embedded() -> bool:
    from longtail.stage_one.networks.embedded_weights import read_embedded

    try:
        read_embedded()
    except UserError:
        return False
    return True


def _hub_answers() -> bool:
    try:
        socket.create_connection(HUB, PATIENCE).close()
    except OSError:
        return False
    return True
