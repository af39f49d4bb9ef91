"""What the data of a settings file is made of: named values, lists, texts, numbers, true, false, null."""

import math
from datetime import date
from typing import Any

from longtail.errors import shown

DEEPEST = 30  # blocks in blocks
MOST = 200_000  # values of a file, those behind an alias counted wherever it stands
LONGEST = 10_000  # characters of a text
WIDEST = 64  # bits of a number

Path = tuple[str | int, ...]


def check_plain(data: Any) -> None:
    """Refuse what YAML knows and settings do not, and what no person would write.

    Raises:
        ValueError: with the key of the first such value, what is wrong with it and what is right.
    """
    waiting: list[tuple[Path, Any]] = [((), data)]
    count = 0
    while waiting:
        path, value = waiting.pop()
        count += 1
        if count > MOST:
            raise ValueError(f"more than {MOST:,} values; aliases of aliases?")
        if len(path) > DEEPEST:
            raise ValueError(f"{_words(path[:3])}: blocks in blocks, more than {DEEPEST} of them")
        if isinstance(value, dict):
            for key in value:
                _check_key(path, key)
            waiting += [((*path, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [((*path, place), item) for place, item in enumerate(value)]
        elif wrong := _wrong(value):
            raise ValueError(f"{_words(path)}: {wrong}" if path else wrong)


def _check_key(path: Path, key: Any) -> None:
    if not isinstance(key, str):
        small = isinstance(key, float | date) or (isinstance(key, int) and not _wrong(key))
        quoted = f'; in quotes it is a name: "{key}"' if small else ""
        name = "null" if key is None else str(key) if small else f"({type(key).__name__})"
        where = f"{_words(path)}: " if path else ""
        raise ValueError(f"{where}the key {name} is no text{quoted}")
    if wrong := _wrong(key):
        raise ValueError(f"{_words((*path, shown(key)))}: {wrong}")


def _wrong(value: Any) -> str:
    """What is wrong with a value that is neither block nor list; "" where nothing is."""
    match value:
        case None | bool():
            return ""
        case int() if value.bit_length() >= WIDEST:
            return f"a number of {value.bit_length():,} bits; {WIDEST - 1} are the most"
        case float() if not math.isfinite(value):
            return f"{value} is no number that a setting can have"
        case str() if len(value) > LONGEST:
            return f"a text of {len(value):,} characters; {LONGEST:,} are the most"
        case str() if strange := [letter for letter in value if _is_strange(letter)]:
            return f"has the character {strange[0]!a}, which no text of settings has"
        case int() | float() | str():
            return ""
        case date():
            return f'is a date; in quotes it is a text: "{value}"'
    return f"is a {type(value).__name__}, which settings do not have"


def _is_strange(letter: str) -> bool:
    """Whether it is a control character, or half of one that has two halves."""
    code = ord(letter)
    return (code < 32 and letter not in "\t\n\r") or 127 <= code < 160 or 0xD800 <= code < 0xE000


def _words(path: Path) -> str:
    """A path as errors have it, e.g. stage_one.ce.then[0].loss."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
