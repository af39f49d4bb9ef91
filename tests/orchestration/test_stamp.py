"""Time stamps tell the truth, and a second Snakemake that sets them disturbs no job of the first."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from longtail.orchestration import publishing, stamp
from longtail.publish import make
from longtail.publish.published_record import is_current
from longtail.runs import leases, store

IDENTITY = "c" * 64
FILES = [f"results/page.{suffix}" for suffix in ("csv", "md", "html")]
PLANNED: dict[str, Any] = {
    **{"kind": "tables", "name": "page", "identity": IDENTITY, "outputs": FILES, "settings": {}},
    **{"code": "", "modules": [], "runs": {}, "built_on": [], "context": {}},
}
TOLD = f".longtail/plan/tables/page-{IDENTITY[:16]}.json"
ITEM = SimpleNamespace(
    **{"kind": "tables", "name": "page", "identity": IDENTITY, "outputs": FILES, "planned": PLANNED},
    **{"record": "results/page.identity.json", "inputs": [TOLD], "benchmark": "none"},
)
PLAN = SimpleNamespace(published=lambda: [ITEM], acquire={})


def publish(text: str) -> None:
    """The job of the table, whose runs say `text` by now; an earlier table is no more."""

    def draw(planned: dict[str, Any], folder: Path) -> None:
        for file in FILES:
            (folder / Path(file).name).write_text(text)

    make.MAKERS["tables"] = draw
    publishing.execute("tables", "page", IDENTITY[:16])


def is_right() -> bool:
    return is_current(ITEM.record, IDENTITY, FILES)


@pytest.fixture(autouse=True)
def in_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(make, "MAKERS", {})
    monkeypatch.setenv(leases.ALLOCATION, "")
    store.home.cache_clear()
    store.write_json(Path(TOLD), PLANNED)
    publish("of the runs as they were")
    yield
    store.home.cache_clear()


def test_what_is_current_is_later_than_its_inputs_and_what_is_not_is_of_the_epoch():
    os.utime(TOLD, (9e9, 9e9))
    assert stamp.stamp(PLAN) == [ITEM]
    assert all(os.stat(file).st_mtime > 9e9 for file in FILES)
    other = SimpleNamespace(**{**vars(ITEM), "identity": "d" * 64})
    assert stamp.stamp(SimpleNamespace(published=lambda: [other], acquire={})) == []
    assert {os.stat(file).st_mtime for file in FILES} == {stamp.STALE}


def test_what_is_current_and_later_than_its_inputs_is_not_locked(monkeypatch):
    monkeypatch.setattr(store, "locked", lambda *_, **__: pytest.fail("thousands of locks take a second"))
    assert stamp.stamp(PLAN) == [ITEM]


@pytest.mark.parametrize("moment", ["before the first file", "before the record"])
def test_what_its_job_puts_in_place_anew_is_left_to_it(monkeypatch, moment):
    begun = []

    def second_snakemake() -> None:
        if not begun:
            begun.append(stamp.stamp(PLAN))

    replace, write_json = Path.replace, store.write_json

    def replaced(path: Path, target: Path) -> Path:
        if moment == "before the first file" and str(target) in FILES:
            second_snakemake()
        return replace(path, target)

    def written(path: Path, *further: Any, **more: Any) -> None:
        if moment == "before the record" and str(path) == ITEM.record:
            second_snakemake()
        write_json(path, *further, **more)

    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(store, "write_json", written)
    publish("of runs computed anew")
    assert begun == [[]]
    assert is_right()
    assert {Path(file).read_text() for file in FILES} == {"of runs computed anew"}
    assert all(os.stat(file).st_mtime > stamp.STALE for file in FILES)
    assert sorted(path.name for path in Path("results").iterdir() if path.suffix == ".edited") == []


def test_what_its_job_has_put_in_place_meanwhile_is_looked_at_again(monkeypatch):
    Path(FILES[1]).write_text("half of another")
    looked = stamp.is_current

    def job_ends(*of: Any) -> bool:
        found = looked(*of)
        monkeypatch.setattr(stamp, "is_current", looked)
        publish("of runs computed anew")
        return found

    monkeypatch.setattr(stamp, "is_current", job_ends)
    assert stamp.stamp(PLAN) == [ITEM]
    assert is_right()


def test_a_record_that_a_job_of_other_settings_has_taken_away_is_no_error(monkeypatch):
    Path(FILES[0]).write_text("edited")
    read = stamp.read_record

    def taken(record: str) -> dict[str, Any]:
        found = read(record)
        Path(record).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(stamp, "read_record", taken)
    assert stamp.stamp(PLAN) == []
    assert Path(f"{FILES[0]}.edited").read_text() == "edited"


def stale(identity: str = "d" * 64) -> None:
    """What a later plan, of other settings, makes of what is there."""
    other = SimpleNamespace(**{**vars(ITEM), "identity": identity})
    assert stamp.stamp(SimpleNamespace(published=lambda: [other], acquire={})) == []


@pytest.mark.parametrize("identity", [IDENTITY, "d" * 64])
def test_every_edit_by_hand_is_kept_whatever_else_has_changed_and_nothing_is_deleted(identity, capsys):
    table, copies = Path(FILES[0]), ["page.csv.edited", "page.csv.edited.2"]
    for number, text in enumerate(("one", "one", "two", "two")):
        table.write_text(text)
        stale(identity)
        assert sorted(path.name for path in Path("results").glob("*.edited*")) == copies[: 1 + number // 2]
    assert [Path("results", copy).read_text() for copy in copies] == ["one", "two"]
    assert all(Path(file).is_file() for file in (*FILES, ITEM.record))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"results/page.csv: was edited by hand; a copy is kept as results/{one}" for one in copies
    ]


def test_what_nobody_edited_has_no_copy():
    stale()
    Path(FILES[1]).unlink()
    stale(IDENTITY)
    assert not list(Path("results").glob("*.edited*"))
