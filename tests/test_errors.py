"""Errors: one line of bounded length, also for what a machine does, and no other exception hidden."""

import errno
import os
import sys

import pytest
from safetensors import SafetensorError

from longtail import cli
from longtail.errors import LONGEST, MOST, UserError, foreseen, shown
from longtail.orchestration import listing


def raised(error: BaseException) -> str:
    with pytest.raises(UserError) as caught, foreseen():
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "line\n" * 30_000, "\x1b[2J" * 900, "\U000e0001" * 1000, "\r\n\0\ud800"]
)
def test_a_line_is_one_line_of_bounded_length_that_a_terminal_can_show(text):
    line = str(UserError(f"params.yaml: {text}; rename it"))
    assert line.isprintable()
    assert len(line) <= LONGEST
    assert line.startswith("params.yaml: ")
    assert line.endswith("; rename it")


def test_several_mistakes_are_a_line_each_and_not_too_many():
    lines = str(UserError(*[f"file {number}\nis gone" for number in range(1000)])).split("\n")
    assert lines[0] == "file 0 is gone"
    assert lines[MOST] == f"and {1000 - MOST} more"
    assert len(lines) == MOST + 1


def test_a_value_is_shown_with_its_beginning_and_its_end():
    assert shown("ce") == "'ce'"
    assert shown("a" * 500 + "z") == "'" + "a" * 41 + " ... " + "a" * 11 + "z'"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left; free some"),
        (errno.EDQUOT, "no space left; free some"),
        (errno.EROFS, "is on a read-only file system"),
        (errno.EACCES, "no permission"),
        (errno.EPERM, "not permitted (an immutable file"),
        (errno.ENAMETOOLONG, "the name is too long"),
        (errno.EIO, os.strerror(errno.EIO)),
        (errno.ENOTDIR, os.strerror(errno.ENOTDIR)),
        (errno.ESTALE, os.strerror(errno.ESTALE)),
    ],
)
def test_what_a_disk_does_is_one_line_with_the_file(number, words):
    assert raised(OSError(number, os.strerror(number), "results/x")).startswith(f"results/x: {words}")


def test_a_full_disk_without_a_file_and_in_safetensors():
    assert raised(OSError(errno.ENOSPC, "No space left on device")).startswith("disk: no space left")
    assert raised(SafetensorError("I/O error: No space left (os error 28)")).startswith("disk: no space left")


def test_too_little_memory_is_one_line():
    assert raised(MemoryError()).startswith("memory: there is not enough for this process; free")
    assert "ulimit -v" in raised(ImportError("libtorch_cpu.so: failed to map segment from shared object"))
    assert "ulimit -v" in raised(RuntimeError("can't start new thread"))
    outer = ImportError("Unable to import required dependency numpy.")
    outer.__cause__ = ImportError("x.so: failed to map segment from shared object")
    assert "ulimit -v" in raised(outer)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("models"),
        RuntimeError("shapes"),
        ImportError("no module"),
        OSError("a library's"),
        BrokenPipeError(32, "pipe"),
    ],
)
def test_every_other_exception_passes(error):
    with pytest.raises(type(error)) as caught, foreseen():
        raise error
    assert caught.value is error


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    return int(caught.value.code or 0)


def test_a_command_says_what_the_disk_does_in_one_line_and_the_log_says_where(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.EROFS, "Read-only file system", ".longtail/plan")

    monkeypatch.setattr(listing, "plan", full)
    monkeypatch.setattr(listing.Params, "load", lambda file: None)
    assert run("plan") == 2
    assert capsys.readouterr().err == ".longtail/plan: is on a read-only file system\n"

    monkeypatch.setattr("longtail.orchestration.execute.execute", full)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    assert run("stage-one", "run", "--log", str(tmp_path / "run.log")) == 2
    assert capsys.readouterr().err == ".longtail/plan: is on a read-only file system\n"
    log = (tmp_path / "run.log").read_text()
    assert log.startswith(".longtail/plan: is on a read-only file system\nTraceback")
    assert "in full" in log


def test_a_fault_of_the_code_is_not_hidden(monkeypatch):
    monkeypatch.setattr(listing.Params, "load", lambda file: {}["models"])
    with pytest.raises(KeyError):
        cli.main(["plan"])
