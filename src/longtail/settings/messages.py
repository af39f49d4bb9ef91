"""What is wrong with settings, as one line an error."""

from typing import Any

from pydantic import ValidationError

from longtail.errors import shown
from longtail.settings.shorthand import MisplacedError

MOST = 10  # errors that are said at once


def joined(lines: list[str]) -> str:
    """Several errors as one line."""
    more = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return "; ".join([*lines[:MOST], *more])


def error_lines(error: ValidationError, prefix: tuple[Any, ...] = ()) -> list[str]:
    """One `key.path: what is wrong, what is allowed` for each error."""
    lines: list[str] = []
    for item in error.errors():
        where = prefix + item["loc"]
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, ValidationError):
            lines.extend(error_lines(cause, where))
        elif isinstance(cause, MisplacedError):
            lines.append(f"{cause.path}: {cause}")
        else:
            lines.append(f"{_key(where)}: {_message(item)}")
    return lines


def _key(where: tuple[Any, ...]) -> str:
    tags = {"constant", "power", "exponential", "cosine", "step", "pareto", "natural", "counts", "[key]"}
    tags |= {"published", "folder", "list", "csv"}
    text = ""
    for index, part in enumerate(where):
        if isinstance(part, int):
            text += f"[{part}]"
        elif part == "method" and where[0] == "stage_two":
            continue  # an entry of stage_two is flat in params.yaml
        elif not (part in tags and index > 0 and where[index - 1] in ("gamma", "decay", "imbalance", "data")):
            text += f".{part}" if text else str(part)
    return text


def _message(item: Any) -> str:
    value = item["input"]
    kind, context = item["type"], item.get("ctx", {})
    hints = {"ratios": "a ratio is largest class / smallest class, e.g. 100"}
    hint = next((f"; {text}" for key, text in hints.items() if key in item["loc"]), "")
    match kind:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"{shown(value)} is below {context['ge']:g}{hint}"
        case "greater_than":
            return f"{shown(value)} must be above {context['gt']:g}{hint}"
        case "less_than" | "less_than_equal":
            return f"{shown(value)} is too large, {item['msg'].removeprefix('Input should be ')}{hint}"
        case _:
            known = shown(value) if isinstance(value, str) or len(repr(value)) < 60 else type(value).__name__
            return f"{known}: {item['msg'].replace('Input should be', 'should be')}{hint}"
