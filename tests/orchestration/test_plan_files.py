"""What commands are told: files of the plan are right to the letter, whatever was in their place."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest

from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.runs.record import same_code
from longtail.runs.steps import STEPS
from longtail.settings.params import Params


@pytest.fixture(scope="module")
def planned(root):
    return plan(Params.load(root / "workflow/settings/demo.yaml"), "workflow/settings/demo.yaml", root)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*.json"))}


def test_what_is_there_to_the_letter_is_not_written_again(planned, tmp_path):
    planned.write(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")}
    assert len(before) > 20
    planned.write(tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")} == before


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"step": "x"}'])
def test_a_damaged_file_is_healed(planned, tmp_path, damage):
    planned.write(tmp_path)
    expected = contents(tmp_path)
    for file in tmp_path.rglob("*.json"):
        file.write_bytes(damage)
    planned.write(tmp_path)
    assert contents(tmp_path) == expected


def test_a_file_that_names_modules_which_have_moved_is_written_anew(planned, tmp_path):
    """A run keeps its name when the code that computes it moves, and its command has to find the code."""
    old = deepcopy(planned)
    for name, run in old.stage_two.items():
        old.stage_two[name] = replace(run, modules=("longtail.stage_two", *run.modules[1:]))
    old.write(tmp_path)
    file = next((tmp_path / "stage_two").glob("*.json"))
    with pytest.raises(UserError, match=r"longtail\.stage_two: is no module of this code; type the command"):
        same_code(json.loads(file.read_text()))
    planned.write(tmp_path)
    for step in STEPS:
        for told in (tmp_path / step).glob("*.json"):
            assert json.loads(told.read_text())["modules"] == list(planned.runs(step)[told.stem].modules)


def test_a_table_that_was_asked_for_again_is_not_another(planned, tmp_path):
    planned.write(tmp_path)
    (file,) = (tmp_path / "tables").glob("table2-*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "asked": 1}))
    planned.write(tmp_path)
    assert json.loads(file.read_text())["asked"] == 1
