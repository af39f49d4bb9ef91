"""What source files say is remembered by their content, and never believed where memory was touched."""

import json
from pathlib import Path
from typing import Any

import pytest

from longtail.runs import source_memory, store
from longtail.runs.source_memory import SourceMemory


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.home.cache_clear()
    Path("reader.py").write_text("one")
    yield
    store.home.cache_clear()


class Reader:
    """Counts what it reads."""

    def __init__(self) -> None:
        self.read: list[bytes] = []

    def __call__(self, content: bytes) -> dict[str, Any]:
        self.read.append(content)
        return {"tree": content.decode().upper()}


def asked(*contents: bytes) -> tuple[list[bytes], list[str]]:
    """A process that asks about files: what it had to read, and what it was told."""
    memory, reader = SourceMemory(Path("reader.py")), Reader()
    told = [memory.of(content, reader)["tree"] for content in contents]
    memory.write()
    return reader.read, told


def test_a_file_is_read_once_whatever_its_name_and_in_any_process():
    assert asked(b"a", b"b", b"a") == ([b"a", b"b"], ["A", "B", "A"])
    assert asked(b"b", b"c") == ([b"c"], ["B", "C"])


def test_a_reader_that_was_edited_reads_everything_again():
    asked(b"a")
    Path("reader.py").write_text("two")
    assert asked(b"a") == ([b"a"], ["A"])


def test_a_damaged_entry_is_read_again():
    asked(b"a", b"b")
    file = Path(".longtail/sources.json")
    known = json.loads(file.read_text())
    for entry in known.values():
        entry["read"]["tree"] = "edited"
    file.write_text(json.dumps(known))
    assert asked(b"a") == ([b"a"], ["A"])
    assert asked(b"a") == ([], ["A"])


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"x": 1}', "\xff", "[" * 100_000])
def test_a_damaged_memory_is_none(text):
    asked(b"a")
    Path(".longtail/sources.json").write_text(text, "latin-1")
    assert asked(b"a") == ([b"a"], ["A"])


def test_what_cannot_be_kept_is_read_again(monkeypatch):
    def full(*_args: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(source_memory, "write_json", full)
    assert asked(b"a") == asked(b"a") == ([b"a"], ["A"])


def test_memory_does_not_grow_for_ever(monkeypatch):
    monkeypatch.setattr(source_memory, "MOST", 3)
    asked(b"a", b"b", b"c")
    asked(b"d")
    assert len(json.loads(Path(".longtail/sources.json").read_text())) == 1
