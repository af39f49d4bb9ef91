"""How a method's block of settings is found without importing what the method needs to run.

A method (a loss, a sampler, a network, a classifier) is one file. Its settings stand in that file as
`class Settings(longtail.settings.base.Settings)`. Reading params.yaml must stay quick, and importing torch
takes seconds, so `settings_of` executes only the settings part of the file: imports from the modules
named in `LIGHT` and the classes and names that are made of them.
"""

import ast
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from longtail.errors import shown
from longtail.runs.identity import PACKAGE
from longtail.settings.base import Settings
from longtail.settings.names import LONGEST_NAME

ROOMS = {  # of each kind of method, by the name that settings and errors have for it
    **{
        kind: f"stage_one.{kind}"
        for kind in (
            *("networks", "losses", "samplers", "transforms", "observers", "exemplars", "retention"),
            *("steps", "companions"),
        )
    },
    "stage_two": "stage_two",
    "figures": "publish.figures",
}
LIGHT = (
    "typing",
    "pydantic",
    "longtail.settings.base",
    "longtail.settings.known_weights",
    "longtail.settings.schedules",
    "longtail.settings.rich_classes",
    "longtail.settings.split",
    "longtail.settings.weight_file",
    "longtail.settings.finished_runs",
    "longtail.settings.method_blocks",
)


def module_name(kind: str, name: str) -> str:
    """The module of method `name` of a kind ("losses", "stage_two", ...), whether it exists or not."""
    return f"longtail.{ROOMS[kind]}.{name}"


def method_file(kind: str, name: str) -> Path:
    """The file of method `name` of a kind, whether it exists or not."""
    return PACKAGE.joinpath(*ROOMS[kind].split("."), f"{name}.py")


def method_names(kind: str) -> list[str]:
    """The methods that exist of a kind: its modules that define a `Settings` class."""
    folder = PACKAGE.joinpath(*ROOMS[kind].split("."))
    return [file.stem for file in sorted(folder.glob("*.py")) if _is_method(file, file.stat().st_mtime_ns)]


@cache
def _is_method(file: Path, _modified: int) -> bool:
    return file.stem != "__init__" and "\nclass Settings(" in file.read_text("utf-8")


def method_module(kind: str, name: str) -> ModuleType:
    """Import the one method that is asked for."""
    return importlib.import_module(module_name(kind, name))


def settings_of(kind: str, name: str) -> type[Settings]:
    """The `Settings` of a method, without importing what the method needs to run.

    Raises:
        ValueError: if there is no such method; the message lists those that exist.
    """
    file = method_file(kind, name)
    if not (
        name.isidentifier()
        and len(name) <= LONGEST_NAME
        and file.is_file()
        and _is_method(file, file.stat().st_mtime_ns)
    ):
        raise ValueError(f"there is no {shown(name)}; there are {', '.join(method_names(kind))}")
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
