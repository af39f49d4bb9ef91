"""Checkpoints of a training: written whole or not at all, and read only when not a bit has changed."""

import json
import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, uint8

from longtail.device import received

DIGEST = "sha256"
STATE = "state"


def write(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replace the checkpoint at `path`; a kill at any moment leaves the old one or the new.

    Args:
        path: the file.
        tensors: on any device.
        state: JSON-able.
    """
    tensors = {name: tensor.contiguous() for name, tensor in received(tensors).items()}
    text = json.dumps(state)
    data = save(tensors, metadata={STATE: text, DIGEST: _digest(tensors, text)})
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the checkpoint at `path`; None where there is none.

    A damaged checkpoint is set aside, which one line on stderr says.

    Raises:
        OSError: if it cannot be read for the moment, which is no damage.
    """
    try:
        path.open("rb").close()  # safetensors says of what it cannot open that it is not there
    except FileNotFoundError:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata[STATE]
        if metadata[DIGEST] != _digest(tensors, text):
            raise ValueError("checksum differs")
        return tensors, json.loads(text)
    except (SafetensorError, KeyError, ValueError) as error:
        discard(path, f"damaged ({error})")
        return None


def discard(path: Path, reason: str) -> None:
    """Set aside a checkpoint that cannot be used, in place of an earlier one, and say so."""
    aside = path.with_name(f"unused-{path.name}")
    path.replace(aside)
    said = f"{path}: checkpoint {reason}, kept as {aside.name}; training starts anew"
    print(said, file=sys.stderr, flush=True)


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()
