"""Likely wrong labels are planned by the features of one method, and are new where near-duplicates are."""

from pathlib import Path

from longtail.data import catalogue
from longtail.orchestration.planned_outputs import TAKEN
from longtail.orchestration.planner import plan
from longtail.settings.params import Params
from longtail.settings.published import LabelIssuesBlock


def planned(label_issues: dict[str, str] | None):
    rows = [{"section": "s", "label": name, "method": name} for name in ("CE", "Half")]
    losses = {name: {"form": "constant", "a": strength} for name, strength in (("ce", 0.0), ("half", 0.5))}
    given = {
        "dataset": "digits",
        "imbalance": {"profile": "natural"},
        "validation": "holdout",
        "seeds": [0, 1],
        "stage_one": {n: {"loss": {"name": "logit_adjusted", "gamma": gamma}} for n, gamma in losses.items()},
        "stage_two": {"joint": {}},
        "methods": {name: {"stage_one": name.lower(), "stage_two": "joint"} for name in ("CE", "Half")},
        "tables": {"one": {"caption": "c", "rows": rows}},
        "sweeps": {"strength": {"method": "CE", "grid": {"stage_one.loss.gamma.a": [0.5, 1.0]}}},
        "label_issues": label_issues,
    }
    return plan(Params.read(given), "mine.yaml")


def test_they_read_one_run_of_features_of_the_method_that_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (item,) = planned({"method": "Half"}).label_issues.values()
    assert item.outputs == [
        f"results/mine/{name}"
        for name in ("label_issues.csv", "label_issues_by_class.csv", "data_problems.html")
    ]
    assert item.record == "results/mine/label_issues.identity.json"
    assert set(item.runs) == {"acquire", "split", "features"}
    (features,) = item.runs["features"]
    assert "half-seed0" in features


def test_they_are_planned_only_where_they_are_asked_for_and_change_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without, with_them = planned(None), planned({"method": "CE"})
    assert not without.label_issues
    assert [run.identity for run in without.everything()] == [run.identity for run in with_them.everything()]
    others = {item.name: item.identity for item in without.published() if item.kind not in ("page", "report")}
    assert others.items() <= {item.name: item.identity for item in with_them.published()}.items()


def test_another_list_of_near_duplicates_makes_another_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (before,) = planned({"method": "CE"}).label_issues.values()
    file = Path("data/checked/digits/near_duplicates.csv")
    file.parent.mkdir(parents=True)
    file.write_text("group\n")
    (after,) = planned({"method": "CE"}).label_issues.values()
    assert before.identity != after.identity


def test_no_table_may_have_the_name_of_another_file_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = planned({"method": "CE"})
    (table, *_) = found.tables.values()
    suffixes = {Path(file).suffix for file in table.outputs}
    others = [Path(file) for item in found.published() if item.kind != "tables" for file in item.outputs]
    beside = {file.stem for file in others if file.parent == Path(table.folder) and file.suffix in suffixes}
    assert beside == set(TAKEN)


def test_the_page_looks_at_the_file_only_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(catalogue, "identity", lambda dataset, files, settings: "a" * 64)
    params = Params.load(Path(__file__).with_name("photos.yaml"))

    def files(block: LabelIssuesBlock | None) -> list[str]:
        asked = params.model_copy(update={"label_issues": block})
        return plan(asked, "mine.yaml").page["index"].context["files"]

    labels, near = "results/mine/label_issues.csv", "data/checked/photos/near_duplicates.csv"
    assert files(LabelIssuesBlock(method=next(iter(params.methods)))) == [labels, near]
    assert files(None) == [near]
