"""What a sweep plans, and what it refuses."""

from copy import deepcopy

import pytest

from longtail.errors import UserError
from longtail.orchestration import sweeps
from longtail.orchestration.planner import plan
from longtail.runs.steps import STEPS
from longtail.settings.params import Params
from longtail.settings.reading import parse


@pytest.fixture(scope="module")
def settings(root):
    settings = parse((root / "params.yaml").read_text())
    return {**settings, "tables": {"table2": settings["tables"]["table2"]}, "figures": {}, "sweeps": {}}


def with_sweep(settings, method="GLAG", **changes):
    settings = deepcopy(settings)
    settings["sweeps"] = {"s": {"method": method, "grid": {"stage_two.k": [1, 2, 3]}, **changes}}
    return settings


def added(settings, swept):
    before, after = plan(Params.read(settings)), plan(Params.read(swept))
    return {step: sorted(set(after.runs(step)) - set(before.runs(step))) for step in STEPS}


def test_only_points_that_are_not_run_already_are_new_runs(settings):
    new = added(settings, with_sweep(settings))
    assert {step: len(names) for step, names in new.items() if names} == {"stage_two": 2 * 3}
    assert {name.rpartition("-")[0] for name in new["stage_two"]} == {
        f"cifar100-exp100-graloss-afg-k{k}-seed{seed}" for k in (1, 3) for seed in range(3)
    }


def test_a_sweep_of_stage_one_trains_stage_one(settings):
    swept = with_sweep(settings, "GraLoss", grid={"stage_one.loss.gamma.b": [0.5, 2]})
    new = added(settings, swept)
    assert {step: len(names) for step, names in new.items() if names} == {
        "stage_one": 3,
        "features": 3,
        "stage_two": 3,
    }
    assert new["stage_two"][0].startswith("cifar100-exp100-graloss-b0.5-joint-seed0-")


def test_a_point_named_like_an_entry_is_not_taken_for_it(settings):
    swept = with_sweep(settings, "GraLoss", grid={"stage_one.loss.gamma.b": [3]})
    swept["stage_one"]["graloss-b3"] = settings["stage_one"]["ce"] | {"batch_size": 64}
    swept["methods"]["Other"] = {"stage_one": "graloss-b3", "stage_two": "joint"}
    swept["tables"]["table2"]["rows"].append({"section": "s", "label": "Other", "method": "Other"})
    trained = [run.settings.resolved()["recipe"] for run in plan(Params.read(swept)).stage_one.values()]
    assert {"form": "power", "a": 1.0, "b": 3.0} in [recipe["loss"].get("gamma") for recipe in trained]


def test_two_keys_of_both_stages_are_a_grid_whose_stage_one_runs_are_shared(settings):
    grid = {"stage_one.loss.gamma.b": [1, 3], "stage_two.k": [1, 2]}
    new = added(settings, with_sweep(settings, grid=grid, ratio=50))
    assert {step: len(names) for step, names in new.items() if names} == {
        "stage_one": 2 * 3,
        "features": 2 * 3,
        "stage_two": 4 * 3,
    }
    assert all("-exp50-" in name for names in new.values() for name in names)


def test_the_table_has_a_row_a_point_and_the_figure_the_values(settings):
    grid = {"stage_two.k": [1, 2], "stage_two.alpha": [0, 0.1]}
    planned = plan(Params.read(with_sweep(settings, grid=grid, caption="A grid")))
    table, figure = planned.tables["sweeps/s"], planned.figures["sweep_s"]
    assert table.outputs[0] == "results/sweeps/s.csv"
    assert table.settings.caption == "A grid"
    labels = ["k = 1, alpha = 0", "k = 1, alpha = 0.1", "k = 2, alpha = 0", "k = 2, alpha = 0.1"]
    assert [row.label for row in table.settings.rows] == labels
    assert table.settings.rows[1].values == {"k": "1", "alpha": "0.1"}
    assert figure.outputs[0] == "results/figures/sweep_s.png"
    assert [(point.method, point.values) for point in figure.settings.options.points][1] == (
        "k = 1, alpha = 0.1",
        [1, 0.1],
    )
    assert {cell.method for cell in figure.cells} == set(labels)


def test_the_runs_have_the_values(settings):
    grid = {"stage_two.confidence.update": ["fixed"], "stage_two.learning_rate.peak": [0.02]}
    [part] = sweeps.expanded(Params.read(with_sweep(settings, grid=grid)))
    [(entry, classifier)] = part.stage_two.items()
    assert entry == "afg-updatefixed-peak0.02"
    options = classifier.method.options
    assert (options.confidence.update, options.learning_rate.peak) == ("fixed", 0.02)
    assert (options.confidence.initial, options.k) == (0.4, 2)


def test_a_later_phase_goes_by_its_name_and_points_share_the_first(settings):
    grid = {"stage_one.then.poor.bank.per_class": [5, 10]}
    new = added(settings, with_sweep(settings, "Asynchronous", grid=grid))["stage_one"]
    names = [name.rpartition("-")[0] for name in new]
    places = ("-per_class10", "-per_class5", "-per_class5.train")
    assert names == sorted(
        f"cifar100-exp100-asynchronous{place}-seed{seed}" for place in places for seed in range(3)
    )


def test_a_whole_block_may_be_a_value(settings):
    blocks = [{"form": "constant", "a": 0.5}, {"form": "cosine"}]
    [part] = sweeps.expanded(
        Params.read(with_sweep(settings, "GraLoss", grid={"stage_one.loss.gamma": blocks}))
    )
    assert [recipe.loss.options.gamma.form for recipe in part.stage_one.values()] == ["constant", "cosine"]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("loss.gamma", [{"form": "exponential", "a": 1.0, "b": b} for b in (2.0, -2.0, 3.0)]),
        ("optimiser.weight_decay", [1e6, 1e-6]),
    ],
)
def test_values_that_read_alike_in_names_are_runs_of_their_own(settings, key, values):
    swept = with_sweep(settings, "GraLoss", grid={f"stage_one.{key}": values})
    [part] = sweeps.expanded(Params.read(swept))
    entries = [row.stage_one for row in part.methods.values()]
    assert len(set(entries)) == len(values)
    for entry, value in zip(entries, values, strict=True):
        found = part.stage_one[entry].resolved()
        for word in key.split("."):
            found = found[word]
        assert found == value


def test_values_that_read_alike_in_labels_are_refused(settings):
    swept = with_sweep(settings, "GraLoss", grid={"stage_one.loss.gamma.b": [2.5, 2.50000000001]})
    with pytest.raises(UserError, match="twice"):
        list(sweeps.expanded(Params.read(swept)))


def test_keys_that_end_alike_are_told_apart(settings):
    grid = {"stage_two.kd.gamma.b": [1], "stage_one.loss.gamma.b": [3]}
    [part] = sweeps.expanded(Params.read(with_sweep(settings, grid=grid)))
    assert list(part.methods) == ["kd.gamma.b = 1, loss.gamma.b = 3"]


def test_three_keys_have_a_table_but_no_figure(settings):
    grid = {"stage_two.k": [1], "stage_two.alpha": [0], "stage_two.tail_max": [20]}
    planned = plan(Params.read(with_sweep(settings, grid=grid)))
    assert "sweeps/s" in planned.tables
    assert "sweep_s" not in planned.figures


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {}}, "sweeps.s.grid: {}: Dictionary should have at least 1 item"),
        ({"grid": {"stage_two.k": []}}, "sweeps.s.grid.stage_two.k: []: List should have at least 1 item"),
        ({"grid": {"stage_two.kk": [1]}}, "sweeps.s.grid.stage_two.kk: there is no 'kk' in stage_two, which"),
        (
            {"grid": {"stage_two.kd.gamma.c": [1]}},
            "sweeps.s.grid.stage_two.kd.gamma.c: there is no 'c' in stage_two.kd.gamma, which has form, a, b",
        ),
        (
            {"grid": {"stage_two.k.b": [1]}},
            "sweeps.s.grid.stage_two.k.b: there is no 'b' in stage_two.k, which has no keys",
        ),
        ({"grid": {"features.views": [1]}}, "a key of a grid begins with stage_one. or stage_two."),
        ({"grid": {"stage_two.k": [0]}}, "sweeps.s.grid: stage_two.k: 0 is below 1"),
        ({"grid": {"stage_two.k": [1, 1.0]}}, "sweeps.s.grid: gives k = 1 twice"),
        (
            {"method": "GraLoss", "grid": {"stage_one.classes": ["rich"]}},
            "sweeps.s.grid: stage_one: no phase sees the images of data-poor classes",
        ),
        (
            {"method": "Asynchronous", "grid": {"stage_one.then.rich.bank": [None]}},
            "sweeps.s.grid.stage_one.then.rich.bank: there is no 'rich' in stage_one.then, which has poor",
        ),
        ({"method": "GLAD"}, "sweeps.s.method: 'GLAD' is not an entry of methods: CE,"),
        (
            {"ratio": 49.99999999},
            "sweeps.s.ratio: 49.99999999 is not one of imbalance.ratios: 200, 100, 50, 10",
        ),
        ({"ratio": 7}, "sweeps.s.ratio: 7 is not one of imbalance.ratios: 200, 100, 50, 10"),
        ({"seeds": [1]}, "sweeps.s.seeds: unknown key"),
    ],
)
def test_a_wrong_sweep_is_one_line(settings, changes, message):
    swept = with_sweep(settings)
    swept["sweeps"]["s"] |= changes
    with pytest.raises(UserError) as caught:
        plan(Params.read(swept))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_figure_of_the_same_name_is_one_line(settings):
    swept = with_sweep(settings)
    swept["figures"] = {"sweep_s": {"name": "gamma"}}
    with pytest.raises(UserError, match=r"^sweeps\.s: figures\.sweep_s has the name of its figure"):
        plan(Params.read(swept))


def test_a_sweep_leaves_what_else_is_published_alone(settings):
    settings = {**settings, "figures": {"gamma": {}}}
    before, after = plan(Params.read(settings)), plan(Params.read(with_sweep(settings)))
    assert before.tables["table2"].identity == after.tables["table2"].identity
    assert before.figures["gamma"].identity == after.figures["gamma"].identity
