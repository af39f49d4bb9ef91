"""Settings files as data: YAML 1.2, and `like: FILE`."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from longtail.errors import UserError
from longtail.settings.shorthand import over, without


def read_file(path: Path, below: tuple[Path, ...] = ()) -> Any:
    """What stands in a settings file, over what stands in the file that it is like."""
    try:
        data = parse(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # also what is not UTF-8
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(data, dict) or "like" not in data:
        return data
    if not isinstance(data["like"], str):
        raise UserError(f"{path}: like: {data['like']!r} is not the path of a settings file")
    other = path.parent / data.pop("like")
    if path.resolve() in below:
        raise UserError(f"{path}: like: goes round in a circle")
    base = read_file(other, (*below, path.resolve()))
    return over(without(base, data.pop("without", []), f"{path}: without"), data)


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
    """The data of a settings file, by YAML 1.2 as DVC reads it: `on` is a word and 5e-4 a number.

    Raises:
        ValueError: if it is not YAML, or gives a key twice; the message is one line.
    """
    try:
        return YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        twice = str(error.problem).partition(" with ")[0].removeprefix("found duplicate key ")
        raise ValueError(f"{_line(error)}{twice} given twice") from None
    except MarkedYAMLError as error:
        raise ValueError(f"{_line(error)}{error.problem}") from None
    except (YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("brackets in brackets, too many of them") from None


def _line(error: MarkedYAMLError) -> str:
    return f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
