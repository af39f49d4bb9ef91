"""Digests of large files: right whenever the file moves, and not computed again while it does not."""

import json
import os
from hashlib import sha256

import pytest

from longtail.runs import digest_cache as digests
from longtail.runs.digest_cache import remembered_digest


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Files that were read, in a project of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digests, "home", lambda here: tmp_path / ".longtail")
    found, real = [], digests.file_digest

    def counted(file):
        found.append(file)
        return real(file)

    monkeypatch.setattr(digests, "file_digest", counted)
    return found


def test_a_file_is_read_once_while_it_stays_as_it_is(tmp_path, read):
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    for _ in range(3):
        assert remembered_digest(file) == sha256(b"abc").hexdigest()
    assert len(read) == 1


def test_an_edit_is_seen_also_with_the_size_and_the_time_of_before(tmp_path, read):
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    before = file.stat()
    remembered_digest(file)
    file.write_bytes(b"abd")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert remembered_digest(file) == sha256(b"abd").hexdigest()


@pytest.mark.parametrize("memory", ["", "[1]", '{"a": 1}', "no json"])
def test_a_damaged_memory_is_as_none(tmp_path, read, memory):
    file, place = tmp_path / "weights", tmp_path / ".longtail/digests.json"
    file.write_bytes(b"abc")
    place.parent.mkdir()
    place.write_text(memory)
    assert remembered_digest(file) == sha256(b"abc").hexdigest()
    assert str(file) in json.loads(place.read_text())


def test_a_missing_file_is_an_error_of_the_system(tmp_path, read):
    with pytest.raises(FileNotFoundError):
        remembered_digest(tmp_path / "none")
