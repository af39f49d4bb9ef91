"""A file of weights in params.yaml: named by its path, known by its content.

Imports no torch, so that params.yaml can be read without it; the file is read by
`longtail.stage_one.networks.pretrained`.
"""

from typing import Any

from pydantic import Field

from longtail.settings.base import Settings

COMPUTES = True  # hashed with the runs that it computes (longtail.runs.code_identity)


class WeightFile(Settings):
    """Weights that a network begins with: `pretrained: PATH` of params.yaml.

    Planning fills in the digest, and then it alone is hashed: the same content elsewhere is the same run.
    """

    file: str = Field(min_length=1)  # its path
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")  # that it has to have; null: any

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """Both keys; for hashing the digest, or the path where nothing that is planned has asked for it."""
        found = super().kept(hashed)
        return {"sha256": self.sha256} if hashed and self.sha256 else found


def as_file(value: Any) -> Any:
    """A path as the file that it names, null and true and false as they are.

    Raises:
        ValueError: if it is something else.
    """
    if value is None or isinstance(value, bool | WeightFile):
        return value
    if isinstance(value, str) and value:
        return WeightFile(file=value)
    if isinstance(value, dict):
        return WeightFile.model_validate(value)
    raise ValueError(f"{value!r} is not the path of a file of weights")
