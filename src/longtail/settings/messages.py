"""What is wrong with settings, as one line an error."""

from typing import Any

from pydantic import ValidationError

from longtail.settings.shorthand import MisplacedError


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
            return f"{value!r} is below {context['ge']:g}{hint}"
        case "greater_than":
            return f"{value!r} must be above {context['gt']:g}{hint}"
        case "less_than" | "less_than_equal":
            return f"{value!r} is too large, {item['msg'].removeprefix('Input should be ')}{hint}"
        case _:
            shown = repr(value) if len(repr(value)) < 60 else type(value).__name__
            return f"{shown}: {item['msg'].replace('Input should be', 'should be')}{hint}"
