"""Tables and figures that a job makes beside its own: only wanted ones, of finished runs, at no risk."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from longtail.errors import UserError
from longtail.orchestration import publishing
from longtail.orchestration.batching import AHEAD, SHARE, WANTED, want
from longtail.publish import make
from longtail.publish.published_record import is_current
from longtail.runs import leases, store

NAMES = ("curves", "gamma", "counts")


def identity(name: str) -> str:
    return (name.replace("/", "") * 16)[:16] + "0" * 48


def plan(name: str, runs: dict[str, Any] | None = None, **further: Any) -> None:
    """A figure of the plan, of which `draw` writes the settings."""
    planned = {
        "kind": "figures",
        "name": name,
        "identity": identity(name),
        "settings": further,
        "code": "",
        "modules": [],
        "outputs": [f"results/figures/{name}.png"],
        "runs": runs or {},
        "built_on": [],
        "context": {},
    }
    store.write_json(store.PLANNED / "figures" / f"{name}-{identity(name)[:16]}.json", planned)


drawn: list[str] = []


def draw(planned: dict[str, Any], folder: Path) -> None:
    drawn.append(planned["name"])
    if planned["settings"].get("fails"):
        raise UserError("nothing to draw")
    (folder / Path(planned["outputs"][0]).name).write_text(json.dumps(planned["settings"]))


def wanted(*names: str) -> None:
    items = [SimpleNamespace(kind="figures", name=name, identity=identity(name)) for name in names]
    rule = SimpleNamespace(name="figures")
    jobs = [SimpleNamespace(rule=rule, wildcards_dict={"figure": name}) for name in names]
    want(SimpleNamespace(runs=lambda step: {}, published=lambda: items), jobs)


def publish(name: str) -> None:
    publishing.execute("figures", name, identity(name)[:16])


def published() -> list[str]:
    return sorted(path.stem for path in Path("results/figures").glob("*.png"))


def ahead() -> list[str]:
    return sorted(path.name.partition("-")[0] for path in (AHEAD / "figures").glob("*"))


def is_right(name: str) -> bool:
    files = [f"results/figures/{name}.png"]
    return is_current(f"results/figures/{name}.identity.json", identity(name), files)


@pytest.fixture(autouse=True)
def in_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(make.MAKERS, "figures", draw)
    monkeypatch.setenv(WANTED, "")  # so that what `want` sets is undone
    monkeypatch.setenv(leases.ALLOCATION, "")
    monkeypatch.delenv(SHARE, raising=False)
    store.home.cache_clear()
    drawn.clear()
    for name in NAMES:
        plan(name)
    yield
    store.home.cache_clear()


def test_a_job_makes_the_others_ahead_and_publishes_only_its_own(capfd):
    wanted("curves", "gamma", "counts")
    publish("gamma")
    assert drawn == ["gamma", "counts", "curves"]  # the next ones first
    assert published() == ["gamma"]
    assert ahead() == ["counts", "curves"]
    assert "gamma: 2 more made beside it" in capfd.readouterr().err
    publish("curves")
    assert drawn == ["gamma", "counts", "curves"]  # put in place, not drawn
    assert published() == ["curves", "gamma"]
    assert is_right("curves")
    assert ahead() == ["counts"]


def test_a_command_by_hand_and_a_budget_of_nothing_make_one(monkeypatch):
    publish("gamma")
    assert (drawn, ahead()) == (["gamma"], [])
    wanted("curves", "counts")
    monkeypatch.setenv(SHARE, "0")
    publish("curves")
    assert (drawn, ahead()) == (["gamma", "curves"], [])


@pytest.mark.parametrize("damage", ["file", "record", "identity"])
def test_what_is_not_whole_or_of_another_plan_is_made_anew(damage):
    wanted("curves", "gamma")
    publish("gamma")
    (folder,) = (AHEAD / "figures").iterdir()
    if damage == "file":
        (folder / "curves.png").write_text("{ }")
    elif damage == "record":
        (folder / publishing.RECORD).write_text("{")
    else:
        record = json.loads((folder / publishing.RECORD).read_text())
        (folder / publishing.RECORD).write_text(json.dumps(record | {"identity": identity("other")}))
    publish("curves")
    assert drawn == ["gamma", "curves", "curves"]
    assert Path("results/figures/curves.png").read_text() == "{}"
    assert is_right("curves")


def test_what_was_drawn_of_a_run_that_is_another_one_now_is_drawn_anew():
    run = {"run": "a", "identity": "a", "folder": "results/stage_two/a"}
    plan("curves", runs={"stage_two": {"a": {key: run[key] for key in ("identity", "folder")}}})
    record = Path("results/stage_two/a/run.json")
    store.write_json(record, {"seconds": 1})
    wanted("curves", "gamma")
    publish("gamma")
    assert ahead() == ["curves"]
    store.write_json(record, {"seconds": 2})
    publish("curves")
    assert drawn == ["gamma", "curves", "curves"]
    assert is_right("curves")


def test_what_has_runs_that_are_not_finished_is_left():
    plan("curves", runs={"stage_two": {"a": {"identity": "a", "folder": "results/stage_two/a"}}})
    wanted("curves", "gamma", "counts")
    publish("gamma")
    assert drawn == ["gamma", "counts"]


def test_one_that_fails_fails_its_own_job_and_no_other(capfd):
    plan("counts", fails=True)
    wanted("curves", "gamma", "counts")
    publish("gamma")
    assert "counts: left to its own job (nothing to draw)" in capfd.readouterr().err
    assert is_right("gamma")
    assert ahead() == []  # no half of one either
    with pytest.raises(UserError, match="nothing to draw"):
        publish("counts")
    assert published() == ["gamma"]


@pytest.mark.parametrize("one", ["counts", "sweeps/counts"])
def test_one_that_its_own_job_is_at_is_left_to_it(monkeypatch, one):
    """The job of `one` draws; meanwhile that of gamma draws others, and an invocation begins."""
    plan(one)
    wanted("gamma", one)

    def meanwhile(planned: dict[str, Any], folder: Path) -> None:
        if planned["name"] == one:
            publish("gamma")
            wanted("gamma", one)
        draw(planned, folder)

    monkeypatch.setitem(make.MAKERS, "figures", meanwhile)
    publish(one)
    assert drawn == ["gamma", one]
    assert is_right(one)


@pytest.mark.parametrize("folder", ["", "sweeps/"])
def test_leftovers_of_a_killed_invocation_are_deleted_but_not_what_one_at_work_has(monkeypatch, folder):
    names = [f"{folder}{name}" for name in ("curves", "gamma", "counts")]
    for name in names:
        plan(name)
    wanted(*names)
    publish(names[0])
    two = sorted(path.name for path in (AHEAD / "figures").iterdir())
    assert len(two) == 2
    for name in two:
        (AHEAD / "figures" / f".{name}").mkdir()
    kept = two[0]
    with store.locked("figures", kept):
        wanted(names[0])
    assert sorted(path.name for path in (AHEAD / "figures").iterdir()) == [f".{kept}", kept]


def test_a_full_disk_leaves_what_is_published(monkeypatch):
    publish("gamma")
    before = Path("results/figures/gamma.png").read_bytes()
    plan("gamma", other=1)

    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(publishing.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        publish("gamma")
    assert Path("results/figures/gamma.png").read_bytes() == before
    assert is_right("gamma")


def test_what_a_kill_left_beside_published_files_is_deleted_but_not_what_one_at_work_has():
    left = [Path(f"results/figures/.gamma-{identity(name)[:16]}") for name in ("gamma", "older", "at work")]
    for folder in left:
        folder.mkdir(parents=True)
    with store.locked("figures", left[2].name.removeprefix(".")):
        publish("gamma")
    assert [folder.exists() for folder in left] == [False, False, True]
    assert is_right("gamma")
