"""The folder of an exported model: what is in it, read back and checked. Needs no torch.

    model.safetensors  the weights         model.json  all else that predicting needs, hashes of the other two
    model.onnx         the whole function  README.md   the model card

Nothing here is pickle, and names of files never come out of the folder itself.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from longtail.errors import UserError
from longtail.settings.base import Settings

WEIGHTS, ONNX, DESCRIPTION, CARD = "model.safetensors", "model.onnx", "model.json", "README.md"
Positive = Annotated[float, Field(gt=0)]


class Description(Settings):
    """model.json: the images a model takes, the classes it tells apart, and what its weights mean."""

    model_config = ConfigDict(strict=False)  # of JSON, and of what torch calls a size

    format: Literal["longtail-model-1"] = "longtail-model-1"
    name: str  # of the run of stage two
    identity: str  # of the same
    network: dict[str, Any]  # its module's name and its settings, as in params.yaml
    classes: list[str] = Field(min_length=1)
    channels: Literal[1, 3]
    size: tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]]  # height, width
    # of a picture: side of the square in its middle that is seen / its shorter side; null: all is seen
    crop: Annotated[float, Field(gt=0, le=1)] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # by which pictures are resized
    mean: list[float]  # per channel, of pixels / 255
    std: list[Positive]
    dimensions: int = Field(ge=1)  # of a feature
    tukey: float = 1.0  # as in longtail.stage_two.classifier.Fitted
    center: bool = False
    normalise: bool = False
    temperature: Positive  # probabilities = softmax(logits / temperature)
    sha256: dict[str, str]  # of model.safetensors and model.onnx
    origin: dict[str, Any]  # for people: dataset, runs, hashes, versions, calibration

    @model_validator(mode="after")
    def _a_mean_and_a_std_a_channel(self) -> "Description":
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std should have {self.channels} numbers each")
        return self


def opened(model: str | Path) -> tuple[Path, str, Description]:
    """An exported model's folder, the file that is to predict (weights or ONNX), and model.json.

    Args:
        model: the folder (its model.safetensors is to predict), or one of the two files.

    Raises:
        UserError: if it is no exported model.
    """
    path = Path(model)
    folder, file = (path.parent, path.name) if path.name in (WEIGHTS, ONNX) else (path, WEIGHTS)
    if not (folder / DESCRIPTION).is_file():
        hint = f"`longtail export` writes a folder with {WEIGHTS}, {ONNX} and {DESCRIPTION}"
        raise UserError(f"{path}: is not an exported model ({folder / DESCRIPTION} is not there); {hint}")
    try:
        return folder, file, Description.model_validate(json.loads(read(folder, DESCRIPTION)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        reason = f"{where}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
    raise UserError(f"{folder / DESCRIPTION}: is damaged ({reason}); export the model again")


def read(folder: Path, file: str, description: Description | None = None) -> bytes:
    """The bytes of a file of the folder; of the other two, checked against the hash in model.json.

    Raises:
        UserError: if it is missing, a link to elsewhere, or not the file that was exported.
    """
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path}: is a link out of its folder, which is not followed; copy the file there")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; export the model again") from None
    if description is not None and sha256(content).hexdigest() != description.sha256.get(file):
        raise UserError(f"{path}: is damaged (its hash is not the one in {DESCRIPTION}); export it again")
    return content
