"""Names of picture files as a tensor of bytes."""

import torch
from torch import Tensor


def packed(names: list[str]) -> Tensor:
    """Names of files as a tensor of bytes, uint8; none of them has a NUL."""
    content = "\0".join(names).encode("utf-8", "surrogateescape")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0).byte()


def unpacked(content: Tensor) -> list[str]:
    """The names again."""
    text = content.numpy().tobytes().decode("utf-8", "surrogateescape")
    return text.split("\0") if text else []
