"""What tables print of runs."""

import csv
import dataclasses
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.errors import UserError
from longtail.publish.tables import check as tables
from longtail.publish.tables import make, over_runs, words
from longtail.settings.methods import settings_of
from longtail.settings.published import Groups
from longtail.settings.recipe import Recipe
from tests import published_runs as made

SNAPSHOT = Path(__file__).parent / "snapshot"
SUFFIXES = ("csv", "md", "tex", "html")
FIRST_COLUMNS = (
    "section,method,imbalance_ratio,mean,standard_deviation,seeds,printed,difference,selection_split"
)


def written(job) -> dict[str, str]:
    make.compute(job)
    return {suffix: (job.folder / f"{job.name}.{suffix}").read_text("utf-8") for suffix in SUFFIXES}


def read_csv(job) -> dict[tuple[str, str], dict[str, str]]:
    text = written(job)["csv"]
    return {(line["method"], line["imbalance_ratio"]): line for line in csv.DictReader(text.splitlines())}


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9))
def test_spread_is_the_sample_standard_deviation_and_absent_with_one_seed(values):
    assert over_runs.mean(values) == pytest.approx(np.mean(values))
    spread = over_runs.spread(values)
    assert (
        math.isnan(spread) if len(values) == 1 else spread == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    )


def test_mean_spread_and_difference_are_those_of_the_runs(tmp_path):
    job = made.job(tmp_path, made.table())
    accuracies = [100 * cell.metrics()["test"]["accuracy"] for cell in job.cells if cell.method == "GLAG"]
    line = read_csv(job)["GLAG", "100"]
    assert line["mean"] == f"{np.mean(accuracies):.2f}"
    assert line["standard_deviation"] == f"{np.std(accuracies, ddof=1):.2f}"
    assert line["seeds"] == "3"
    assert line["printed"] == "51.7"
    assert line["difference"] == f"{np.mean(accuracies) - 51.7:.2f}"


def test_the_tidy_table_has_a_line_a_row_and_ratio(tmp_path):
    text = written(made.job(tmp_path, made.table(), ratios=(200.0, 100.0), seeds=(0,)))["csv"]
    assert text.startswith(FIRST_COLUMNS)
    lines = list(csv.DictReader(text.splitlines()))
    assert [(line["method"], line["imbalance_ratio"]) for line in lines] == [
        (row["label"], ratio) for row in made.ROWS for ratio in ("200", "100")
    ]


def test_values_of_a_sweep_leave_the_columns_of_every_table_alone(tmp_path):
    table = made.table()
    rows = [row.model_copy(update={"values": {"seeds": "all", "mean": "x", "k": "3"}}) for row in table.rows]
    job = made.job(tmp_path, table.model_copy(update={"rows": rows}))
    line = read_csv(job)["GLAG", "100"]
    assert (line["seeds"], line["value_of_seeds"]) == ("3", "all")
    assert float(line["mean"]) > 0
    assert (line["value_of_mean"], line["k"]) == ("x", "3")


def test_the_length_and_the_augmentation_are_those_of_all_phases():
    phase = {
        "name": "b",
        "sampler": "instance",
        "schedule": {"iterations": 30},
        "learning_rate": {"peak": 0.1},
    }
    recipe = {
        "loss": "focal",
        "then": [phase],
        "transforms": ["mixup"],
        "augmentation": {"autoaugment": "none"},
    }
    recipe = Recipe.model_validate(recipe)
    assert words.length(recipe) == "200 epochs + 30 iterations"
    assert words.augmentation(recipe) == "crop 4 + flip + Cutout 16 + mixup"
    made = Recipe.model_validate({**recipe.resolved(), "then": [{**phase, "companions": "cam"}]})
    assert words.augmentation(made) == "crop 4 + flip + Cutout 16 + mixup + cam"


def test_one_seed_has_no_spread_anywhere(tmp_path):
    job = made.job(tmp_path, made.table(), seeds=(0,))
    texts = written(job)
    assert read_csv(job)["Cross-entropy", "100"]["standard_deviation"] == ""
    assert not re.search(r"\d ± \d", texts["md"])
    assert re.search(r"\| Cross-entropy \| \d\d\.\d \(1\) \| \*39\.8\* \|", texts["md"])


def test_a_row_not_yet_built_shows_the_printed_value_and_nothing_of_ours(tmp_path):
    job = made.job(tmp_path, made.table())
    line = read_csv(job)["Focal loss", "100"]
    assert (line["mean"], line["seeds"], line["printed"], line["difference"]) == ("", "0", "38.4", "")
    assert "| Focal loss |  | *38.4* |" in written(job)["md"]


def test_a_table_of_which_nothing_is_built_shows_what_the_paper_prints(tmp_path):
    rows = [
        row | {"method": None, "printed": True}
        for row in made.ROWS
        if row["label"] in ("Cross-entropy", "GLAG")
    ]
    lines = read_csv(made.job(tmp_path, made.table(rows=rows), only={}))
    assert [lines["GLAG", ratio]["printed"] for ratio in ("200", "100", "50", "10")] == [
        "46.9",
        "51.7",
        "55.3",
        "64.5",
    ]


def test_a_ratio_that_the_paper_leaves_out_is_empty_in_the_csv_and_a_dash_beside_it(tmp_path):
    job = made.job(tmp_path, made.table(), ratios=(200.0,))
    assert read_csv(job)["Logit adjustment", "200"]["printed"] == ""
    assert "| Logit adjustment |  | *-* |" in written(job)["md"]


def test_printed_numbers_stand_only_beside_the_dataset_that_they_are_of(tmp_path):
    texts = written(made.job(tmp_path, made.table(), dataset="digits"))
    assert all(line["printed"] == "" for line in csv.DictReader(texts["csv"].splitlines()))
    assert not any("printed" in texts[suffix].lower().partition("</style>")[2] for suffix in ("html",))
    assert "printed" not in texts["md"].lower()
    assert "arXiv" not in "".join(texts.values())


def test_a_row_may_decline_its_printed_number(tmp_path):
    assert read_csv(made.job(tmp_path, made.table()))["cRT", "100"]["printed"] == ""


def test_an_empty_group_is_not_applicable(tmp_path):
    line = read_csv(made.job(tmp_path, made.table(), ratios=(10.0,)))["Cross-entropy", "10"]
    assert line["few"] == "n/a"
    assert float(line["many"]) > float(line["medium"])


def test_groups_follow_the_thresholds_of_the_settings(tmp_path):
    everything = read_csv(made.job(tmp_path, made.table(), groups=Groups(many_above=0, few_below=0)))
    line = everything["Cross-entropy", "100"]
    assert (line["many"], line["medium"], line["few"]) == (line["mean"], "n/a", "n/a")


def test_a_group_is_the_mean_over_its_classes(tmp_path):
    job = made.job(tmp_path, made.table(), seeds=(0,))
    [cell] = [cell for cell in job.cells if cell.method == "GLAG"]
    few = [
        share
        for share, size in zip(cell.metrics()["test"]["per_class"], cell.class_counts(), strict=True)
        if size < 20
    ]
    assert len(few) == 30
    assert read_csv(job)["GLAG", "100"]["few"] == f"{100 * np.mean(few):.2f}"


def test_printed_groups_stand_beside_ours(tmp_path):
    rows = [{"section": "Components", "label": "Gra+AD+KD", "method": "GLAG"}]
    job = made.job(tmp_path, made.table(printed="table7", rows=rows))
    line = read_csv(job)["Gra+AD+KD", "100"]
    assert [line[f"printed_{name}"] for name in ("many", "medium", "few")] == ["65.8", "52.9", "33.9"]
    assert re.search(
        r"\| Gra\+AD\+KD \| [\d.± ]+ \| \*65\.8\* \| [\d.± ]+ \| \*52\.9\* \|", written(job)["md"]
    )


@pytest.mark.parametrize(
    ("method", "selected"),
    [
        ("Cross-entropy", "none"),
        ("cRT", "none"),
        ("GLAG", "unused training images (+20 a class for selection): confidences c_y"),
    ],
)
def test_the_selection_split_stands_where_something_was_selected(tmp_path, method, selected):
    assert (
        read_csv(made.job(tmp_path, made.table(), seeds=(0,)))[method, "100"]["selection_split"] == selected
    )


def test_a_fixed_confidence_selects_nothing():
    afg = settings_of("stage_two", "afg")
    assert not getattr(afg.model_validate({"confidence": {"update": "fixed"}}), "selects", "")


def test_a_classifier_that_learnt_from_all_training_images_is_marked(tmp_path):
    job = made.job(tmp_path / "a", made.table(), seeds=(0,))
    usual = written(job)
    assert not any("complete training set" in text for text in usual.values())
    assert "classifier_data" not in usual["csv"]
    for cell in job.cells:
        if cell.method == "CE + cRT":
            cell.info["stage_two"]["settings"]["method"] = {"name": "whole"}
    for suffix, text in written(job).items():
        assert "complete training set" in text, suffix
    lines = read_csv(job)
    assert lines["cRT", "100"]["classifier_data"] == "complete training set"
    assert lines["GLAG", "100"]["classifier_data"] == "long-tailed training set"
    assert lines["BBN", "100"]["classifier_data"] == ""


COMPONENTS = [
    {"section": "Components", "label": "CE", "method": "CE"},
    {"section": "Components", "label": "GraLoss", "method": "GraLoss"},
    {"section": "Components", "label": "Gra+AD+KD", "method": "GLAG"},
]


def test_columns_are_those_of_the_settings_in_their_order(tmp_path):
    columns = ["accuracy", "many", "medium", "few"]
    table = made.table(printed="table7", rows=COMPONENTS, columns=columns, ratios=[100.0])
    text = written(made.job(tmp_path, table, ratios=(100.0,), seeds=(0,)))["md"]
    heads = [f"ratio 100, {head} | *ratio 100, {head}, printed*" for head in ("all", "many", "medium", "few")]
    assert f"| | {' | '.join(heads)} |" in text
    assert re.search(r"\| CE \| [\d.]+ \(1\) \| \*45\.3\* \| [\d.]+ \| \*72\.5\* \|", text)
    assert "The same by training images" not in text


def test_a_ratio_that_the_table_does_not_show_is_not_in_it(tmp_path):
    table = made.table(ratios=[50.0])
    lines = read_csv(made.job(tmp_path, table, ratios=(50.0,), seeds=(0,)))
    assert {ratio for _, ratio in lines} == {"50"}
    assert lines["BBN", "50"]["printed"] == "47.1"
    nothing_built = made.job(tmp_path, made.table(rows=[made.ROWS[2]], ratios=[50.0]), only={})
    assert list(read_csv(nothing_built)) == [("Focal loss", "50")]


def test_the_linear_column_is_the_accuracy_of_the_rows_second_method(tmp_path):
    rows = [
        {"section": "Stage one", "label": "CE", "method": "CE", "linear": "CE + cRT"},
        {"section": "Stage one", "label": "LDAM"},
    ]
    job = made.job(tmp_path, made.table(printed="table1", rows=rows, columns=["few", "accuracy", "linear"]))
    mean = np.mean(
        [100 * cell.metrics()["test"]["accuracy"] for cell in job.cells if cell.method == "CE + cRT"]
    )
    line = read_csv(job)["CE", "100"]
    assert line["linear"] == f"{mean:.2f}"
    assert (line["printed_linear"], line["printed"]) == ("57.33", "46.6")
    assert line["difference_linear"] == f"{mean - 57.33:.2f}"
    assert re.search(rf"\| \*46\.6\* \| {mean:.1f} ± [\d.]+ \(3\) \| \*57\.33\* \|", written(job)["md"])
    assert read_csv(job)["LDAM", "100"]["linear"] == ""


def test_forgetting_is_what_data_rich_classes_lost_between_the_phases(tmp_path):
    columns = ["accuracy", "many", "forgetting"]
    job = made.job(tmp_path, made.table(rows=made.ROWS[:2], columns=columns, printed=None), seeds=(0, 1))
    for cell in job.cells:
        if cell.method == "GraLoss":
            rich = {"train": {"test": 0.75}, "poor": {"test": 0.6 + 0.1 * cell.seed}}
            (cell.runs["stage_one"] / "metrics.json").write_text(json.dumps({"rich": rich}))
    lines = read_csv(job)
    ours = lines["GraLoss", "100"]
    assert (ours["data_rich_after_first_phase"], ours["data_rich_after_last_phase"]) == ("75.00", "65.00")
    assert (ours["forgetting"], ours["standard_deviation_forgetting"]) == ("10.00", "7.07")
    assert {lines["Cross-entropy", "100"][name] for name in ours if "forgetting" in name} == {""}
    page = written(job)["md"]
    assert re.search(r"\| GraLoss \| [\d.]+ ± [\d.]+ \(2\) \| [\d.]+ ± [\d.]+ \| 10\.0 ± 7\.1 \|", page)
    assert re.search(r"\| Cross-entropy \|.*\| n/a \|", page)
    assert "Forgetting: accuracy on test images of the data-rich classes" in page


def test_the_accuracy_on_validation_images_may_be_a_column(tmp_path):
    rows = [row for row in made.ROWS if "method" in row]
    columns = ["accuracy", "few", "validation"]
    job = made.job(tmp_path, made.table(printed=None, rows=rows, columns=columns), seeds=(0, 1))
    for cell in job.cells:
        if cell.method == "CE + cRT":  # as a classifier that learnt from all training images
            measured = {"test": cell.metrics()["test"]}
            (cell.runs["stage_two"] / "metrics.json").write_text(json.dumps(measured), "utf-8")
    scores = [100 * cell.metrics()["validation"]["selection_accuracy"] for cell in job.cells
              if cell.method == "GraLoss"]  # fmt: skip
    text = written(job)
    shown = f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}"
    assert re.search(rf"\| GraLoss \|[^|]*\|[^|]*\| {shown} \|\n", text["md"])
    assert re.search(r"\| cRT \|[^|]*\|[^|]*\| n/a \|\n", text["md"])
    in_latex = shown.replace("±", r"$\pm$") + r" \\"
    assert re.search(rf"GraLoss &.*& {re.escape(in_latex)}", text["tex"])
    assert f"<td>{shown}</td>" in text["html"]
    assert "| ratio 100, all | ratio 100, few | ratio 100, validation |" in text["md"]
    note = (
        "Validation: mean accuracy of the classes in percent on the images by which rows may be chosen: "
        "unused training images (+20 a class for selection); of rows that chose something by these images, "
        "with what they chose."
    )
    for suffix in ("md", "tex", "html"):
        assert note in text[suffix]
    plain = written(
        made.job(tmp_path, made.table(printed=None, rows=rows, columns=columns[:2]), seeds=(0, 1))
    )
    assert not any(note[:11] in plain[suffix] for suffix in ("md", "tex", "html"))


def test_a_column_of_validation_images_alone_says_so(tmp_path):
    table = made.table(printed=None, rows=made.ROWS[:2], columns=["validation"])
    text = written(made.job(tmp_path, table, seeds=(0,)))["md"]
    assert "| | ratio 100, validation |" in text
    assert "chose something by these images" not in text


def test_identities_of_tables_without_a_new_value_are_those_of_before():
    """What is hashed of a table: neither comparing with the row before nor a new column added a key."""
    row = {"section": "a", "label": "CE", "method": "CE", "linear": None, "printed": True, "values": {}}
    found = made.table(rows=[{"section": "a", "label": "CE", "method": "CE"}]).resolved(hashed=True)
    assert found == {
        "caption": "Top-1 accuracy on CIFAR-100-LT", "printed": "table2", "ratios": None, "columns": None,
        "against": None, "notes": [], "rows": [row],
    }  # fmt: skip


def test_a_table_may_have_nothing_but_the_linear_column(tmp_path):
    rows = [
        {"section": "Form of gamma", "label": "Linear", "linear": "GraLoss"},
        {"section": "Form of gamma", "label": "Concave", "linear": "GLAG"},
    ]
    table = made.table(printed="table5", rows=rows, columns=["linear"], against="Linear")
    texts = written(job := made.job(tmp_path, table, seeds=(0,)))
    assert re.search(r"\| Concave \| \d\d\.\d \(1\) \| \*56\.73\* \|", texts["md"])
    line = read_csv(job)["Concave", "100"]
    ours = {cell.method: 100 * cell.metrics()["test"]["accuracy"] for cell in job.cells}
    assert line["difference_to_it"] == f"{ours['GLAG'] - ours['GraLoss']:.2f}"
    assert "Not run by us" not in texts["md"]


def test_the_spread_of_groups_is_printed_and_in_the_csv(tmp_path):
    job = made.job(tmp_path, made.table())
    line = read_csv(job)["GLAG", "100"]
    few = [
        100 * np.mean([share for share, size in zip(
            cell.metrics()["test"]["per_class"], cell.class_counts(), strict=True) if size < 20])
        for cell in job.cells if cell.method == "GLAG"
    ]  # fmt: skip
    assert line["standard_deviation_few"] == f"{np.std(few, ddof=1):.2f}"
    assert f"{np.mean(few):.1f} ± {np.std(few, ddof=1):.1f} |" in written(job)["md"]


@pytest.mark.parametrize(
    ("subsets", "seeds", "over"),
    [
        ((0,), (0,), "test images"),
        ((0,), (0, 1, 2), "seeds and test images"),
        ((0, 1), (0, 1), "subsets and seeds and test images"),
        ((0, 1), (0,), "subsets and test images"),
    ],
)
def test_the_difference_to_the_reference_row_is_paired(tmp_path, subsets, seeds, over):
    table = made.table(against="Cross-entropy")
    job = made.job(tmp_path, table, subsets=subsets, seeds=seeds, only={"CE": {}, "GLAG": {}})
    line = read_csv(job)["GLAG", "100"]
    means = {
        method: np.mean(
            [100 * cell.metrics()["test"]["accuracy"] for cell in job.cells if cell.method == method]
        )
        for method in ("CE", "GLAG")
    }
    assert line["against"] == "Cross-entropy"
    assert line["difference_to_it"] == f"{means['GLAG'] - means['CE']:.2f}"
    assert line["interval_over"] == over
    low, high = float(line["interval_low"]), float(line["interval_high"])
    assert low < means["GLAG"] - means["CE"] < high < low + 8
    text = written(job)["md"]
    assert f"paired bootstrap over {over} (" in text
    assert f"| GLAG | {means['GLAG'] - means['CE']:+.1f} \\[{low:+.1f}, {high:+.1f}\\] |" in text
    assert read_csv(job)["Cross-entropy", "100"]["against"] == ""
    assert read_csv(job)["BBN", "100"]["interval_low"] == ""


def difference(job, method: str, other: str) -> object:
    """Of the mean accuracies of two methods in points, as near as two decimals are."""
    first, second = (
        np.mean([100 * cell.metrics()["test"]["accuracy"] for cell in job.cells if cell.method == name])
        for name in (method, other)
    )
    return pytest.approx(first - second, abs=0.00501)


def test_each_row_may_be_compared_with_the_row_before_it(tmp_path):
    """In whatever section; Focal loss, Logit adjustment and BBN are not run, so cRT and GLAG skip them."""
    job = made.job(tmp_path, made.table(against="previous"), seeds=(0, 1), ratios=(100.0, 10.0))
    text = written(job)
    at = dataclasses.replace(job, cells=[cell for cell in job.cells if cell.ratio == 100])
    lines = {line["method"]: line for line in csv.DictReader(text["csv"].splitlines())
             if line["imbalance_ratio"] == "100"}  # fmt: skip
    compared = {name: line for name, line in lines.items() if line["against"] or line["difference_to_it"]}
    assert {name: (line["against"], float(line["difference_to_it"])) for name, line in compared.items()} == {
        "GraLoss": ("Cross-entropy", difference(at, "GraLoss", "CE")),
        "cRT": ("GraLoss", difference(at, "CE + cRT", "GraLoss")),
        "GLAG": ("cRT", difference(at, "GLAG", "CE + cRT")),
    }
    for suffix in ("md", "tex", "html"):
        assert "Difference of accuracy to the row before in points" in text[suffix]
        assert (
            "Differences: each row is compared with the row before it, in whatever section; rows that were "
            "not run are passed over: cRT with GraLoss, GLAG with cRT." in text[suffix]
        )
        assert "paired bootstrap over seeds and test images" in text[suffix]


def test_a_difference_to_the_row_before_has_the_interval_of_one_to_a_reference_row(tmp_path):
    found = {}
    for against in ("previous", "GraLoss"):
        job = made.job(tmp_path / against, made.table(against=against), seeds=(0, 1))
        line = read_csv(job)["cRT", "100"]
        columns = ("against", "difference_to_it", "interval_low", "interval_high", "interval_over")
        found[against] = [line[name] for name in columns]
        assert all(found[against])
    assert found["previous"] == found["GraLoss"]


def test_rows_that_were_all_run_are_compared_one_by_one_without_a_word_of_others(tmp_path):
    rows = [row for row in made.ROWS if "method" in row]
    job = made.job(tmp_path, made.table(rows=rows, against="previous"), seeds=(0,))
    text = written(job)["md"]
    assert "each row is compared with the row before it, in whatever section.\n" in text
    block = text.partition("Difference of accuracy")[2]
    assert [block.count(f"| {label} |") for label in ("Cross-entropy", "GraLoss", "cRT", "GLAG")] == [
        0,
        1,
        1,
        1,
    ]


def test_linear_columns_are_compared_with_the_row_before_by_their_own_runs(tmp_path):
    rows = [
        {"section": "Form of gamma", "label": "Linear", "linear": "GraLoss"},
        {"section": "Form of gamma", "label": "Convex 1"},
        {"section": "Form of gamma", "label": "Concave", "linear": "GLAG"},
    ]
    table = made.table(printed="table5", rows=rows, columns=["linear"], against="previous")
    line = read_csv(job := made.job(tmp_path, table, seeds=(0,)))["Concave", "100"]
    assert (line["against"], float(line["difference_to_it"])) == (
        "Linear", difference(job, "GLAG", "GraLoss")
    )  # fmt: skip


def test_a_row_that_is_called_previous_is_the_reference_row(tmp_path):
    rows = [made.ROWS[0], {**made.ROWS[1], "label": "previous"}, made.ROWS[-1]]
    lines = read_csv(made.job(tmp_path, made.table(rows=rows, against="previous"), seeds=(0,)))
    assert lines["Cross-entropy", "100"]["against"] == lines["GLAG", "100"]["against"] == "previous"


def test_the_reference_row_is_that_of_the_same_section(tmp_path):
    rows = [
        {"section": "cRT", "label": "CE", "method": "CE + cRT"},
        {"section": "cRT", "label": "GraLoss", "method": "GraLoss"},
        {"section": "LWS", "label": "CE", "method": "CE"},
        {"section": "LWS", "label": "GraLoss", "method": "GLAG"},
    ]
    job = made.job(tmp_path, made.table(printed="table6", rows=rows, against="CE"), seeds=(0,))
    ours = {cell.method: 100 * cell.metrics()["test"]["accuracy"] for cell in job.cells}
    found = [line["difference_to_it"] for line in csv.DictReader(written(job)["csv"].splitlines())]
    assert found == [
        "", f"{ours['GraLoss'] - ours['CE + cRT']:.2f}", "", f"{ours['GLAG'] - ours['CE']:.2f}"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "against", "message"),
    [
        (made.ROWS, "cross entropy", "against: 'cross entropy' is not the label of a row: Cross-entropy,"),
        (
            [{"section": name, "label": "CE", "method": "CE"} for name in "ab"] + [made.ROWS[1]],
            "CE",
            "against: 'CE' stands in a, b, not in End-to-end training",
        ),
        (made.ROWS, "Focal loss", "against: 'Focal loss' is a row without method, to compare with"),
    ],
)
def test_a_reference_row_that_is_not_one_is_one_line(rows, against, message):
    with pytest.raises(UserError, match=re.escape(f"tables.table2.{message}")):
        tables.check("table2", made.table(rows=rows, against=against))


def test_subsets_and_seeds_are_both_averaged_over_and_counted(tmp_path):
    job = made.job(tmp_path, made.table(), subsets=(0, 1), seeds=(0, 1, 2))
    accuracies = [100 * cell.metrics()["test"]["accuracy"] for cell in job.cells if cell.method == "GLAG"]
    assert len(accuracies) == 6
    line = read_csv(job)["GLAG", "100"]
    assert (line["seeds"], line["subset_seeds"]) == ("3", "2")
    assert line["mean"] == f"{np.mean(accuracies):.2f}"
    text = written(job)["md"]
    assert f"{np.mean(accuracies):.1f} ± {np.std(accuracies, ddof=1):.1f} (6)" in text
    assert "Runs: training seeds 0, 1, 2 on each of the subsets of seeds 0, 1." in text


def test_notes_of_the_settings_stand_last(tmp_path):
    text = written(made.job(tmp_path, made.table(notes=["A 100 % sure note."]), seeds=(0,)))
    assert text["md"].endswith("- A 100 % sure note.\n")
    assert r"A 100 \% sure note." in text["tex"]


def test_the_same_runs_give_the_same_bytes(tmp_path):
    first = written(made.job(tmp_path / "a", made.table()))
    job = made.job(tmp_path / "b", made.table())
    for cell in job.cells:
        for info in cell.info.values():
            info.update(seconds=1234.5, peak_memory_mb=99)
    assert written(job) == first


@pytest.mark.parametrize(
    ("fact", "words"), [({"precision": "float32"}, "precision"), ({"device": "AMD EPYC"}, "device")]
)
def test_a_table_says_when_its_runs_are_not_alike(tmp_path, fact, words):
    alike = written(made.job(tmp_path / "a", made.table(), seeds=(0,)))
    assert not any("Warning" in text for text in alike.values())
    mixed = written(made.job(tmp_path / "b", made.table(), seeds=(0,), facts={"GLAG": fact}))
    for suffix in ("md", "tex", "html"):
        assert f"Warning: The runs of this table differ in {words}" in mixed[suffix]


def other_features(cell, **changes) -> None:
    """Features of a cell as another machine has made them."""
    facts = {"device": "NVIDIA H100", "precision": "float32"}
    cell.info["features"] = {"facts": facts, "packages": {"torch": "2.0.0"}} | changes


def test_a_table_says_when_its_features_are_not_alike(tmp_path):
    job = made.job(tmp_path, made.table(), seeds=(0, 1))
    for cell in job.cells:
        if cell.seed == 1 and cell.method == "GLAG":
            other_features(cell)
    text = written(job)["md"]
    for what, found in (
        ("precision", "bf16, float32"),
        ("device", "NVIDIA H100, NVIDIA H200"),
        ("torch version", "2.0.0, 2.14.1"),
    ):
        assert f"Warning: The runs of this table differ in {what} (features): {found}." in text
    assert "Hardware: NVIDIA H200 (Cross-entropy, GraLoss, cRT); NVIDIA H100 + NVIDIA H200 (GLAG);" in text
    assert "torch 2.14.1 (Cross-entropy, GraLoss, cRT); 2.0.0 + 2.14.1 (GLAG)." in text


def test_old_features_that_say_nothing_of_themselves_change_no_byte(tmp_path):
    expected = written(made.job(tmp_path / "a", made.table(), seeds=(0, 1)))
    job = made.job(tmp_path / "b", made.table(), seeds=(0, 1))
    for cell in job.cells:
        if cell.seed == 1:
            other_features(cell, facts={}, packages={})
    assert written(job) == expected


def test_the_hardware_of_a_trunk_that_nothing_trains_is_that_of_its_features(tmp_path):
    job = made.job(tmp_path, made.table(), seeds=(0,))
    for cell in job.cells:
        other_features(cell)
    frozen = {name: recipe.model_copy(update={"freeze": "features"}) for name, recipe in job.recipes.items()}
    text = written(replace(job, recipes=frozen))["md"]
    assert "Hardware: NVIDIA H100; precision float32; torch 2.0.0." in text


def test_a_table_says_which_trainings_went_on_in_another_environment(tmp_path):
    job = made.job(tmp_path, made.table(), seeds=(0, 1))
    for cell in job.cells:
        places = ["H200, torch 2.14.1", "H100, torch 2.0.0"][: 1 + (cell.seed == 1 and cell.method == "GLAG")]
        cell.info["stage_one"] = {**cell.info["stage_one"], "facts": {"environments": places}}
    [line] = [line for line in written(job)["md"].splitlines() if "another environment" in line]
    assert line == (
        "**Warning: Stage one went on in another environment (graloss at ratio 100, subset 0, seed 1): "
        "H200, torch 2.14.1, then H100, torch 2.0.0.**"
    )


def test_a_table_says_by_what_batch_normalisation_was_computed_where_it_was_not_torch(tmp_path):
    plain = written(made.job(tmp_path / "a", made.table(), seeds=(0,)))
    assert not any("normalisation" in text for text in plain.values())
    fused = {"batch_norm": "fused 1a2b3c4d"}
    mixed = written(made.job(tmp_path / "b", made.table(), seeds=(0,), facts={"GLAG": fused}))
    words = "differ in batch normalisation (stage one): fused 1a2b3c4d, torch's."
    assert f"Warning: The runs of this table {words}" in mixed["md"]
    alike = written(
        made.job(tmp_path / "c", made.table(), seeds=(0,), facts=dict.fromkeys(made.METHODS, fused))
    )
    assert "Warning" not in alike["md"]
    note = "- Batch normalisation of stage one: fused 1a2b3c4d (by the compiled extension).\n"
    assert alike["md"].replace(note, "") == plain["md"]


def test_schedules_that_differ_are_named_with_their_rows(tmp_path):
    job = made.job(tmp_path, made.table(), seeds=(0,))
    recipes = {
        name: recipe.model_copy(
            update={"schedule": recipe.schedule.model_validate({"iterations": 13000}), "batch_size": 512}
        )
        if name == "ce"
        else recipe
        for name, recipe in job.recipes.items()
    }
    job = made.job(tmp_path, made.table(), seeds=(0,), recipes=recipes)
    text = written(job)["md"]
    assert "13000 iterations at batch size 512 (Cross-entropy, cRT)" in text
    assert "200 epochs at batch size 128 (GraLoss, GLAG)" in text
    assert read_csv(job)["Cross-entropy", "100"]["stage_one_length"] == "13000 iterations"
    assert read_csv(job)["Cross-entropy", "100"]["augmentation"] == "crop 4 + flip + AutoAugment + Cutout 16"


def test_a_row_of_which_there_is_nothing_to_show_is_one_line(tmp_path):
    rows = [{"section": "Data augmentation", "label": "Remix"}]
    with pytest.raises(UserError, match=r"tables\.table2\.rows\[0\]: .*Remix has no method .* not .* table2"):
        make.compute(made.job(tmp_path, made.table(rows=rows)))


def test_rows_of_ours_that_the_paper_does_not_have_are_named(tmp_path):
    text = written(made.job(tmp_path, made.table(), seeds=(0,)))["md"]
    assert "Not in the paper's table: GraLoss, cRT." in text


def test_notes_name_rows_of_one_label_with_their_sections(tmp_path):
    rows = [
        {"section": "CE", "label": "tau", "method": "CE"},
        {"section": "LA", "label": "joint", "method": "GraLoss"},
        {"section": "LA", "label": "tau", "method": "GLAG"},
        {"section": "Decoupled training", "label": "BBN"},
        {"section": "LDAM", "label": "tau", "method": "CE + cRT"},
    ]
    table = made.table(rows=rows, against="previous")
    job = made.job(tmp_path, table, seeds=(0,))
    smaller = {"ce": job.recipes["ce"].model_copy(update={"batch_size": 64})}
    text = written(replace(job, recipes=job.recipes | smaller))["md"]
    assert "batch size 64 (CE: tau, LDAM: tau); 200 epochs at batch size 128 (joint, LA: tau)." in text
    assert "Not in the paper's table: CE: tau, joint, LA: tau, LDAM: tau." in text
    assert "Not run by us: BBN." in text
    assert "rows that were not run are passed over: LDAM: tau with LA: tau." in text
    assert "| tau |" in text


def test_a_row_given_twice_is_one_line():
    with pytest.raises(
        UserError, match=r"rows\[1\]: End-to-end training: Cross-entropy is already in the table"
    ):
        tables.check("table2", made.table(rows=[made.ROWS[0], made.ROWS[0]]))


def test_latex_rows_have_as_many_cells_as_columns_and_text_is_escaped(tmp_path):
    rows = [{"section": "a & b", "label": "50% of_x", "method": "CE", "printed": False}, made.ROWS[6]]
    text = written(made.job(tmp_path, made.table(rows=rows, caption="Acc_1 <5>")))["tex"]
    assert r"\caption{Acc\_1 $<$5$>$. Dataset" in text
    named = replace(made.job(tmp_path, made.table(rows=rows[:1])), name="afg_readings")
    assert r"\label{tab:afg_readings}" in written(named)["tex"]
    for label in ("[CE]", "*CE"):  # of which a line break would make an option of its own
        row = {"section": "a", "label": label, "method": "CE", "printed": False}
        assert f"\n    {{}}{label} &" in written(made.job(tmp_path, made.table(rows=[row])))["tex"]
    assert r"\textbf{a \& b}" in text
    columns = [len(found) for found in re.findall(r"begin\{tabular\}\{@\{\}l(r+)@", text)]
    body = [line for line in text.splitlines() if line.startswith((r"    50\% of\_x", "    GLAG"))]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body] == [columns[0]] * 2 + [columns[1]] * 2
    assert text.count("{") == text.count("}")


def test_a_caption_is_one_paragraph_whatever_lines_it_was_written_in(tmp_path):
    texts = written(made.job(tmp_path, made.table(caption="Accuracy\n\nin  percent\n"), seeds=(0,)))
    assert r"\caption{Accuracy in percent. Dataset: cifar100.}" in texts["tex"]
    assert texts["md"].startswith("**Accuracy in percent.** Dataset")


def test_html_is_escaped_and_needs_nothing_else(tmp_path):
    rows = [{"section": "S", "label": "<b>", "method": "CE", "printed": False}]
    text = written(made.job(tmp_path, made.table(rows=rows)))["html"]
    assert "&lt;b&gt;" in text
    assert not re.search(r"(src|href)=|@import|url\(", text)


@pytest.mark.parametrize(
    "planning",
    ["longtail.publish.tables.check", "longtail.orchestration.planner", "longtail.orchestration.stamp"],
)
def test_planning_imports_neither_torch_nor_matplotlib_nor_pandas(planning):
    loaded = "[name for name in sys.argv[1:] if name in sys.modules]"
    code = f"import {planning}, json, sys; print(json.dumps({loaded}))"
    source = str(Path(tables.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code, "torch", "matplotlib", "pandas"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": source},
    )
    assert json.loads(done.stdout) == []


def test_every_byte_of_a_table_is_as_it_was(tmp_path):
    """In the folder snapshot stands what was published before tables were made by pandas."""
    table = made.table(against="Cross-entropy")
    found = written(made.job(tmp_path, table, subsets=(0, 1), seeds=(0, 1), ratios=(100.0, 10.0)))
    for suffix, text in found.items():
        assert text == (SNAPSHOT / f"table2.{suffix}").read_text("utf-8"), suffix


def test_every_byte_of_a_table_with_columns_of_its_own_is_as_it_was(tmp_path):
    """In the folder snapshot stands what was published before there was a column of validation images."""
    two = {"CE": "CE + cRT", "GraLoss": "GLAG"}
    rows = [
        {"section": "Stage one", "label": method, "method": method, "linear": linear}
        for method, linear in two.items()
    ]
    columns = ["accuracy", "many", "medium", "few", "linear"]
    table = made.table(printed="table1", rows=rows, columns=columns, against="CE", notes=["One note."])
    found = written(made.job(tmp_path, table, seeds=(0, 1)))
    for suffix, text in found.items():
        assert text == (SNAPSHOT / f"columns.{suffix}").read_text("utf-8"), suffix


LARGE = [
    {"section": "ResNet-50", "label": "MiSLAS"},
    {"section": "ResNet-50", "label": "SSD"},
    {"section": "ResNet-50", "label": "GLAG", "method": "GLAG", "printed": False},
]


@pytest.mark.parametrize("built", [False, True])
def test_a_dataset_that_is_as_it_is_has_its_printed_numbers_too(tmp_path, built):
    """Whether or not a row of ours stands beside them, whose imbalance has no ratio."""
    rows = LARGE if built else LARGE[:2]
    only = {"GLAG": made.METHODS["GLAG"]} if built else {}
    table = made.table(printed="table3", rows=rows, columns=["accuracy", "many", "medium", "few"])
    job = made.job(tmp_path, table, dataset="imagenet_lt", only=only)
    cells = [dataclasses.replace(cell, ratio=None, imbalance="natural") for cell in job.cells]
    texts = written(dataclasses.replace(job, cells=cells))
    lines = {line["method"]: line for line in csv.DictReader(texts["csv"].splitlines())}
    assert lines["MiSLAS"]["printed"] == "52.7"
    ssd = lines["SSD"]
    assert [ssd[f"printed_{name}"] for name in ("many", "medium", "few")] == ["66.8", "53.1", "35.4"]
    assert "natural" in texts["md"]
    assert "MiSLAS (Zhong et al. 2021), arXiv:2104.00466" in texts["md"]
    assert "arXiv:2203.00452" not in texts["md"]
    if built:
        for ours in ("pareto6", "balanced108"):  # nobody prints these
            cells = [dataclasses.replace(cell, imbalance=ours) for cell in cells]
            assert "52.7" not in written(dataclasses.replace(job, cells=cells))["csv"]
        assert lines["GLAG"]["mean"]
        assert lines["GLAG"]["printed"] == ""
