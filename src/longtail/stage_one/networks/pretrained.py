"""Weights that a network begins with: read without running anything, checked, and loaded but for the head.

The head of a file is always left out, also where its number of classes fits: what it has learnt is its
author's classes, in its author's order, often from the balanced whole of a dataset that is long-tailed here.
So `pretrained` means the same whatever the dataset is: a trunk that has seen images, and a new classifier.
"""

import json
import socket
from collections.abc import Mapping
from hashlib import sha256
from http.client import HTTPException
from io import BytesIO
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from longtail.errors import UserError
from longtail.settings.weight_file import WeightFile
from longtail.stage_one.networks.batchnorm import COUNT

TORCHVISION = "https://download.pytorch.org/models/"
PATIENCE = 60.0  # seconds without a byte after which a download counts as failed
# Where checkpoints of training code keep the network's tensors: SSP and MoCo in the first, Decoupling in the
# second and, in that, the third; MAE and others in the last.
WRAPPERS = ("state_dict", "state_dict_best", "feat_model", "model")
# What stands before the names of the network's tensors: several devices', MoCo's (whose queue and second
# encoder go unused), and that of longtail.stage_one.networks.timm_model.
PREFIXES = ("module.", "encoder_q.", "backbone.")
SHOWN = 3  # names that an error has


def read(source: WeightFile) -> dict[str, Tensor]:
    """The tensors of a file, .safetensors or what torch.save has written, by their names in the network.

    Raises:
        UserError: if it is missing, not the file that was planned, or holds anything but tensors and numbers.
    """
    file = Path(source.file).expanduser()
    content = _content(file)
    if source.sha256 and (found := sha256(content).hexdigest()) != source.sha256:
        raise UserError(
            f"{file}: is not the file that was planned (its SHA-256 is {found[:12]}..., planned is "
            f"{source.sha256[:12]}...); type the command again to plan anew"
        )
    return unwrapped(_parsed(content, file), file)


def read_torchvision(name: str) -> dict[str, Tensor]:
    """The tensors of one of torchvision's files, from torch's cache or, once, from the network.

    Args:
        name: of the file; it ends with the first digits of its SHA-256, e.g. resnet18-f37072fd.pth.

    Raises:
        UserError: if it is neither there nor to be had, or its content is another.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not file.is_file():
        _download(name, file)
    content = _content(file)
    if not sha256(content).hexdigest().startswith(digits := name.rpartition("-")[2].removesuffix(".pth")):
        raise UserError(f"{file}: its SHA-256 does not begin with {digits}; delete it and try again")
    return unwrapped(_parsed(content, file), file)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); see network.pretrained") from None


def _download(name: str, file: Path) -> None:
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(TORCHVISION + name, str(file), progress=False)
    except (OSError, HTTPException) as error:
        raise UserError(
            f"pretrained: torchvision: {file} is not there and cannot be downloaded "
            f"({' '.join(str(error).split())[:120]}); put {TORCHVISION}{name} there, or name a file: "
            "pretrained: PATH"
        ) from None
    finally:
        socket.setdefaulttimeout(patience)


def _parsed(content: bytes, file: Path) -> object:
    try:
        if file.suffix == ".safetensors":
            return load_safetensors(content)
        return torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except SafetensorError as error:
        reason = str(error)
    except Exception as error:  # whatever a damaged archive, or one with more than tensors, makes of it
        reason = str(error).partition(". ")[0] or type(error).__name__
    raise UserError(
        f"{file}: cannot be read as weights ({' '.join(reason.split())[:160]}); needs .safetensors, or "
        "a file of torch.save with nothing but tensors, numbers and names in it"
    )


def unwrapped(found: object, file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names in the network, whatever stands around and before them.

    Raises:
        UserError: if there are none.
    """
    while isinstance(found, Mapping) and (inner := [found[key] for key in WRAPPERS if key in found]):
        found = inner[0]
    tensors = found if isinstance(found, Mapping) else {}
    if not tensors or not all(
        isinstance(name, str) and isinstance(tensors[name], Tensor) for name in tensors
    ):
        raise UserError(f"{file}: has no weights, nor a state_dict of them")
    for prefix in PREFIXES:
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if own:
            tensors = {name.removeprefix(prefix): tensor for name, tensor in own.items()}
    return dict(tensors)


def load(network: nn.Module, tensors: Mapping[str, Tensor], source: str, heads: tuple[str, ...]) -> None:
    """Give a network the weights of a file, all of them but for heads, which both may have.

    Args:
        network: keeps its own head.
        tensors: by their names in the network.
        source: where they are from, for the error line.
        heads: what names of heads begin with, in the network and in the file.

    Raises:
        UserError: naming what is missing, too many, or of another shape.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(heads)}
    given = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(heads) and not name.endswith(f".{COUNT}")
    }
    wrong = []
    if missing := [name for name in own if name not in given]:
        wrong.append(f"it lacks {_some(missing)}")
    if unexpected := [name for name in given if name not in own]:
        wrong.append(f"the network has no {_some(unexpected)}")
    shapes = [
        f"{name} {_size(given[name])} instead of {_size(tensor)}"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    if shapes:
        wrong.append(f"it has {_some(shapes)}")
    if wrong:
        raise UserError(f"{source}: does not fit the network: {'; '.join(wrong)}")
    network.load_state_dict(given, strict=False)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"


def digest(network: nn.Module) -> str:
    """SHA-256 over names and values of a network's tensors, for weights whose file has no published one."""
    result = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        result.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        result.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return result.hexdigest()
