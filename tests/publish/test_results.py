"""The tidy frame of results, and runs.csv, which is it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.publish import frame
from longtail.publish.results import MEASURED, RICH, results
from longtail.publish.tables.over_runs import over_runs
from longtail.settings.published import Groups
from tests import published_runs as made

RATIOS = (100.0, 10.0)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return made.job(folder, None, ratios=RATIOS, subsets=(0, 1), seeds=(0, 1), predictions=False)


def test_a_row_is_a_run_and_a_split(job):
    found = results(job)
    runs = len(made.METHODS) * len(RATIOS) * 2 * 2
    assert len(found) == 2 * runs
    assert found["split"].value_counts().to_dict() == {"test": runs, "validation": runs}
    assert not found.duplicated(["split", "method", "ratio", "subset_seed", "seed"]).any()


def test_numbers_are_those_of_the_run_as_shares_in_full_precision(job):
    found = results(job).set_index(["split", "method", "ratio", "subset_seed", "seed"]).sort_index()
    for cell in job.cells:
        place = (cell.method, cell.ratio, cell.subset_seed, cell.seed)
        measured = cell.metrics()
        test, validation = found.loc["test", *place], found.loc["validation", *place]
        assert test["accuracy"] == measured["test"]["accuracy"]
        assert test["expected_calibration_error"] == measured["test"]["expected_calibration_error"]
        assert validation["selection_accuracy"] == measured["validation"]["selection_accuracy"]
        assert np.isnan(test["selection_accuracy"])
        few = [
            share
            for share, size in zip(measured["test"]["per_class"], cell.class_counts(), strict=True)
            if size < 20
        ]
        assert np.isnan(test["few"]) if not few else test["few"] == pytest.approx(np.mean(few))
        assert (test["recipe"], test["classifier"]) == tuple(made.METHODS[cell.method].values())
        assert test["images"] == measured["test"]["n"]


def test_batch_normalisation_has_a_column_only_where_an_extension_computed_it(tmp_path):
    plain = results(made.job(tmp_path / "a", None, seeds=(0,), predictions=False))
    fused = {"GLAG": {"batch_norm": "fused 1a2b3c4d"}}
    mixed = results(made.job(tmp_path / "b", None, seeds=(0,), predictions=False, facts=fused))
    assert [*plain.columns, "stage_one_batch_norm"] == list(mixed.columns)
    pd.testing.assert_frame_equal(mixed[plain.columns], plain)
    by_method = mixed.groupby("method")["stage_one_batch_norm"].unique().map(list).to_dict()
    assert by_method == {name: ["fused 1a2b3c4d" if name == "GLAG" else "torch's"] for name in made.METHODS}


def test_groups_are_those_of_the_settings(tmp_path):
    everything = made.job(tmp_path, None, seeds=(0,), groups=Groups(many_above=0, few_below=0))
    test = results(everything).query("split == 'test'")
    assert test["many"].tolist() == pytest.approx(test["accuracy"].tolist())
    assert test[["medium", "few"]].isna().all(axis=None)


def test_what_a_run_recorded_stands_beside_its_numbers(tmp_path):
    job = made.job(tmp_path, None, seeds=(0,), only={"GLAG": {}}, facts={"GLAG": {"device": "a CPU"}})
    [cell] = job.cells
    facts = {"facts": {"device": "a CPU", "precision": "float32", "environments": ["old", "new"]}}
    stage_one = {"run": "r", "identity": "i", "seconds": 7.25, "settings": {}, **facts}
    cell.info["stage_one"] = {**stage_one, "code": {"commit": "c"}, "packages": {"torch": "2"}}
    cell.info["stage_two"] = {**cell.info["stage_two"], "facts": {}}
    row = results(job).iloc[0]
    assert [row[f"stage_one_{name}"] for name in ("run", "identity", "seconds", "commit")] == [
        "r",
        "i",
        7.25,
        "c",
    ]
    assert row["stage_one_environments"] == "old; new"
    assert row["stage_two_device"] == "unknown"


def test_phases_about_data_rich_classes_are_measured_on_test_images(tmp_path):
    job = made.job(tmp_path, None, seeds=(0,), only={"CE": {}, "GraLoss": {}})
    for cell in job.cells:
        if cell.method == "GraLoss":
            rich = {"a": {"test": 0.75}, "b": {"test": 0.7}, "c": {"test": 0.5}}
            (cell.runs["stage_one"] / "metrics.json").write_text(json.dumps({"rich": rich}))
    found = results(job).set_index(["method", "split"])[list(RICH)]
    assert found.loc["GraLoss", "test"].tolist() == [0.75, 0.5]
    assert found.drop(index=("GraLoss", "test")).isna().all(axis=None)


def test_without_cells_the_frame_has_its_columns_and_no_row(tmp_path):
    found = results(made.job(tmp_path, None, only={}))
    assert found.empty
    assert {"split", "method", *MEASURED, "stage_two_seconds"} <= set(found)


shares = st.lists(st.integers(0, 10_000).map(lambda hits: hits / 10_000), min_size=2, max_size=6)


@given(shares=shares, data=st.data())
def test_no_digit_of_a_mean_or_a_spread_hangs_on_the_order_of_runs(shares, data):
    def statistics(values: list[float]) -> pd.Series:
        columns = [*MEASURED, *RICH]
        found = pd.DataFrame(0.5, index=range(len(values)), columns=columns).assign(accuracy=values)
        return over_runs(found.assign(split="test", method="m", imbalance="i")).iloc[0]

    known = statistics(shares)
    pd.testing.assert_series_equal(statistics(data.draw(st.permutations(shares))), known, check_exact=True)
    assert known["runs_accuracy"] == len(shares)
    assert known["mean_accuracy"] == pytest.approx(100 * np.mean(shares))
    assert known["spread_accuracy"] == pytest.approx(100 * np.std(shares, ddof=1), abs=1e-9)


BLOCKS = {
    "ce": {"loss": {"name": "focal"}, "crop": 4, "then": [], "transforms": [{"name": "mixup", "alpha": 1}]},
    "graloss": {"loss": {"name": "b", "gamma": {"b": 2.0}}, "crop": 4, "then": [], "transforms": []},
}
CLASSIFIERS = {
    name: {"batchnorm": "eval", "method": {"name": name, "k": k, "size": None, "grid": [0, 1]}}
    for name, k in (("joint", 1), ("crt", 1.0), ("afg", True))
}


def written(job) -> pd.DataFrame:
    frame.compute(job, BLOCKS, CLASSIFIERS)
    return pd.read_csv(job.folder / f"{job.name}.csv")


def test_runs_csv_is_the_frame_and_every_setting_that_differs(job):
    table = written(job)
    known = results(job)
    pd.testing.assert_frame_equal(table[list(MEASURED)], known[list(MEASURED)], check_exact=True)
    settings = [name for name in table if "." in name]
    assert settings == [
        "stage_one.loss.name",
        "stage_one.transforms.mixup.name",
        "stage_one.transforms.mixup.alpha",
        "stage_one.loss.gamma.b",
        "stage_two.name",
        "stage_two.k",
    ]
    by_recipe = table.groupby("recipe")["stage_one.loss.gamma.b"].first()
    assert by_recipe["graloss"] == 2
    assert np.isnan(by_recipe["ce"])
    by_classifier = table.astype({"stage_two.k": str}).groupby("classifier")["stage_two.k"].unique()
    assert {name: list(values) for name, values in by_classifier.items()} == {
        "joint": ["1"], "crt": ["1.0"], "afg": ["True"]
    }  # fmt: skip


def test_runs_csv_has_the_same_bytes_again(job):
    path = Path(job.folder / f"{job.name}.csv")
    written(job)
    first = path.read_bytes()
    written(job)
    assert path.read_bytes() == first
    assert b"\r" not in first


def test_settings_that_are_the_same_in_all_runs_are_left_out(tmp_path):
    job = made.job(tmp_path, None, seeds=(0,), only={"CE": {}})
    assert not [name for name in written(job) if "." in name]


def test_lists_of_blocks_go_by_their_names_and_others_as_json():
    block = {"then": [{"name": "poor", "k": 1}, {"name": "last", "k": 2}], "size": [32, 32], "x": [{"a": 1}]}
    assert frame.recipe_settings(block) == {
        "stage_one.then.poor.name": "poor",
        "stage_one.then.poor.k": 1,
        "stage_one.then.last.name": "last",
        "stage_one.then.last.k": 2,
        "stage_one.size": "[32, 32]",
        "stage_one.x": '[{"a": 1}]',
    }


def test_what_a_sweep_adds_goes_by_the_name_of_its_entry(tmp_path):
    methods = {"CE": {"stage_one": "sweeps/gamma_b/graloss", "stage_two": "sweeps/gamma_b/crt"}}
    job = dataclasses.replace(made.job(tmp_path, None, seeds=(0,), only={"CE": {}}), methods=methods)
    recipes, classifiers = (
        {f"sweeps/gamma_b/{name}": block for name, block in blocks.items()}
        for blocks in (BLOCKS, CLASSIFIERS)
    )
    frame.compute(job, recipes, classifiers)
    table = pd.read_csv(job.folder / f"{job.name}.csv")
    assert set(table["recipe"]) == {"graloss"}
    assert set(table["classifier"]) == {"crt"}
