"""What is finished matches no rule, what is missing does: the cost of the graph is that of the work."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from longtail.orchestration.finished import ANY, NOTHING, Missing, pattern
from longtail.orchestration.plan import Plan
from longtail.orchestration.planner import plan
from longtail.orchestration.stamp import stamp
from longtail.runs.identity import file_digest
from longtail.settings.params import Params
from tests.tiny import TINY

OUTPUTS = ("one.csv", "two.csv")


@pytest.fixture
def planned(tmp_path, monkeypatch) -> Plan:
    """A plan, of which every run and everything published stands there."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(TINY)
    made = plan(Params.read(yaml.safe_load(TINY)))
    made.write()
    for run in made.everything():
        folder = Path(run.folder)
        folder.mkdir(parents=True)
        for name in OUTPUTS:
            (folder / name).write_text("x")
        record = {"identity": run.identity, "outputs": dict.fromkeys(OUTPUTS, "unread")}
        (folder / "run.json").write_text(json.dumps(record))
    for item in made.published():
        for name in item.outputs:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("x")
        read = {
            run.record: file_digest(Path(run.record)) for runs in item.runs.values() for run in runs.values()
        }
        outputs = {Path(name).name: file_digest(Path(name)) for name in item.outputs}
        record = {"identity": item.identity, "outputs": outputs, "read": read}
        Path(item.record).write_text(json.dumps(record))
    return made


def missing(planned: Plan, *arguments: str) -> Missing:
    return Missing(planned, stamp(planned), arguments)


def matched(regular: str, names: list[str]) -> list[str]:
    return [name for name in names if re.fullmatch(regular, name)]


def to_make(planned: Plan, *arguments: str) -> tuple[set[str], set[str]]:
    """The runs, and the tables and figures, for which Snakemake has a rule."""
    found = missing(planned, *arguments)
    runs = {run.name for run in planned.everything() if re.fullmatch(found.runs, run.name)}
    items = [*planned.tables.values(), *planned.figures.values()]
    regular = found.published(items)
    return runs, {item.name for item in items if re.fullmatch(regular, item.name)}


def test_where_all_is_finished_no_rule_matches_anything(planned):
    assert to_make(planned) == (set(), set())
    found = missing(planned)
    assert found.inputs(planned.frame["runs"]) == found.inputs(planned.report["report"]) == []


def test_where_nothing_is_finished_rules_match_any_name(planned):
    for run in planned.everything():
        os.unlink(run.record)
    assert missing(planned).runs == ANY


@pytest.mark.parametrize("lost", ["run.json", "one.csv"])
def test_a_run_that_is_not_whole_is_made_again_and_asked_for_by_all_that_read_it(planned, lost):
    run = next(run for run in planned.stage_two.values() if "afg" in run.name)
    os.unlink(f"{run.folder}/{lost}")
    readers = {
        item.name
        for item in [*planned.tables.values(), *planned.figures.values()]
        if run in item.runs.get("stage_two", {}).values()
    }
    assert to_make(planned) == ({run.name}, readers)
    assert "table2" in readers
    found = missing(planned)
    for item in (planned.tables["table2"], planned.frame["runs"]):
        assert found.inputs(item) == [
            item.inputs[0],
            run.record,
            *(other.outputs[0] for other in item.built_on),
        ]
    assert found.inputs(planned.report["report"]) == planned.report["report"].inputs


def test_a_record_of_another_run_or_none_at_all_is_no_finished_run(planned):
    first, second, *_ = planned.features.values()
    Path(first.record).write_text(json.dumps({"identity": second.identity, "outputs": {}}))
    Path(second.record).write_text("{")
    assert to_make(planned)[0] == {first.name, second.name}


def test_an_edited_table_is_made_again_and_its_runs_are_left_alone(planned):
    table = planned.tables["table2"]
    Path(table.outputs[0]).write_text("edited")
    runs, published = to_make(planned)
    assert (runs, published) == (set(), {"table2"})
    assert missing(planned).inputs(planned.report["report"]) != []


def test_what_the_command_line_names_can_be_asked_for(planned):
    run = next(iter(planned.stage_two.values()))
    for word in (run.record, f"{run.folder}/one.csv", str(Path(run.record).resolve())):
        assert run.name in to_make(planned, "--cores", "2", word)[0]
        Path(planned.frame["runs"].outputs[0]).write_text("edited")
        assert run.record in missing(planned, "--cores", "2", word).inputs(planned.frame["runs"])
    assert to_make(planned, planned.tables["table2"].outputs[1])[1] == {"table2"}
    assert to_make(planned, "--config", "params=params.yaml", "-n", "--quiet", "all") == (set(), set())


@pytest.mark.parametrize(
    "words",
    [
        ["--report", "x.html"],
        ["--lint"],
        ["--dag"],
        ["-F"],
        ["-nF"],
        ["-R", "tables"],
        ["--force"],
        ["--rep"],
    ],
)
def test_what_shows_or_changes_the_whole_graph_sees_all_of_it(planned, words):
    assert missing(planned, *words).runs == ANY
    assert to_make(planned, *words)[1] == {*planned.tables, *planned.figures}


def test_jobs_on_other_machines_leave_nothing_out(planned):
    found = Missing(planned, None, [])
    assert found.runs == ANY
    assert found.inputs(planned.frame["runs"]) == planned.frame["runs"].inputs


NAMES = st.from_regex(r"[a-z][a-z0-9_.]{0,8}-[0-9a-f]{8}", fullmatch=True)


@given(st.lists(NAMES, min_size=1, unique_by=lambda name: name[-8:]), st.data())
def test_a_pattern_tells_runs_by_their_identities(names, data):
    chosen = data.draw(st.lists(st.sampled_from(names), unique=True))
    assert matched(pattern(chosen), names) == [name for name in names if name in chosen]


def test_a_pattern_of_datasets_and_of_nothing():
    names = ["cifar10", "cifar100", "my.photos", "cifar100-exp100-ce-seed0-00ab12cd"]
    assert matched(pattern(["cifar100", "my.photos"]), names) == ["cifar100", "my.photos"]
    assert matched(pattern([]), names) == []
    assert pattern([]) == NOTHING
    assert not re.fullmatch(pattern(["my.photos"]), "my-photos")
