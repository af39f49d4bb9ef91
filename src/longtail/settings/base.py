"""What every block of settings is made of: typed, complete, immutable, and hashed without neutral values."""

import json
from functools import cache, partial
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, cast, final

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from longtail.errors import shown
from longtail.runs.identity import canonical, composed


class Neutral:
    """Marks a key that was added later: with this value a run is what it was before the key existed.

    Use as `Annotated[float, Neutral(0.0)] = 0.1`. A neutral value is left out of the identity, so
    that the new key invalidates no old run.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


def _with_strict_choices(schema: Any) -> Any:
    """A schema of pydantic in which no choice takes true or 1.0 for 1, which to Python are one."""
    if isinstance(schema, list):
        return [_with_strict_choices(item) for item in schema]
    if not isinstance(schema, dict) or schema.get("type") == "function-before":
        return schema
    if schema.get("type") == "literal" and not all(isinstance(one, str) for one in schema["expected"]):
        return core_schema.no_info_before_validator_function(
            partial(_of_a_type, choices=tuple(schema["expected"])), cast(CoreSchema, schema)
        )
    return {key: _with_strict_choices(item) for key, item in schema.items()}


def _of_a_type(value: Any, choices: tuple[Any, ...]) -> Any:
    if type(value) not in map(type, choices):
        raise ValueError(f"{shown(value)}: should be {' or '.join(map(repr, choices))}")
    return value


class Settings(BaseModel):
    """A block of settings: typed, complete (every default filled in), immutable; unknown keys are errors.

    Types are strict: "4" is no number, true is no 1. A whole number may stand where a fraction may.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """As pydantic has it, but a choice of numbers (`Literal[1, 3]`) is strict too."""
        return cast(CoreSchema, _with_strict_choices(handler(source)))

    @final
    def resolved(self, hashed: bool = False) -> dict[str, Any]:
        """All keys with their values as JSON data; for hashing, without those at their neutral value."""
        return {key: plain(value, hashed) for key, value in self.kept(hashed).items()}

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """What `resolved` has, with the values as they are, blocks as settings."""
        found = {}
        for name, key, neutral in _keys(type(self)):
            value = getattr(self, name)
            if not (hashed and value in neutral):
                found[key] = value
        return found


@cache
def _keys(block: type[Settings]) -> list[tuple[str, str, list[Any]]]:
    """Of each field: its name, its key in params.yaml, its neutral value if it has one."""
    return [
        (name, field.alias or name, [mark.value for mark in field.metadata if isinstance(mark, Neutral)])
        for name, field in block.model_fields.items()
    ]


def plain(value: Any, hashed: bool = False) -> Any:
    """Settings, and whatever holds settings, as JSON data; see `Settings.resolved`."""
    if isinstance(value, Settings):
        return value.resolved(hashed)
    if isinstance(value, dict):
        return {key: plain(item, hashed) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item, hashed) for item in value]
    return value


class Texts:
    """Settings as JSON text, every block written once, though it stands in thousands of runs.

    Args:
        hashed: whether it is the text that is hashed, else that of all keys.
    """

    def __init__(self, hashed: bool) -> None:
        self.hashed = hashed
        self._known: dict[int, tuple[Settings, str]] = {}  # with the block itself, which keeps its id taken

    def of(self, block: Settings) -> str:
        """The same text as that of `block.resolved(hashed)`."""
        if id(block) not in self._known:
            parts = {key: self._value(value) for key, value in block.kept(self.hashed).items()}
            self._known[id(block)] = block, composed(parts)
        return self._known[id(block)][1]

    def _value(self, value: Any) -> str:
        if isinstance(value, Settings):
            return self.of(value)
        if isinstance(value, str):
            return quoted(value)
        data = plain(value, self.hashed)
        return canonical(data) if self.hashed else json.dumps(data, sort_keys=True)
