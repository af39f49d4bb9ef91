"""Finished runs: verified at every reading, given back from the store, locked while they are made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from longtail.errors import UserError
from longtail.runs import lookup, store
from longtail.runs.identity import file_digest


@pytest.fixture(autouse=True)
def in_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.home.cache_clear()
    yield
    store.home.cache_clear()


def finished(folder: Path, identity: str = "a" * 64, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in (files or {"model": "weights"}).items():
        (folder / name).write_text(text)
    outputs = {file.name: file_digest(file) for file in folder.iterdir()}
    (folder / "run.json").write_text(json.dumps({"identity": identity, "outputs": outputs}))
    return folder


def test_a_kept_run_is_found_and_linked_not_copied():
    kept = store.keep(finished(Path("work/x")), "stage_one", "label-aaaaaaaa")
    assert lookup.find("stage_one", "label-aaaaaaaa", "a" * 64) == kept
    store.link(kept, Path("results/x"))
    assert os.path.samefile(kept / "model", "results/x/model")
    assert store.verify(Path("results/x"), "a" * 64)["identity"] == "a" * 64


def test_a_renamed_entry_finds_its_run_by_identity():
    store.keep(finished(Path("work/x")), "stage_one", "old-aaaaaaaa")
    assert lookup.find("stage_one", "new-aaaaaaaa", "a" * 64) is not None
    assert lookup.find("stage_one", "new-aaaaaaaa", "a" * 8 + "b" * 56) is None


@pytest.mark.parametrize("damage", ["edit", "delete", "identity", "record"])
def test_a_damaged_run_is_one_line_with_the_file_and_the_way_out(damage):
    folder = finished(Path("results/x"))
    file = folder / "run.json"
    if damage == "edit":
        file = folder / "model"
        file.write_text("better weights")
    elif damage == "delete":
        file = folder / "model"
        file.unlink()
    elif damage == "record":
        file.write_text("{")
    with pytest.raises(UserError) as caught:
        store.verify(folder, "b" * 64 if damage == "identity" else "a" * 64)
    assert str(file) in str(caught.value)
    assert "dvc checkout" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["edit", "delete", "identity", "record", "facts", "gone"])
def test_nobody_is_told_to_delete_the_folder_of_a_dataset_where_pictures_may_lie(damage):
    data = {"step": "acquire", "identity": "a" * 64, "outputs": {"parts/train": "0" * 64}}
    folder = Path("data/raw/pets")
    store.write_json(folder / "run.json", data)
    (folder / "parts").mkdir()
    if damage == "edit":
        (folder / "parts/train").write_text("other pictures")
    elif damage == "record":
        (folder / "run.json").write_text("{")
    elif damage == "facts":
        store.write_json(store.stored("acquire", "pets") / "run.json", {**data, "facts": {}})
    elif damage == "gone":
        (folder / "run.json").unlink()
    with pytest.raises(UserError) as caught:
        store.verify(folder, "b" * 64 if damage == "identity" else "a" * 64)
    told = str(caught.value).partition("; ")[2]
    alone = "" if damage == "gone" else "delete data/raw/pets/run.json, no more than that, and "
    assert told == f"{alone}type the command again"


def test_a_run_damaged_in_the_store_is_worth_nothing():
    kept = store.keep(finished(Path("work/x")), "stage_one", "label-aaaaaaaa")
    (kept / "model").chmod(0o644)
    (kept / "model").write_text("better weights")
    assert lookup.find("stage_one", "label-aaaaaaaa", "a" * 64) is None
    assert not kept.exists()
    assert (kept.with_name(f".damaged-{kept.name}") / "model").read_text() == "better weights"


def test_work_trees_and_dvcs_temporary_copies_share_one_store(tmp_path):
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t.t"]
    main = tmp_path / "main"
    subprocess.run([*git, "init", "-q", str(main)], check=True)
    subprocess.run([*git, "-C", str(main), "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    subprocess.run([*git, "-C", str(main), "worktree", "add", "-q", str(tmp_path / "other")], check=True)
    temporary = main / ".dvc/tmp/exps/standalone/tmpabc"
    temporary.mkdir(parents=True)
    subprocess.run([*git, "init", "-q", str(temporary)], check=True)
    for place in (main, tmp_path / "other", temporary):
        assert store.home(place) == main / ".longtail"


def test_a_second_process_waits_for_a_run_and_a_killed_one_frees_it(tmp_path):
    hold = (
        "import time\nfrom longtail.runs.store import locked\n"
        "with locked('stage_one', 'x'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    take = "from longtail.runs.store import locked\nwith locked('stage_one', 'x'):\n    print('taken')\n"
    waiting = subprocess.Popen([sys.executable, "-c", take], stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1.5)
    process.kill()
    assert waiting.communicate(timeout=10)[0] == "taken\n"
