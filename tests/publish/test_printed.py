"""The printed numbers are those of the paper."""

import re
from collections import defaultdict

import pytest

from longtail.errors import UserError
from longtail.publish.printed import numbers

TABLES = ["table1", "table2", "table5", "table6", "table7"]
# GLAG's own tables 3 and 4 are lost, and of Places-LT it has none: what others print, by dataset and classes
# with many, medium and few training images (Places-LT's and ImageNet-LT's lists).
LARGE = {
    "places_lt": "places_lt",
    "table3": "imagenet_lt",
    "table4": "inaturalist2018",
    "imagenet_lt_samplers": "imagenet_lt",
}
NETWORKS = {"ResNet-10", "ResNet-50", "ResNeXt-50", "ResNet-152"}
SECTIONS = NETWORKS | {"Joint", "NCM", "cRT", "tau-normalised", "LWS"}  # classifiers of Decoupling
IMAGENET_LT = {"many": 0.385, "medium": 0.479, "few": 0.136}
NOT_GLAGS = {"DiVE"}  # rows that others print, of the same data


def test_the_tables_with_numbers_are_here():
    assert numbers.names() == sorted([*TABLES, *LARGE])


@pytest.mark.parametrize("name", TABLES)
def test_every_number_has_a_source_and_stands_once(name):
    lines = numbers.read(name)
    assert len({(line.section, line.label, line.ratio, line.quantity) for line in lines}) == len(lines)
    for line in lines:
        assert re.fullmatch(r"-|\d\d\.\d\d?", line.text)
        assert line.quantity in {"accuracy", "many", "medium", "few", "linear"}
        assert line.dataset == "cifar100"
        table = 1 if (name, line.label) == ("table5", "CE") else name[-1]  # printed there, beside table 5's
        assert f"table {table}, arXiv:2203.00452" in line.source or line.label in NOT_GLAGS


@pytest.mark.parametrize("name", LARGE)
def test_a_number_of_a_large_dataset_has_a_source_of_its_own_and_is_none_of_glags(name):
    lines = numbers.read(name)
    assert len({(line.section, line.label, line.quantity) for line in lines}) == len(lines)
    for line in lines:
        assert line.dataset == LARGE[name]
        assert line.ratio is None
        assert line.section in SECTIONS
        assert re.fullmatch(r"\d\d?\.\d", line.text)
        assert line.quantity in {"accuracy", "many", "medium", "few"}
        assert re.search(r"\(.+ 20\d\d\)|OpenLT|classifier-balancing", line.source)
        assert "GLAG" not in line.source + line.label
        assert "2203.00452" not in line.source


@pytest.mark.parametrize("name", ["table3", "imagenet_lt_samplers"])
def test_groups_of_imagenet_lt_give_the_printed_average(name):
    rows: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for line in numbers.read(name):
        assert line.value is not None
        rows[line.section, line.label][line.quantity] = line.value
    grouped = {place: row for place, row in rows.items() if len(row) > 1}
    assert len(grouped) == 8
    for place, row in grouped.items():
        average = sum(share * row[group] for group, share in IMAGENET_LT.items())
        assert average == pytest.approx(row["accuracy"], abs=0.06), place


def test_decouplings_numbers_of_validation_images_say_so_and_stand_beside_one_of_test_images():
    lines = [line for line in numbers.read("table3") if line.section == "ResNeXt-50"]
    of_validation = {line.label for line in lines if "of validation images" in line.source}
    classifiers = {"NCM", "Decouple (cRT)", "tau-normalised", "Decouple (LWS)"}
    assert of_validation == {"Cross-entropy", *classifiers}
    tested = "Decouple (cRT), released model on test images"
    assert [line.text for line in lines if line.label == tested] == ["48.1", "60.2", "44.5", "26.6"]


@pytest.mark.parametrize(
    ("name", "section", "label", "text"),
    [
        ("table3", "ResNet-10", "BALMS", "41.6"),
        ("table3", "ResNet-50", "MiSLAS", "52.7"),
        ("table3", "ResNet-50", "SSD", "56.0"),
        ("table3", "ResNeXt-50", "Decouple (LWS)", "49.9"),
        ("table4", "ResNet-50", "RSG", "70.3"),
        ("table4", "ResNet-50", "MiSLAS", "71.6"),
        ("places_lt", "ResNet-152", "Cross-entropy", "30.2"),
        ("places_lt", "ResNet-152", "MiSLAS", "40.4"),
    ],
)
def test_numbers_that_everybody_quotes(name, section, label, text):
    [line] = [
        line
        for line in numbers.read(name)
        if (line.section, line.label, line.quantity) == (section, label, "accuracy")
    ]
    assert line.text == text


@pytest.mark.parametrize("name", ["table1", "table7"])
def test_groups_of_35_35_and_30_classes_give_the_printed_average(name):
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for line in numbers.read(name):
        assert line.value is not None
        rows[line.label][line.quantity] = line.value
    for label, row in rows.items():
        average = 0.35 * row["many"] + 0.35 * row["medium"] + 0.30 * row["few"]
        assert average == pytest.approx(row["accuracy"], abs=0.1), label


def test_table_2_has_15_methods_at_4_ratios_and_glag_is_best_at_each():
    lines = [line for line in numbers.read("table2") if line.label not in NOT_GLAGS]
    assert len(lines) == 60
    assert sum(line.value is None for line in lines) == 14
    for ratio, best in {200: 46.9, 100: 51.7, 50: 55.3, 10: 64.5}.items():
        at = {line.label: line.value for line in lines if line.ratio == ratio and line.value is not None}
        assert max(at, key=lambda label: at[label]) == "GLAG"
        assert at["GLAG"] == best


def test_table_2_and_table_7_print_one_glag():
    assert _value("table2", "GLAG", 100) == _value("table7", "Gra+AD+KD", 100) == 51.7


def test_a_number_keeps_the_digits_that_the_paper_gives_it():
    [line] = [
        line for line in numbers.read("table2") if (line.label, line.ratio) == ("Logit adjustment", 100)
    ]
    assert line.text == "43.89"


def test_an_unknown_table_is_one_line_that_lists_those_that_exist():
    with pytest.raises(
        UserError, match=r"no 'table8'; there are imagenet_lt_samplers, places_lt, table1, table2"
    ):
        numbers.read("table8")


def _value(name: str, label: str, ratio: float) -> float | None:
    [value] = [
        line.value
        for line in numbers.read(name)
        if (line.label, line.ratio, line.quantity) == (label, ratio, "accuracy")
    ]
    return value
