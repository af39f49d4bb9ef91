"""Damaged files of the project's own: one line with the way out, and nothing that is good is lost."""

import errno
import json
import os
import shutil

import pytest

from longtail.errors import UserError
from longtail.orchestration import execute
from longtail.orchestration.planner import plan
from longtail.runs import digest_cache, store
from longtail.runs.code_identity import adopted
from longtail.settings.params import Params
from tests.workflow.conftest import TINY

A, B = "a" * 64, "b" * 64
LINE = f"split,{A},{B},renamed variables"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.home.cache_clear()


@pytest.mark.parametrize(
    "content",
    [
        f"step,code,as,reason\n<<<<<<< HEAD\n{LINE}\n=======\n{LINE}\n>>>>>>> other\n".encode(),
        f"<<<<<<< HEAD\nstep,code,as,reason\n{LINE}\n".encode(),
        f"step,code,as,reason\n{LINE}\nsplit,{A[:20]}\n".encode(),
        f"step,code,as,reason\n{LINE.replace('renamed', 'ümbenannt')}\n".encode("latin-1"),
        f"step,code,as,reason\n{LINE}\n".encode("utf-16"),
        bytes(range(256)),
    ],
)
def test_lines_of_adopted_code_that_are_none(tmp_path, content):
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/adopted.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"adopted\.csv.*`git checkout .*adopted\.csv`") as caught:
        adopted(A, tmp_path)
    assert str(caught.value).isprintable()


def test_good_lines_of_adopted_code(tmp_path):
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/adopted.csv").write_bytes(f"\ufeffstep,code,as,reason\r\n\r\n{LINE}\r\n".encode())
    assert adopted(A, tmp_path) == B


def planned():
    made = plan(Params.read(json.loads(json.dumps(_settings()))))
    made.write()
    return made


def _settings():
    from longtail.settings.reading import parse

    return parse(TINY)


DAMAGE = [b"", b'{"step": "split"', b"\xff\xfe", b"[]", b"null", b'{"step": "split"}', b"[" * 10_000]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_the_plan_is_one_line_and_planning_heals_it(damage):
    made = planned()
    (split,) = made.split
    table = made.tables["table2"]
    names = {"split": split, "tables": f"table2-{table.identity[:16]}", "layers": made.digest}
    for kind, name in names.items():
        file = store.PLANNED / kind / f"{name}.json"
        good = file.read_bytes()
        file.write_bytes(damage)
        with pytest.raises(UserError, match=r"is damaged; what has planned it \(`longtail plan`, `snak"):
            store.read_plan(kind, name)
        made.write()
        assert file.read_bytes() == good
        assert store.read_plan(kind, name)


def test_a_layer_that_is_none():
    made = planned()
    with pytest.raises(UserError, match="foo: no layer; there are acquire, split"):
        execute.check("foo", made.digest)


def finished(folder):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"identity": "i", "outputs": {}}')
    return folder


@pytest.mark.parametrize("link", [False, True])
def test_a_file_in_the_place_of_a_finished_run_is_set_aside(tmp_path, link, capsys):
    place = store.stored("split", "run")
    place.parent.mkdir(parents=True)
    if link:
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.write_text("mine")
    kept = store.keep(finished(tmp_path / "made"), "split", "run")
    assert (kept / "run.json").is_file()
    aside = place.with_name(".damaged-run")
    assert aside.is_symlink() if link else aside.read_text() == "mine"
    assert "set aside as" in capsys.readouterr().err


def test_a_store_that_cannot_be_written_is_found_before_anything_is_computed(monkeypatch):
    made = planned()
    (split,) = made.split
    shelf = store.stored("split", split).parent
    monkeypatch.setattr(execute, "module_of", lambda step: pytest.fail("it was computed"))
    monkeypatch.setattr(execute, "locate", lambda step, reference: None)
    shelf.parent.mkdir(parents=True)
    shelf.write_text("a file")
    with pytest.raises(FileExistsError):
        execute.execute("split", split)


def test_a_run_that_is_linked_already_needs_no_writing(tmp_path, monkeypatch):
    source = finished(tmp_path / "store")
    store.link(source, tmp_path / "results")

    def immutable(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", immutable)
    monkeypatch.setattr(shutil, "copyfile", immutable)
    store.link(source, tmp_path / "results")


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        store.write_text(tmp_path / "file.json", "{}")
    assert not list(tmp_path.glob(".file*"))


def test_a_digest_that_cannot_be_remembered_is_still_one(tmp_path, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    (tmp_path / "weights").write_bytes(b"abc")
    monkeypatch.setattr(digest_cache, "write_json", read_only)
    assert digest_cache.remembered_digest(tmp_path / "weights").startswith("ba7816bf")
