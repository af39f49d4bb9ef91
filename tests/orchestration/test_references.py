"""Runs of stage one that are built on finished runs of other recipes."""

import pytest
import yaml

from longtail.errors import UserError
from longtail.orchestration import execute, prune
from longtail.orchestration.planner import plan
from longtail.runs import store
from longtail.runs.code_identity import closure
from longtail.settings.params import Params
from tests.tiny import TINY

META = {"step": {"name": "metasaug", "start": 0.5}}  # trains on validation images
ROW = {"section": "End to end", "label": "Student", "stage_one": "student", "stage_two": "joint"}


def settings(teacher, rows=(), **changes):
    found = yaml.safe_load(TINY)
    found |= {"seeds": [0, 1], "figures": {}, "sweeps": {}, **changes}
    found["stage_one"]["student"] = {
        "loss": found["stage_one"]["ce"]["loss"],
        "step": {"name": "distillation", "teacher": teacher},
    }
    found["tables"]["table2"]["rows"] = [ROW, *rows]
    return found


def planned(*given, **changes):
    return plan(Params.read(settings(*given, **changes)))


def students(found):
    return {run.name.rpartition("-")[0]: run for run in found.stage_one.values() if "-student-" in run.name}


def test_a_teacher_of_the_same_seed_is_an_input():
    found = planned("ce")
    for seed in (0, 1):
        run = students(found)[f"digits-exp10-student-seed{seed}"]
        assert list(run.needs) == ["acquire", "split", "teacher.0.stage_one"]
        assert run.needs["teacher.0.stage_one"].name.startswith(f"digits-exp10-ce-seed{seed}-")
        told = found.stage_one[run.needs["teacher.0.stage_one"].name]
        assert told is run.needs["teacher.0.stage_one"]
    order = [run.name for run in found.everything()]
    assert order.index(told.name) < order.index(run.name)


def test_teachers_of_all_seeds_are_inputs_of_each_student():
    for run in students(planned({"stage_one": "graloss", "seeds": "all"})).values():
        assert [key for key in run.needs if "teacher" in key] == [
            "teacher.0.stage_one",
            "teacher.1.stage_one",
        ]


def test_one_student_may_have_teachers_of_seeds_that_no_row_has():
    """Three teachers, one student, and no run of the other recipes is there three times."""
    row = {"section": "End to end", "label": "GraLoss", "method": "GraLoss"}
    found = planned({"stage_one": "graloss", "seeds": [0, 3, 5]}, [row], seeds=[0])
    [student] = students(found).values()
    teachers = {key: run.name.rpartition("-")[0] for key, run in student.further.items()}
    assert teachers == {
        "teacher.0.stage_one": "digits-exp10-graloss-seed0",
        "teacher.1.stage_one": "digits-exp10-graloss-seed3",
        "teacher.2.stage_one": "digits-exp10-graloss-seed5",
    }
    assert len(found.stage_one) == 4
    assert len(found.stage_two) == 2  # the row's and the student's, of seed 0
    order = [run.name for run in found.everything()]
    assert all(order.index(run.name) < order.index(student.name) for run in student.further.values())


def test_teachers_of_listed_seeds_with_a_classifier_have_one_each():
    teacher = {"stage_one": "ce", "stage_two": "crt", "seeds": [4, 2]}
    [student] = students(planned(teacher, seeds=[0])).values()
    assert {key: run.name.rpartition("-")[0] for key, run in student.further.items()} == {
        "teacher.0.stage_one": "digits-exp10-ce-seed4",
        "teacher.0.stage_two": "digits-exp10-ce-crt-seed4",
        "teacher.1.stage_one": "digits-exp10-ce-seed2",
        "teacher.1.stage_two": "digits-exp10-ce-crt-seed2",
    }


def test_however_the_same_teachers_are_named_a_student_is_the_same_run():
    assert identities(planned({"stage_one": "ce", "seeds": [0, 1]})) == identities(
        planned({"stage_one": "ce", "seeds": "all"})
    )
    assert identities(planned({"stage_one": "ce", "seeds": [0]}, seeds=[0])) == identities(
        planned("ce", seeds=[0])
    )
    fewer = identities(planned({"stage_one": "ce", "seeds": [0, 1]}, seeds=[0]))
    both = identities(planned({"stage_one": "ce", "seeds": "all"}))
    assert fewer.items() < both.items()  # teachers do not depend on the seeds of the file


def test_an_edit_of_the_teachers_touches_the_student_and_nothing_else():
    def by_label(epochs):
        row = {"section": "End to end", "label": "CE", "method": "CE"}
        data = settings({"stage_one": "graloss", "seeds": [0, 1, 2]}, [row], seeds=[0])
        data["stage_one"]["graloss"]["schedule"] = {"epochs": epochs}
        runs = plan(Params.read(data)).stage_one.values()
        return {run.name.rpartition("-")[0].removeprefix("digits-exp10-"): run.identity for run in runs}

    before, after = by_label(2), by_label(3)
    assert set(before) == {"ce-seed0", "student-seed0", *(f"graloss-seed{seed}" for seed in range(3))}
    assert {name for name in before if before[name] == after[name]} == {"ce-seed0"}


@pytest.mark.parametrize(
    ("seeds", "line"),
    [
        ([], "0 seeds; should be 1 to 1,000, or same or all"),
        ([1, 0, 1], "[1, 0, 1] names a seed twice"),
        ([0, -1], "-1 is no seed; seeds are whole numbers from 0, e.g. [0, 1, 2]"),
        ([True], "True is no seed; seeds are whole numbers from 0, e.g. [0, 1, 2]"),
        ([0.0], "0.0 is no seed; seeds are whole numbers from 0, e.g. [0, 1, 2]"),
        (["0"], "'0' is no seed; seeds are whole numbers from 0, e.g. [0, 1, 2]"),
        (list(range(1001)), "1001 seeds; should be 1 to 1,000, or same or all"),
        ("each", "'each' should be same, all or a list of seeds, e.g. [0, 1, 2]"),
        (3, "3 should be same, all or a list of seeds, e.g. [0, 1, 2]"),
        (None, "None should be same, all or a list of seeds, e.g. [0, 1, 2]"),
    ],
)
def test_seeds_of_teachers_that_are_none_are_one_line(seeds, line):
    with pytest.raises(UserError) as said:
        Params.read(settings({"stage_one": "ce", "seeds": seeds}))
    assert str(said.value).endswith(f"stage_one.student.step.teacher.seeds: {line}")


@pytest.mark.parametrize("seeds", ["all", [0, 1]])
def test_several_runs_where_one_is_used_are_one_line(seeds):
    def with_judges(seeds):
        data = settings({"stage_one": "ce"})
        source = {"stage_one": "ce", "seeds": seeds}
        data["stage_one"]["student"]["step"] = {"name": "m2m", "start": 0.5, "source": source}
        return data

    assert Params.read(with_judges([1])).stage_one["student"].step.name == "m2m"
    with pytest.raises(UserError) as said:
        Params.read(with_judges(seeds))
    line = "several runs, but one is used; take seeds: same, or one seed, e.g. [0]"
    assert str(said.value).endswith(f"stage_one.student.step.source: {line}")


def test_a_teacher_with_a_classifier_is_built_before_its_student():
    found = planned({"stage_one": "ce", "stage_two": "crt"})
    run = students(found)["digits-exp10-student-seed0"]
    assert {key: other.step for key, other in run.further.items()} == {
        "teacher.0.stage_one": "stage_one",
        "teacher.0.stage_two": "stage_two",
    }
    order = [(other.step, other.name) for other in found.everything()]
    for needed in run.needs.values():
        assert order.index((needed.step, needed.name)) < order.index((run.step, run.name))
    assert len(order) == len(set(order))


def identities(found):
    return {name: run.identity for name, run in students(found).items()}


def test_a_student_is_who_it_is_by_its_teachers_runs_and_not_by_their_name():
    before = identities(planned("ce"))
    renamed = settings("again")
    renamed["stage_one"]["again"] = renamed["stage_one"]["ce"]
    assert identities(plan(Params.read(renamed))) == before
    assert not set(identities(planned("graloss")).values()) & set(before.values())
    longer = settings("ce")
    longer["stage_one"]["ce"]["schedule"] = {"epochs": 3}
    assert not set(identities(plan(Params.read(longer))).values()) & set(before.values())
    both = identities(planned({"stage_one": "ce", "seeds": "all"}))
    assert not set(both.values()) & set(before.values())


def test_the_code_of_a_teachers_network_is_the_students_too():
    data = settings("wide")
    network = {"name": "bbn", "depth": 8, "width": 4}
    data["stage_one"]["wide"] = {**data["stage_one"]["ce"], "network": network, "step": "two_streams"}
    run = students(plan(Params.read(data)))["digits-exp10-student-seed0"]
    assert "longtail.stage_one.networks.bbn" in closure(run.modules)


def test_one_run_is_one_whether_a_row_or_a_student_asks_for_it():
    row = {"section": "End to end", "label": "CE", "method": "CE"}
    found = planned("ce", [row])
    assert len(found.stage_one) == 4


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"student": "cx"}, r"stage_one.student.step.teacher.stage_one: 'cx' is not an entry of stage_one"),
        (
            {"student": {"stage_one": "ce", "stage_two": "crx"}},
            r"stage_one.student.step.teacher.stage_two: 'crx' is not an entry of stage_two",
        ),
        (
            {"student": {"stage_one": "ce", "stage_two": "moving"}},
            r"'moving' moves batch normalisation and keeps no copy",
        ),
        (
            {"student": {"stage_one": "ce", "stage_two": "whole"}},
            r"student.step.teacher.stage_two: 'whole' learns from validation images",
        ),
        ({"student": "meta"}, r"student.step.teacher.stage_one: 'meta' learns from validation images"),
        ({"student": "student"}, r"stage_one.student: student needs student: no run can be built on itself"),
        (
            {"student": "other", "other": "student"},
            r"stage_one.student: student needs other needs student: no run can be built on itself",
        ),
    ],
)
def test_a_teacher_that_cannot_be_had_is_one_line(change, line):
    data = settings("ce")
    data["stage_two"]["moving"] = {"like": "crt", "batchnorm": "train"}
    data["stage_two"]["whole"] = {"name": "whole"}
    data["stage_one"]["meta"] = {**data["stage_one"]["ce"], **META}
    for name, teacher in change.items():
        block = {"name": "distillation", "teacher": teacher}
        data["stage_one"][name] = {**data["stage_one"]["student"], "step": block}
    with pytest.raises(UserError, match=line) as said:
        Params.read(data)
    assert "\n" not in str(said.value)


def test_a_sweep_may_go_over_teachers_and_keeps_what_they_need():
    data = settings("ce")
    data["methods"]["Student"] = {"stage_one": "student", "stage_two": "joint"}
    data["tables"]["table2"]["rows"] = [{"section": "a", "label": "Student", "method": "Student"}]
    grid = {"stage_one.step.teacher.stage_one": ["ce", "graloss"]}
    data["sweeps"] = {"t": {"method": "Student", "grid": grid}}
    found = plan(Params.read(data)).stage_one.values()
    teachers = {run.needs["teacher.0.stage_one"].name for run in found if run.further}
    assert len(teachers) == 4  # two recipes, two seeds
    data["sweeps"]["t"]["grid"] = {"stage_one.step.teacher.stage_one": ["cx"]}
    with pytest.raises(UserError, match="'cx' is not an entry of stage_one"):
        plan(Params.read(data))


@pytest.fixture
def finished(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    store.home.cache_clear()
    teacher = {"stage_one": "ce", "stage_two": "crt", "seeds": [0, 1]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings(teacher, seeds=[0])))
    found = plan(Params.load("params.yaml"))
    found.write()
    for run in found.everything():
        execute.execute(run.step, run.name)
    yield found
    store.home.cache_clear()


def test_a_student_is_trained_recorded_verified_and_kept(finished, monkeypatch):
    run = students(finished)["digits-exp10-student-seed0"]
    record = store.verify(store.stored("stage_one", run.name), run.identity)
    assert record["inputs"] == {key: other.identity for key, other in run.needs.items()}
    assert set(record["built_on"]) == set(run.needs)
    told = store.read_plan("stage_one", run.name)
    assert told["inputs"]["teacher.1.stage_two"]["run"].startswith("digits-exp10-ce-crt-seed1-")
    execute.check("stage_one", finished.digest)
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("something to delete"))
    prune.prune(["params.yaml"])
