"""The plan: which runs a settings file needs, and what an edit of it changes."""

import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from longtail.errors import UserError
from longtail.orchestration import run as run_module
from longtail.orchestration.planner import plan
from longtail.runs.code_identity import closure
from longtail.runs.steps import STEPS
from longtail.settings.params import Params
from longtail.settings.reading import parse
from longtail.settings.row_shorthand import rows_in_full
from longtail.settings.shorthand import entries_in_full

METHODS = ("CE", "Balanced Softmax", "GraLoss", "cRT", "GraLoss + cRT", "GLAG")


@pytest.fixture(scope="module")
def everything(root):
    return rows_in_full(entries_in_full(parse((root / "params.yaml").read_text())))


@pytest.fixture(scope="module")
def settings(everything):
    """The project's own settings with table 2 alone, and of its rows six."""
    table = everything["tables"]["table2"]
    rows = [row for row in table["rows"] if row.get("method") in METHODS]
    return {**everything, "tables": {"table2": {**table, "rows": rows}}, "figures": {}, "sweeps": {}}


def runs(settings):
    planned = plan(Params.read(settings))
    return {step: set(planned.runs(step)) for step in STEPS}


def touched(settings, path, value):
    """Steps in which an edit makes new runs, with how many."""
    edited = deepcopy(settings)
    *parents, last = path.split("/")
    block = edited
    for parent in parents:
        block = block[parent]
    block[last] = value
    before, after = runs(settings), runs(edited)
    return {step: len(after[step] - before[step]) for step in STEPS if after[step] - before[step]}


ASYNCHRONOUS = {
    "name": "poor",
    "classes": "poor",
    "sampler": "class_balanced",
    "schedule": {"epochs": 1},
    "learning_rate": {"peak": 0.01},
    "bank": {"choice": "nearest"},
    "retention": "graph_matching",
}


def test_a_phase_is_a_run_with_the_code_of_its_own_methods(settings):
    phase = {"name": "b", "schedule": {"epochs": 1}, "learning_rate": {"peak": 0.01}}
    phase |= {"sampler": "class_aware", "loss": "focal", "transforms": ["remix"], "companions": "cam"}
    edited = deepcopy(settings)
    edited["stage_one"]["ce"]["then"] = [phase]
    trained = plan(Params.read(edited)).stage_one
    modules = {run.modules for run in trained.values() if "-ce-" in run.name}
    (found,) = modules
    expected = (
        "networks.resnet_cifar",
        "observers.gradients",
        "losses.focal",
        "samplers.class_aware",
        "transforms.remix",
        "steps.supervised",
        "companions.cam",
    )
    assert found == ("longtail.stage_one.training", *(f"longtail.stage_one.{name}" for name in expected))
    assert "longtail.stage_one.transforms.mixup" in closure(found)
    plain = plan(Params.read(settings)).stage_one
    for name in ("cifar100-exp100-ce-seed0", "cifar100-exp10-ce-seed2"):
        (last,) = (run for run in trained.values() if run.name.startswith(name))
        (first,) = (run for run in last.inputs if run.step == "stage_one")
        # what it begins with is the recipe without it
        assert first.identity in {run.identity for run in plain.values()}
    # twice as many runs of stage one, half of them under new names alone
    expected = touched(settings, "stage_one/ce/schedule", {"epochs": 10})
    expected["stage_one"] *= 2
    assert touched(settings, "stage_one/ce/then", [phase]) == expected


def test_recipes_that_begin_alike_share_the_runs_with_which_they_begin(settings):
    edited = deepcopy(settings)
    loss = edited["stage_one"]["ce"]["loss"]
    for name, left_out in (("two", ()), ("bankless", ("bank", "retention")), ("loose", ("retention",))):
        phase = {key: value for key, value in ASYNCHRONOUS.items() if key not in left_out}
        edited["stage_one"][name] = {"loss": loss, "classes": "rich", "then": [phase]}
        edited["methods"][name] = {"stage_one": name, "stage_two": "joint"}
        edited["tables"]["table2"]["rows"].append({"section": "s", "label": name, "method": name})
    found = plan(Params.read(edited))
    names = [run.name for run in found.stage_one.values() if "exp100-" in run.name and "seed0" in run.name]
    ours = [name.split("-")[2] for name in names if name.split("-")[2] not in settings["stage_one"]]
    assert ours == ["two.train", "two", "bankless", "loose"]
    modules = next(run.modules for run in found.stage_one.values() if "-two-" in run.name)
    assert {"longtail.stage_one.exemplars.nearest", "longtail.stage_one.retention.graph_matching"} <= set(
        modules
    )
    for run in found.features.values():
        assert [item.step for item in run.inputs] == ["acquire", "split", "stage_one"]


def test_the_border_of_data_rich_classes_counts_where_a_phase_asks_for_it(settings):
    assert touched(settings, "stage_one/ce/rich", {"above": 50}) == {}
    two = deepcopy(settings)
    two["stage_one"]["ce"] |= {"classes": "rich", "then": [ASYNCHRONOUS]}
    assert touched(two, "stage_one/ce/rich", {"above": 50})["stage_one"] > 0


def test_observers_are_part_of_what_a_run_is_and_no_others(settings):
    plain = deepcopy(settings)
    plain["stage_one"]["ce"]["observers"] = []
    observed = touched(plain, "stage_one/ce/observers", ["gradients"])
    assert observed == touched(plain, "stage_one/ce/schedule", {"epochs": 10})
    without = deepcopy(plain)
    del without["stage_one"]["ce"]["observers"]
    assert runs(without) == runs(plain)


def test_table_2_needs_each_shared_run_once(settings):
    planned = plan(Params.read(settings))
    assert {step: len(planned.runs(step)) for step in STEPS} == {
        "acquire": 1,
        "split": 4,  # ratios
        "stage_one": 4 * 3 * 3,  # ratios, seeds; cross-entropy, GraLoss, Balanced Softmax
        "features": 4 * 3 * 3,
        "stage_two": 4 * 3 * 6,  # methods
    }


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("stage_two/afg", {"alpha": 0.1}, {"stage_two": 12}),
        ("seeds", [0, 1, 2, 3], {"stage_one": 12, "features": 12, "stage_two": 24}),
        ("features/views", 5, {"features": 36, "stage_two": 72}),
        ("groups", {"many_above": 50, "few_below": 10}, {}),
        ("data/root", "/datasets", {}),
        ("subset_seed", 1, {"split": 4, "stage_one": 36, "features": 36, "stage_two": 72}),
        ("subset_seed", [0], {}),
        ("subset_seed", [0, 1], {"split": 4, "stage_one": 36, "features": 36, "stage_two": 72}),
        ("tables/table2/ratios", [100], {}),
        ("stage_two/crt", {"batchnorm": "train"}, {"features": 24, "stage_two": 24}),
    ],
)
def test_an_edit_touches_only_what_reads_it(settings, path, value, expected):
    if path == "stage_two/afg" or path == "stage_two/crt":
        value = {**(settings["stage_two"][path.split("/")[1]] or {}), **value}
    assert touched(settings, path, value) == expected


def test_equal_recipes_under_two_names_are_one_run(settings):
    settings = deepcopy(settings)
    settings["stage_one"]["logit_adjustment"] = settings["stage_one"]["balanced_softmax"]
    settings["methods"]["LA"] = {"stage_one": "logit_adjustment", "stage_two": "joint"}
    settings["tables"]["table2"]["rows"].append({"section": "s", "label": "LA", "method": "LA"})
    assert len(plan(Params.read(settings)).stage_one) == 36


def test_only_the_classifier_on_all_training_images_has_their_features_made(settings):
    before = plan(Params.read(settings))
    settings = deepcopy(settings)
    settings["stage_two"]["whole"] = {}
    settings["methods"]["W"] = {"stage_one": "ce", "stage_two": "whole"}
    settings["tables"]["table2"]["rows"].append({"section": "s", "label": "W", "method": "W"})
    after = plan(Params.read(settings))
    new = {step: set(after.runs(step)) - set(before.runs(step)) for step in STEPS}
    assert {step: len(names) for step, names in new.items() if names} == {"features": 12, "stage_two": 12}
    assert all(set(before.runs(step)) <= set(after.runs(step)) for step in STEPS)
    for name in new["features"]:
        assert after.features[name].settings.whole
        assert after.features[name].settings.views == 0
    assert "whole" not in before.features.popitem()[1].settings.resolved(hashed=True)


def test_a_table_at_one_ratio_needs_the_runs_of_that_ratio_only(settings):
    settings = deepcopy(settings)
    settings["tables"]["table2"]["ratios"] = [100]
    planned = plan(Params.read(settings))
    assert len(planned.stage_one) == 9
    assert all("-exp100-" in name for name in planned.stage_one)
    one = {"caption": "c", "ratios": [50], "rows": [{"section": "s", "label": "l", "method": "GLAG"}]}
    settings["tables"]["another"] = one
    planned = plan(Params.read(settings))
    assert [name for name in planned.stage_one if "-exp50-" in name] == [
        name for name in planned.stage_one if "-exp50-graloss-" in name
    ]
    assert len(planned.stage_one) == 12
    assert {cell.ratio for cell in planned.tables["another"].cells} == {50}
    assert {cell.ratio for cell in planned.tables["table2"].cells} == {100}


def test_other_subsets_are_named_and_leave_the_names_of_the_first_alone(settings):
    settings = deepcopy(settings)
    before = runs(settings)
    settings["subset_seed"] = [0, 3]
    after = runs(settings)
    assert all(before[step] <= after[step] for step in STEPS)
    assert all("-subset3-" in name for step in STEPS for name in after[step] - before[step])


def test_a_recipe_named_like_a_subset_is_a_recipe_of_its_own(settings):
    settings = deepcopy(settings)
    settings["subset_seed"] = [0, 1]
    longer = deepcopy(settings["stage_one"]["ce"])
    longer["schedule"] = {"epochs": 7}
    settings["stage_one"]["subset1-ce"] = longer
    settings["methods"]["Longer"] = {"stage_one": "subset1-ce", "stage_two": "joint"}
    row = {"section": "s", "label": "Longer", "method": "Longer"}
    settings["tables"]["table2"]["rows"] = [*settings["tables"]["table2"]["rows"], row]
    cells = plan(Params.read(settings)).tables["table2"].cells
    lengths = {
        (cell.method, cell.subset_seed): cell.runs["stage_one"].settings.recipe.schedule.epochs
        for cell in cells
        if cell.method in ("CE", "Longer")
    }
    assert {key: epochs for key, epochs in lengths.items() if key[0] == "Longer"} == {
        ("Longer", 0): 7,
        ("Longer", 1): 7,
    }
    assert 7 not in (lengths["CE", 0], lengths["CE", 1])


def test_names_are_readable_and_end_in_the_identity(settings):
    planned = plan(Params.read(settings))
    for run in planned.everything():
        if run.step != "acquire":
            assert run.name.endswith(f"-{run.identity[:8]}")
    assert any(name.startswith("cifar100-exp100-graloss-afg-seed0-") for name in planned.stage_two)


def test_two_runs_with_one_name_are_refused(settings, monkeypatch):

    real = run_module.hashed
    monkeypatch.setattr(run_module, "hashed", lambda text: "0" * 8 + real(text)[8:])
    clashing = deepcopy(settings)
    clashing["stage_two"]["crt"]["batchnorm"] = "train"  # features of one model, made in two ways
    with pytest.raises(UserError, match="two different runs would be named"):
        plan(Params.read(clashing))


def test_another_settings_file_publishes_in_its_own_folder(root):
    source = root / "workflow/settings/demo.yaml"
    planned = plan(Params.load(source), source)
    assert planned.files[0] == "results/demo/table2.csv"
    folders = [run.folder for step in STEPS[1:] for run in planned.runs(step).values()]
    assert folders
    assert all(folder.startswith("results/demo/") for folder in folders)


def test_dvc_yaml_depends_on_all_code_that_a_layer_is_hashed_with(root, everything):
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    planned = plan(Params.read(everything))
    for step in STEPS:
        for run in planned.runs(step).values():
            for name, file in closure(run.modules).items():
                path = str(file.relative_to(root))
                covered = any(path == dep or path.startswith(f"{dep}/") for dep in stages[step]["deps"])
                assert covered or file.stat().st_size < 200, f"dvc.yaml: {step} lacks {name}"


EDITS = {  # a key and another value, by the path in params.yaml
    "imbalance.ratios": [20],
    "validation": {"source": "unused", "per_class": 10},
    "subset_seed": 1,
    "seeds": [5],
    "precision": "float32",
    "training.batch_size": 64,
    "presets.steps.learning_rate.warmup": 4,
    "stage_one.graloss.loss.gamma.b": 5,
    "features.views": 2,
    "stage_two.ssd_labels.epochs": 6,
    "stage_two.afg.k": 3,
    "figures.gradient_distortion.balanced.per_class": 90,
    "sweeps.gamma_b.grid": {"stage_one.loss.gamma.b": [7]},
}


@pytest.fixture(scope="module")
def one_of_each(root):
    """params.yaml as it stands, with one ratio and one seed, and its plan."""
    settings = parse((root / "params.yaml").read_text())
    settings |= {"imbalance": {"profile": "exponential", "ratios": [100]}, "seeds": [0]}
    for table in settings["tables"].values():
        table.pop("ratios", None)
    return settings, plan(Params.read(settings))


@pytest.mark.parametrize("key", EDITS)
def test_dvc_yaml_has_every_key_that_changes_the_runs_of_a_layer(root, one_of_each, key):
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    settings, before = one_of_each
    edited = deepcopy(settings)
    *path, last = key.split(".")
    block = edited
    for word in path:
        block = block[word]
    assert block.get(last) != EDITS[key]
    block[last] = EDITS[key]
    after = plan(Params.read(edited))
    changed = [step for step in STEPS if {*before.runs(step)} != {*after.runs(step)}]
    assert changed
    for step in changed:
        assert key.partition(".")[0] in stages[step]["params"], step


def test_dvc_yaml_has_the_key_of_the_pictures_that_a_network_sees(root):
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    for step in ("acquire", "stage_one", "features", "stage_two"):
        assert "data" in stages[step]["params"]
    assert "data" in stages["tables"]["do"]["params"]


def demo(root, **changes):
    settings = parse((root / "workflow/settings/demo.yaml").read_text())
    return Params.read({**settings, **changes})


def test_tables_in_results_stand_there_and_all_else_in_the_files_own_folder(root):
    settings = parse((root / "workflow/settings/demo.yaml").read_text())
    renamed = {"digits": settings["tables"]["table2"]}
    figures = {"class_counts": {"table": "digits"}}
    sweeps = {"k": {"method": "GLAG", "grid": {"stage_two.k": [2, 3]}}}
    params = demo(root, tables=renamed, figures=figures, sweeps=sweeps, tables_in="results")
    planned = plan(params, "workflow/settings/mine.yaml", root)
    assert planned.files[:3] == [
        "results/digits.csv",
        "results/sweeps/k.csv",
        "results/mine/figures/class_counts.png",
    ]
    assert planned.files[-1] == "results/mine/report.html"
    folders = [run.folder for step in STEPS[1:] for run in planned.runs(step).values()]
    assert all(folder.startswith("results/mine/") for folder in folders)
    own = plan(demo(root, tables=renamed, figures=figures), "workflow/settings/mine.yaml", root)
    assert own.tables["digits"].outputs[0] == "results/mine/digits.csv"
    assert own.tables["digits"].identity != planned.tables["digits"].identity
    assert set(own.stage_two) == {run for run in planned.stage_two if "-k3-" not in run}


@pytest.mark.parametrize("taken", ["table2", "sweeps/gamma_b"])
def test_a_table_in_results_takes_no_place_of_one_of_params_yaml(root, taken):
    sweeps = {"gamma_b": {"method": "GLAG", "grid": {"stage_two.k": [2]}}} if "/" in taken else {}
    tables = {"mine": demo(root).tables["table2"].resolved()} if sweeps else {}
    changes = {key: value for key, value in (("sweeps", sweeps), ("tables", tables)) if value}
    changes["figures"] = {}
    with pytest.raises(UserError, match=f"tables_in: results: {taken} is a table of params.yaml too"):
        plan(demo(root, tables_in="results", **changes), "workflow/settings/mine.yaml", root)


def test_settings_files_of_the_project_that_publish_in_results_share_no_table(root):
    names = []
    for file in sorted((root / "workflow/settings").rglob("*.yaml")):
        params = Params.load(file)
        names += [*params.tables] if params.tables_in else []
    assert len(names) == len(set(names)) >= 11


def frame(root, params, source="params.yaml"):
    return plan(params, source, root).frame["runs"]


def test_the_frame_of_results_has_every_run_of_stage_two_once(root, settings):
    grid = {"gamma": {"method": "GraLoss", "grid": {"stage_one.loss.gamma.b": [2, 3]}}}
    params = Params.read({**settings, "sweeps": grid})
    planned = plan(params, "params.yaml", root)
    found = planned.frame["runs"]
    assert found.outputs == [f"results/{name}" for name in ("runs.csv", "curves.csv", "metrics.json")]
    assert found.record == "results/runs.identity.json"
    names = [cell.runs["stage_two"].name for cell in found.cells]
    assert sorted(names) == sorted(planned.stage_two)
    swept = [cell.method for cell in found.cells if cell.method.startswith("sweeps/")]
    assert set(swept) == {"sweeps/gamma/b = 3"}  # b = 2 is a method of the tables
    for cell in found.cells:
        method = found.context["methods"][cell.method]
        assert method["stage_one"] in found.context["recipes"]
        assert method["stage_two"] in found.context["classifiers"]


def test_the_frame_of_another_settings_file_stands_in_its_folder(root):
    found = frame(root, demo(root), "workflow/settings/demo.yaml")
    assert found.outputs[0] == "results/demo/runs.csv"
    tables = {"mine": demo(root).tables["table2"].resolved()}
    params = demo(root, tables_in="results", tables=tables, figures={})
    moved = frame(root, params, "workflow/settings/demo.yaml")
    assert moved.outputs == found.outputs


def test_the_frame_changes_with_its_runs_and_not_with_a_caption(root):
    before = frame(root, demo(root)).identity
    tables = {"table2": demo(root).tables["table2"].resolved() | {"caption": "Another"}}
    assert frame(root, demo(root, tables=tables)).identity == before
    assert frame(root, demo(root, seeds=[5])).identity != before


@pytest.mark.parametrize(
    "name", ["runs", "report", "index", "curves", "label_issues", "label_issues_by_class", "data_problems"]
)
def test_a_table_of_a_name_that_is_taken_is_one_line(root, name):
    tables = {name: demo(root).tables["table2"].resolved()}
    with pytest.raises(UserError, match=f"tables.{name}: results/{name}.* rename it"):
        plan(demo(root, tables=tables, figures={}), "params.yaml", root)


@pytest.mark.parametrize("file", ["Snakefile", "workflow/rules/tables.smk", "workflow/report/table.rst"])
def test_the_report_is_another_one_with_another_rule_or_caption(root, tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    shutil.copy(root / "Snakefile", tmp_path)
    for folder in ("rules", "report"):
        shutil.copytree(root / "workflow" / folder, tmp_path / "workflow" / folder)

    def report() -> str:
        return plan(demo(root), "workflow/settings/demo.yaml").report["report"].identity

    before = report()
    assert before == report()
    Path(file).write_text(Path(file).read_text() + "# more\n")
    assert before != report()
    stage = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["report"]
    assert {file, str(Path(file).parent)} & set(stage["deps"])
