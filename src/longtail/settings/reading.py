"""Settings files as data: YAML 1.2, and `like: FILE`."""

import re
from pathlib import Path
from typing import Any

import yaml

from longtail.errors import UserError
from longtail.settings.shorthand import over, without


def read_file(path: Path, below: tuple[Path, ...] = ()) -> Any:
    """What stands in a settings file, over what stands in the file that it is like."""
    try:
        data = parse(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict) or "like" not in data:
        return data
    if not isinstance(data["like"], str):
        raise UserError(f"{path}: like: {data['like']!r} is not the path of a settings file")
    other = path.parent / data.pop("like")
    if path.resolve() in below:
        raise UserError(f"{path}: like: goes round in a circle")
    base = read_file(other, (*below, path.resolve()))
    return over(without(base, data.pop("without", []), f"{path}: without"), data)


class _Loader(yaml.SafeLoader):
    """YAML 1.2, as DVC reads it: `on` is a word and 5e-4 a number; and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        self.flatten_mapping(node) if len(own) == len(set(own)) else _twice(node, own)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def table_names(path: Path) -> set[str]:
    """Names of the tables of a settings file, as far as it names any; nothing else of it is checked.

    Raises:
        UserError: if it cannot be read.
    """
    data = read_file(path)
    found = {key: data.get(key) if isinstance(data, dict) else None for key in ("tables", "sweeps")}
    tables, sweeps = (list(block) if isinstance(block, dict) else [] for block in found.values())
    return {*map(str, tables), *(f"sweeps/{name}" for name in sweeps)}


def parse(text: str) -> Any:
    """The data of a settings file.

    Raises:
        yaml.YAMLError: if it is not YAML, or gives a key twice.
    """
    return yaml.load(text, Loader=_Loader)


def _twice(node: yaml.MappingNode, keys: list[str]) -> None:
    twice = sorted({key for key in keys if keys.count(key) > 1})
    raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} given twice", node.start_mark)
