"""The identity of a run: a hash of its settings, of what it is built on and of the code that computes it."""

import json
from hashlib import sha256
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def digest(data: Any) -> str:
    """SHA-256 of JSON data, in hexadecimal; the order of keys does not count, 1 and 1.0 are one."""
    return hashed(canonical(data))


def hashed(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return sha256(text.encode()).hexdigest()


def canonical(data: Any) -> str:
    """JSON data as the text that is hashed."""
    return json.dumps(_canonical(data), sort_keys=True, separators=(",", ":"))


def composed(parts: dict[str, str]) -> str:
    """The text of an object of which the texts of its values are known."""
    return "{" + ",".join([f"{quoted(key)}:{parts[key]}" for key in sorted(parts)]) + "}"


def _canonical(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _canonical(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_canonical(value) for value in data]
    if isinstance(data, float) and data.is_integer():
        return int(data)
    return data


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    result = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            result.update(block)
    return result.hexdigest()
