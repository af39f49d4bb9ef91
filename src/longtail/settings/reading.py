"""Settings files as data: YAML 1.2, and `like: FILE`."""

import stat
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from longtail.errors import UserError, one_line, shown
from longtail.settings.plain_data import check_plain
from longtail.settings.shorthand import over, without

LARGEST = 1 << 22  # bytes of a settings file


def read_file(path: Path, below: tuple[Path, ...] = ()) -> Any:
    """What stands in a settings file, over what stands in the file that it is like."""
    try:
        data = parse(read_text(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(data, dict) or "like" not in data:
        return data
    if not isinstance(data["like"], str) or not data["like"]:
        raise UserError(f"{path}: like: {shown(data['like'])} is not the path of a settings file")
    other = path.parent / data.pop("like")
    if path.resolve() in below:
        raise UserError(f"{path}: like: goes round in a circle")
    base = read_file(other, (*below, path.resolve()))
    if not isinstance(base, dict):
        raise UserError(f"{path}: like: {other} has no settings, which are keys and values")
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


def read_text(path: Path) -> str:
    """The text of a settings file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no file, too large for settings, or not UTF-8; the message is one line.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("is no file; a settings file is one of text, as params.yaml")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"is larger than {LARGEST:,} bytes, and no settings file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{content[error.start]:02x}"
        raise ValueError(f"line {line} is not UTF-8 ({byte}); save the file as UTF-8") from None


def parse(text: str) -> Any:
    """The data of a settings file, by YAML 1.2 as DVC reads it: `on` is a word and 5e-4 a number.

    Raises:
        ValueError: if it is not YAML, gives a key twice, or has what settings never have, such as a date or a
            key that is no text; the message is one line.
    """
    try:
        data = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        twice = str(error.problem).partition(" with ")[0].removeprefix("found duplicate key ")
        reason = f"{_line(error)}{twice} given twice"
    except MarkedYAMLError as error:
        reason = f"{_line(error)}{error.problem}"
    except RecursionError:
        reason = "brackets in brackets, too many of them"
    # What ruamel.yaml makes of a tag whose value does not fit it: `!!int abc`, `2020-02-30`, `!!float []`.
    except (YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        reason = str(error).partition(";")[0] or type(error).__name__
    else:
        check_plain(data)
        return data
    raise ValueError(f"not valid YAML: {one_line(reason)}")


def _line(error: MarkedYAMLError) -> str:
    return f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
