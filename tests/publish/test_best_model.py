"""Which method's model the workflow takes home: the best one by validation images, never by test images."""

import csv
import json
from pathlib import Path

import pytest

from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.publish import best_model as models
from longtail.publish.job import Cell
from longtail.settings.params import Params
from longtail.settings.published import Groups, Model
from longtail.settings.reading import parse


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """Names of the runs that are exported."""
    found: list[str] = []
    monkeypatch.setattr(models, "complete", lambda folder: folder.name)
    monkeypatch.setattr(models, "write_model", lambda run, folder, groups, licence: found.append(run))
    return found


def cell(folder: Path, method: str, seed: int, score: float | None, imbalance: str = "natural") -> Cell:
    run = folder / f"{method}-{imbalance}-{seed}"
    run.mkdir()
    test = {"accuracy": 1 - (score or 0)}  # the other way round
    validation = {} if score is None else {"validation": {"selection_accuracy": score}}
    (run / "metrics.json").write_text(json.dumps({"test": test, **validation}))
    info = {step: {"settings": {}} for step in ("split", "stage_one", "stage_two")}
    return Cell(method, imbalance, None, 0, seed, {"stage_two": run}, info)


def choice(folder: Path) -> list[dict[str, str]]:
    with (folder / "choice.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_best_mean_over_seeds_on_validation_images_is_taken(tmp_path, written, capsys):
    cells = [cell(tmp_path, "A", 0, 0.9), cell(tmp_path, "A", 1, 0.1)]
    cells += [cell(tmp_path, "B", 0, 0.6), cell(tmp_path, "B", 1, 0.62)]
    cells += [cell(tmp_path, "A", 0, 0.99, "exp10")]  # another imbalance chooses nothing
    models.compute("best", ["A", "B"], cells, tmp_path, Groups())
    assert written == ["B-natural-0"]
    assert [(row["method"], row["seeds"], row["chosen"]) for row in choice(tmp_path)] == [
        ("A", "2", ""),
        ("B", "2", "yes"),
    ]
    assert "B, the best of 2 by validation images (61.0%" in capsys.readouterr().err


def test_of_equals_the_first_is_taken(tmp_path, written):
    models.compute("best", ["A", "B"], [cell(tmp_path, m, 0, 0.5) for m in "AB"], tmp_path, Groups())
    assert written == ["A-natural-0"]


def test_what_validation_images_trained_is_not_judged_by_them(tmp_path, written, capsys):
    meta = {"settings": {"recipe": {"step": {"name": "metasaug", "meta": "on"}}}}
    learnt = cell(tmp_path, "B", 0, 0.9)
    learnt.info["stage_one"] = meta
    assert learnt.validation() is None
    cells = [cell(tmp_path, "A", 0, 0.5), learnt, cell(tmp_path, "C", 0, None)]
    models.compute("best", ["A", "B", "C"], cells, tmp_path, Groups())
    assert written == ["A-natural-0"]
    assert [row["chosen"] for row in choice(tmp_path)] == ["yes", "", ""]
    assert "the best of 1 by validation images (50.0%" in (said := capsys.readouterr().err)
    assert "left out, as these cannot judge it: B, C" in said
    learnt.info["stage_one"]["settings"]["recipe"]["step"]["meta"] = "off"
    assert learnt.validation() == 0.9


def test_without_validation_images_one_has_to_be_named(tmp_path, written):
    cells = [cell(tmp_path, "A", 0, None), cell(tmp_path, "B", 0, None)]
    with pytest.raises(UserError, match=r"models.best: no method has an accuracy on validation images"):
        models.compute("best", ["A", "B"], cells, tmp_path, Groups())
    assert not written
    models.compute("b", ["B"], cells, tmp_path, Groups())
    assert written == ["B-natural-0"]
    assert choice(tmp_path)[0]["validation_mean_class_accuracy"] == ""


@pytest.mark.parametrize("given", [{}, {"table": "table2", "method": "CE"}])
def test_it_is_a_tables_or_a_methods(given):
    with pytest.raises(ValueError, match="one of them"):
        Model.model_validate(given)


def test_a_model_is_planned_under_a_stable_name(root):
    params = Params.load(root / "workflow/settings/demo.yaml")
    table = next(iter(params.tables))
    more = params.model_copy(update={"models": {"best": Model(table=table)}})
    planned = plan(more, "workflow/settings/demo.yaml", root).models["best"]
    assert planned.outputs[0] == "results/demo/models/best/model.safetensors"
    assert planned.record == "results/demo/models/best/model.identity.json"
    assert {cell.method for cell in planned.cells} == set(params.tables[table].methods)
    other = params.model_copy(update={"models": {"best": Model(method="CE")}})
    assert plan(other, "workflow/settings/demo.yaml", root).models["best"].identity != planned.identity


@pytest.mark.parametrize("key", ["table", "method"])
def test_an_unknown_name_is_one_line(root, key):
    data = parse((root / "workflow/settings/demo.yaml").read_text())
    with pytest.raises(UserError, match=rf"models.x.{key}: 'nothing' is not one of "):
        Params.read({**data, "models": {"x": {key: "nothing"}}})


def test_test_images_choose_no_model(root):
    data = parse((root / "workflow/settings/demo.yaml").read_text())
    table = next(iter(data["tables"]))
    with pytest.raises(UserError, match=r"models.x.table: with validation: test .* chosen by test images"):
        Params.read({**data, "validation": "test", "models": {"x": {"table": table}}})
    Params.read({**data, "validation": "test", "models": {"x": {"method": "CE"}}})


def test_a_table_of_printed_rows_alone_has_no_best_method(root):
    data = parse((root / "workflow/settings/demo.yaml").read_text())
    rows = [{"section": "End-to-end training", "label": "Focal loss"}]
    tables = {**data["tables"], "theirs": {"caption": "c", "printed": "table2", "rows": rows}}
    with pytest.raises(UserError, match=r"models.x.table: 'theirs' has no method of ours, only printed rows"):
        Params.read({**data, "tables": tables, "models": {"x": {"table": "theirs"}}})


def test_a_method_that_no_table_shows_has_no_run_to_export(root):
    data = parse((root / "workflow/settings/demo.yaml").read_text())
    methods = {**data["methods"], "Alone": dict(next(iter(data["methods"].values())))}
    with pytest.raises(UserError, match=r"models.x.method: 'Alone' stands in no table"):
        Params.read({**data, "methods": methods, "models": {"x": {"method": "Alone"}}})


def test_a_table_at_one_ratio_chooses_at_that_ratio(root):
    data = parse((root / "workflow/settings/demo.yaml").read_text())
    [name, *_] = data["tables"]
    first, last = 50, 25
    data = {**data, "imbalance": {"profile": "exponential", "ratios": [first, last]}}
    tables = {**data["tables"], "other": {**data["tables"][name], "ratios": [last]}}
    params = Params.read({**data, "tables": tables, "models": {"x": {"table": "other"}}})
    assert {cell.ratio for cell in plan(params, "demo.yaml", root).models["x"].cells} == {last}
