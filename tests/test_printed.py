"""The printed numbers are those of the paper."""

import re
from collections import defaultdict

import pytest

from longtail import printed
from longtail.errors import UserError

TABLES = ["table1", "table2", "table5", "table6", "table7"]


def test_the_tables_with_numbers_are_here():
    assert printed.names() == TABLES


@pytest.mark.parametrize("name", TABLES)
def test_every_number_has_a_source_and_stands_once(name):
    lines = printed.read(name)
    assert len({(line.section, line.label, line.ratio, line.quantity) for line in lines}) == len(lines)
    for line in lines:
        assert re.fullmatch(r"-|\d\d\.\d\d?", line.text)
        assert line.quantity in {"accuracy", "many", "medium", "few", "linear"}
        assert line.dataset == "cifar100"
        assert f"table {name[-1]}, arXiv:2203.00452" in line.source


@pytest.mark.parametrize("name", ["table1", "table7"])
def test_groups_of_35_35_and_30_classes_give_the_printed_average(name):
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for line in printed.read(name):
        assert line.value is not None
        rows[line.label][line.quantity] = line.value
    for label, row in rows.items():
        average = 0.35 * row["many"] + 0.35 * row["medium"] + 0.30 * row["few"]
        assert average == pytest.approx(row["accuracy"], abs=0.1), label


def test_table_2_has_15_methods_at_4_ratios_and_glag_is_best_at_each():
    lines = printed.read("table2")
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
        line for line in printed.read("table2") if (line.label, line.ratio) == ("Logit adjustment", 100)
    ]
    assert line.text == "43.89"


def test_an_unknown_table_is_one_line_that_lists_those_that_exist():
    with pytest.raises(UserError, match=r"no 'table3'; there are table1, table2"):
        printed.read("table3")


def _value(name: str, label: str, ratio: float) -> float | None:
    [value] = [
        line.value
        for line in printed.read(name)
        if (line.label, line.ratio, line.quantity) == (label, ratio, "accuracy")
    ]
    return value
