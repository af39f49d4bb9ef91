"""Short ways of writing settings say what they say in full, and a mistake in one is one line."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.errors import UserError
from longtail.settings.params import Params
from longtail.settings.reading import parse
from longtail.settings.row_shorthand import rows_in_full, several
from longtail.settings.shorthand import entries_in_full, lines_over, over

TEXT = """
dataset: digits
imbalance: {ratios: [10]}
presets:
  plain: {augmentation: {crop: 1, autoaugment: none, cutout: 0}}
  steps: {learning_rate: {peak: 0.1, warmup: 2, decay: {form: step, at: [3], factors: [0.1]}}}
  later: {name: later, sampler: class_balanced, schedule: {epochs: 3}, learning_rate: {peak: 0.1}}
  head: {epochs: 7, batch_size: 32}
training:
  schedule: {epochs: 9}
  augmentation: {crop: 2, flip: false}
stage_one:
  ce: {loss: {name: logit_adjusted, gamma: {form: constant, a: 0.5}}}
  ce_plain: {like: ce, use: [plain, steps]}
  focal: {like: ce_plain, loss: {name: focal}, learning_rate: {warmup: 1}}
  phases: {like: focal, then: [{use: later, name: again}]}
stage_two:
  joint: {}
  crt: {use: head, sampler: class_balanced}
  lws: {use: head, epochs: 8}
  afg: {k: 3, kd: {temperature: 2.0}}
  afg_without_kd: {like: afg, kd: {on: none}}
methods:
  CE: {stage_one: ce, stage_two: joint}
tables:
  t:
    caption: c
    columns: [accuracy, linear]
    rows:
      - {section: s, label: Cross-entropy, stage_one: ce, stage_two: joint, linear: {stage_two: crt}}
      - {section: s, label: Focal, stage_one: focal, stage_two: joint}
      - {section: s, label: "Focal, again", stage_one: focal, stage_two: joint}
      - {section: s, label: Mine, method: GLAG, stage_one: focal, stage_two: afg}
      - {section: [Joint, cRT], stage_two: [joint, crt], label: [A, B], stage_one: [ce_plain, phases]}
figures:
  reliability: {table: t, methods: [CE, Focal, GLAG, ce_plain + crt]}
"""

NAMES = st.sampled_from(["loss", "a", "b", "c"])
LEAVES = st.integers(0, 3) | st.sampled_from(["x", "y"]) | st.lists(st.integers(0, 2), max_size=2) | st.none()
BLOCKS = st.recursive(
    LEAVES,
    lambda inner: st.dictionaries(NAMES | st.just("name"), inner, max_size=3),
    max_leaves=8,
)
LINES = st.dictionaries(NAMES, BLOCKS, max_size=4)


@pytest.fixture
def settings() -> dict[str, Any]:
    return parse(TEXT)


def in_full(settings: dict[str, Any]) -> dict[str, Any]:
    return rows_in_full(entries_in_full(settings))


@given(LINES)
def test_nothing_over_something_and_something_over_nothing_or_itself_is_that(lines):
    assert over(lines, {}) == over({}, lines) == over(lines, lines) == lines


@given(BLOCKS, BLOCKS)
def test_what_is_over_something_keeps_all_that_it_says(base, own):
    def said(block: Any, within: Any) -> bool:
        if not isinstance(block, dict):
            return block == within
        return isinstance(within, dict) and all(said(value, within.get(key)) for key, value in block.items())

    before = deepcopy((base, own))
    assert said(own, over(base, own))
    assert (base, own) == before


@given(LINES, LINES)
def test_keys_of_one_alone_keep_its_values(base, own):
    found = lines_over(base, own)
    assert set(found) == set(base) | set(own)
    assert {key: found[key] for key in set(base) ^ set(own)} == {
        key: (base if key in base else own)[key] for key in set(base) ^ set(own)
    }


@given(LINES, LINES)
def test_a_block_of_another_name_leaves_nothing_of_the_old_one(base, own):
    assert over({**base, "name": "one"}, {**own, "name": "two"}) == {**own, "name": "two"}


@given(LINES, LINES, LINES)
def test_to_use_presets_and_to_be_like_their_lines_is_the_same(first, second, own):
    """`use: [p, q]` is p, and over it q, and over it the entry's own lines."""
    entries = {
        "used": {**own, "use": ["p", "q"]},
        "p": first,
        "q": {**second, "like": "p"},
        "liked": {**own, "like": "q"},
    }
    found = entries_in_full({"presets": {"p": first, "q": second}, "stage_one": entries})["stage_one"]
    assert found["used"] == found["liked"]


def test_what_is_in_full_stays_as_it_is_and_the_file_too(settings):
    before = deepcopy(settings)
    full = in_full(settings)
    assert settings == before
    assert in_full(full) == full
    assert Params.read(full) == Params.read(settings)


def test_recipes_and_classifiers_are_what_they_are_written_out(settings):
    params = Params.read(settings)
    written = deepcopy(settings)
    del written["presets"]
    plain = {"crop": 1, "autoaugment": "none", "cutout": 0}
    steps = {"peak": 0.1, "warmup": 2, "decay": {"form": "step", "at": [3], "factors": [0.1]}}
    focal = {"loss": {"name": "focal"}, "augmentation": plain, "learning_rate": steps | {"warmup": 1}}
    later = {"name": "again", "sampler": "class_balanced"}
    later |= {"schedule": {"epochs": 3}, "learning_rate": {"peak": 0.1}}
    ce = settings["stage_one"]["ce"]
    written["stage_one"] |= {
        "ce_plain": ce | {"augmentation": plain, "learning_rate": steps},
        "focal": focal,
        "phases": focal | {"then": [later]},
    }
    written["stage_two"] |= {
        "crt": {"epochs": 7, "batch_size": 32, "sampler": "class_balanced"},
        "lws": {"epochs": 8, "batch_size": 32},
        "afg_without_kd": {"name": "afg", "k": 3, "kd": {"temperature": 2.0, "on": "none"}},
    }
    assert params == Params.read(written)
    assert params.stage_one["focal"].augmentation.flip  # of training nothing stays in a block of one's own
    assert not params.stage_one["ce"].augmentation.flip
    assert params.stage_two["afg_without_kd"].method.options.kd.on == "none"


def test_a_file_that_is_like_another_may_change_its_presets(tmp_path):
    (tmp_path / "base.yaml").write_text(TEXT)
    (tmp_path / "own.yaml").write_text(
        "like: base.yaml\nwithout: [figures, tables]\npresets: {plain: {augmentation: {crop: 3}}}\n"
        "tables: {u: {caption: c, rows: [{section: s, label: l, method: CE}]}}\n"
    )
    own = Params.load(tmp_path / "own.yaml")
    assert [own.stage_one[name].augmentation.crop for name in ("ce", "ce_plain", "focal")] == [2, 3, 3]
    assert list(own.tables) == ["u"]
    assert not own.figures


def test_a_method_of_a_row_has_the_name_of_the_pair_or_of_the_row(settings):
    params = Params.read(settings)
    rows = [(row.section, row.label, row.method, row.linear) for row in params.tables["t"].rows]
    assert rows == [
        ("s", "Cross-entropy", "CE", "ce + crt"),  # as methods has it; a linear has no label of its own
        ("s", "Focal", "Focal", None),
        ("s", "Focal, again", "Focal", None),  # one method, though two rows
        ("s", "Mine", "GLAG", None),  # the row's own word
        ("Joint", "A", "ce_plain + joint", None),  # a label of two methods is the name of none
        ("Joint", "B", "phases + joint", None),
        ("cRT", "A", "ce_plain + crt", None),
        ("cRT", "B", "phases + crt", None),
    ]
    named = {name: (row.stage_one, row.stage_two) for name, row in params.methods.items()}
    assert list(named)[:3] == ["CE", "GLAG", "ce + crt"]  # names that are given come first
    assert named["GLAG"] == ("focal", "afg")
    assert named["phases + crt"] == ("phases", "crt")


def test_a_label_that_a_method_has_is_no_name_of_another(settings):
    settings["figures"] = {}
    settings["tables"]["t"]["rows"] = [{"section": "s", "label": "CE", "stage_one": "ce", "stage_two": "crt"}]
    assert Params.read(settings).tables["t"].rows[0].method == "ce + crt"


def test_names_do_not_depend_on_the_order_of_rows(settings):
    backwards = deepcopy(settings)
    backwards["tables"]["t"]["rows"].reverse()
    pairs = [
        {(row.stage_one, row.stage_two): name for name, row in Params.read(given).methods.items()}
        for given in (settings, {**backwards, "figures": {}})
    ]
    different = {pair for pair in pairs[0] if pairs[0][pair] != pairs[1][pair]}
    assert different == {("focal", "joint")}  # whose two rows have a label each: the first one's


def test_linear_is_on_the_rows_recipe_or_on_its_own(settings):
    whole = {"section": "s", "linear": {"stage_two": "crt"}}
    settings["figures"] = {}
    settings["tables"]["t"]["rows"] = [
        whole | {"label": "a", "method": "CE"},
        whole | {"label": "b", "stage_one": "focal"},  # no method: the column linear alone
        whole | {"label": "c", "method": "CE", "linear": {"stage_one": "focal", "stage_two": "crt"}},
    ]
    rows = Params.read(settings).tables["t"].rows
    assert [(row.method, row.linear) for row in rows] == [
        ("CE", "ce + crt"),
        (None, "focal + crt"),
        ("CE", "focal + crt"),
    ]


def test_lists_of_a_row_are_rows_in_the_order_of_sections_and_labels():
    row = {"section": ["S", "T"], "stage_two": ["x", None], "label": ["a", "b"], "stage_one": ["p", None]}
    assert several("here", row | {"printed": False}) == [
        {"section": "S", "label": "a", "stage_one": "p", "stage_two": "x", "printed": False},
        {"section": "S", "label": "b", "stage_two": "x", "printed": False},
        {"section": "T", "label": "a", "stage_one": "p", "printed": False},
        {"section": "T", "label": "b", "printed": False},
    ]
    assert several("here", {"section": "S", "label": ["a", "b"]}) == [
        {"section": "S", "label": "a"},
        {"section": "S", "label": "b"},
    ]
    assert several("here", {"section": "S", "label": "a"}) == [{"section": "S", "label": "a"}]


ROW = {"section": "s", "label": "l"}


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("presets", ["plain"], "presets: ['plain'] should be named lines, e.g. {light: {optimiser:"),
        ("presets/plain", "crop", "presets.plain: 'crop' should be lines of an entry, e.g. {optimiser:"),
        (
            "presets/plain/use",
            "head",
            "presets.plain.use: is not for presets; write the lines of 'head' here",
        ),
        ("presets/plain/like", "ce", "presets.plain.like: is not for presets; write the lines of 'ce' here"),
        ("stage_one/ce/use", "plane", "stage_one.ce.use: 'plane' is not an entry of presets: plain, steps,"),
        ("stage_one/ce/use", ["plain", 3], "stage_one.ce.use: 3 is not an entry of presets: plain, steps,"),
        ("stage_one/ce/use", {"plain": 1}, "stage_one.ce.use: {'plain': 1} is not an entry of presets"),
        ("stage_one/ce/like", "ec", "stage_one.ce.like: 'ec' is not an entry of stage_one: ce, ce_plain,"),
        ("stage_one/ce/like", ["focal"], "stage_one.ce.like: ['focal'] is not an entry of stage_one: ce,"),
        ("stage_one/ce/like", None, "stage_one.ce.like: None is not an entry of stage_one: ce,"),
        ("stage_one/ce/like", "ce", "stage_one.ce.like: goes round in a circle: ce is like ce"),
        (
            "stage_one/ce/like",
            "focal",
            "goes round in a circle: ce is like focal is like ce_plain is like ce",
        ),
        (
            "stage_one/phases/then",
            [{"use": "late"}],
            "stage_one.phases.then[0].use: 'late' is not an entry of presets: plain, steps, later, head",
        ),
        ("stage_one/phases/then", [{"like": "later"}], "stage_one.phases.then[0].like: unknown key"),
        ("training/use", "plain", "training.use: unknown key"),
        ("without", ["tables"], "without: unknown key"),
        ("stage_two/afg/like", "agf", "stage_two.afg.like: 'agf' is not an entry of stage_two: joint, crt,"),
        (
            "stage_two/lws",
            {"like": "crt"},
            "stage_two.lws.like: 'crt' is of the method crt, not lws; lines of both are for presets",
        ),
        (
            "stage_two/mine",
            {"like": "afg_without_kd", "name": "crt"},
            "stage_two.mine.like: 'afg_without_kd' is of the method afg, not crt; lines of both are for",
        ),
        (
            "tables/t/rows/0/stage_one",
            "ec",
            "tables.t.rows[0].stage_one: 'ec' is not an entry of stage_one: ce,",
        ),
        (
            "tables/t/rows/0/stage_two",
            ["crt"],
            "tables.t.rows[0].stage_two: is a list, and label is none; they go",
        ),
        (
            "tables/t/rows/0/stage_two",
            3,
            "tables.t.rows[0].stage_two: 3 is not an entry of stage_two: joint,",
        ),
        (
            "tables/t/rows",
            [ROW | {"stage_one": "ce"}],
            "tables.t.rows[0].stage_two: is missing; beside stage_one",
        ),
        (
            "tables/t/rows",
            [ROW | {"stage_two": "crt"}],
            "tables.t.rows[0].stage_one: is missing; beside stage_two",
        ),
        (
            "tables/t/rows",
            [ROW | {"method": "CE", "stage_one": "ce", "stage_two": "crt"}],
            "tables.t.rows[0].method: 'CE' is ce + joint already, not ce + crt; give this one another name",
        ),
        (
            "tables/t/rows",
            [ROW | {"linear": {"stage_two": "crt"}}],
            "tables.t.rows[0].linear.stage_one: is missing;",
        ),
        (
            "tables/t/rows",
            [ROW | {"method": "CE", "linear": {"stage_2": "crt"}}],
            "tables.t.rows[0].linear.stage_2: unknown key; there are stage_one, stage_two",
        ),
        (
            "tables/t/rows",
            [ROW | {"method": "CE", "linear": {}}],
            "tables.t.rows[0].linear.stage_two: is missing; beside stage_one a row names an entry of",
        ),
        (
            "tables/t/rows",
            [ROW | {"label": ["a", "b"], "method": ["CE"]}],
            "tables.t.rows[0].method: has 1 items, label has 2; they go together, one or more",
        ),
        (
            "tables/t/rows",
            [ROW | {"label": []}],
            "tables.t.rows[0].label: has 0 items, label has 0; they go together",
        ),
        ("tables/t/rows", [ROW | {"stage_1": "ce"}], "tables.t.rows[0].stage_1: unknown key"),
        ("methods", 3, "methods: 3: should be a valid dictionary"),
        ("stage_one", None, "stage_one: None should be entries by their names, which rows name"),
        ("tables", [], "tables: []: should be a valid dictionary"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(settings, path, value, line):
    *parents, last = path.split("/")
    block: Any = settings
    for parent in parents:
        block = block[int(parent)] if isinstance(block, list) else block[parent]
    block[last] = value
    with pytest.raises(UserError) as caught:
        Params.read(settings)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("tables", r"own\.yaml: without: 'tables' should be a list of keys, e\.g\. \[tables, figures\]"),
        (
            "[tables, tabels]",
            r"own\.yaml: without: 'tabels' is no key of the other file: dataset, imbalance,",
        ),
    ],
)
def test_a_file_without_what_is_not_there_is_one_line(tmp_path, keys, line):
    (tmp_path / "base.yaml").write_text(TEXT)
    (tmp_path / "own.yaml").write_text(f"like: base.yaml\nwithout: {keys}\n")
    with pytest.raises(UserError, match=line):
        Params.load(tmp_path / "own.yaml")
