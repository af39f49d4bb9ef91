"""What every block of params.yaml is made of, and how a method's block is found without importing torch.

A method (a loss, a sampler, a network, a classifier) is one file. Its settings stand in that file as
`class Settings(longtail.settings.Settings)`. Reading params.yaml must stay quick, and importing torch
takes seconds, so `settings_of` executes only the settings part of the file: imports from the modules
named in `LIGHT` and the classes and names that are made of them.
"""

import ast
import importlib
import json
from functools import cache
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from types import ModuleType
from typing import Any, final

from pydantic import BaseModel, ConfigDict

from longtail.identity import PACKAGE, canonical, composed

LIGHT = (
    "typing",
    "pydantic",
    "longtail.settings",
    "longtail.schedules",
    "longtail.data_rich",
    "longtail.weight_file",
)


class Neutral:
    """Marks a key that was added later: with this value a run is what it was before the key existed.

    Use as `Annotated[float, Neutral(0.0)] = 0.1`. A neutral value is left out of the identity, so
    that the new key invalidates no old run.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


class Settings(BaseModel):
    """A block of settings: typed, complete (every default filled in), immutable; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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


def method_file(kind: str, name: str) -> Path:
    """The file of method `name` of a kind ("losses", "stage_two", ...), whether it exists or not."""
    return PACKAGE.joinpath(*kind.split("."), f"{name}.py")


def method_names(kind: str) -> list[str]:
    """The methods that exist of a kind: its modules that define a `Settings` class."""
    folder = PACKAGE.joinpath(*kind.split("."))
    return [file.stem for file in sorted(folder.glob("*.py")) if _is_method(file, file.stat().st_mtime_ns)]


@cache
def _is_method(file: Path, _modified: int) -> bool:
    return file.stem != "__init__" and "\nclass Settings(" in file.read_text("utf-8")


def method_module(kind: str, name: str) -> ModuleType:
    """Import the one method that is asked for."""
    return importlib.import_module(f"longtail.{kind}.{name}")


def settings_of(kind: str, name: str) -> type[Settings]:
    """The `Settings` of a method, without importing what the method needs to run.

    Raises:
        ValueError: if there is no such method; the message lists those that exist.
    """
    file = method_file(kind, name)
    if not (name.isidentifier() and file.is_file() and _is_method(file, file.stat().st_mtime_ns)):
        raise ValueError(f"there is no {name!r}; there are {', '.join(method_names(kind))}")
    return _light_part(file, file.stat().st_mtime_ns)


@cache
def _light_part(file: Path, _modified: int) -> type[Settings]:
    tree = ast.parse(file.read_text("utf-8"), filename=str(file))
    namespace: dict[str, Any] = {"__name__": f"longtail.settings_of.{file.stem}"}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module in LIGHT:
            exec(compile(ast.Module([node], []), str(file), "exec"), namespace)
        elif isinstance(node, ast.ClassDef) and _is_settings(node, namespace):
            exec(compile(ast.Module([node], []), str(file), "exec"), namespace)
            if node.name == "Settings":
                break
    found = namespace["Settings"]
    assert isinstance(found, type)
    assert issubclass(found, Settings)
    return found


def _is_settings(node: ast.ClassDef, namespace: dict[str, Any]) -> bool:
    bases = [namespace.get(base.id) for base in node.bases if isinstance(base, ast.Name)]
    return any(isinstance(base, type) and issubclass(base, BaseModel) for base in bases)
