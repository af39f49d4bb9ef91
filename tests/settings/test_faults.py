"""What people and machines put into settings by mistake: one line says where, what and what is right."""

import json
import os

import pytest

from longtail.errors import LONGEST, UserError
from longtail.orchestration.planner import plan
from longtail.settings.params import Params
from tests.workflow.conftest import TINY

MODELS = "models:\n  best: {method: GLAG}\n"


def refused(file) -> str:
    with pytest.raises(UserError) as caught:
        plan(Params.load(file), file)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) <= LONGEST
    return line.removeprefix(f"{file}: ")


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "own.yaml"


def test_models_and_sweeps_in_one_file(file):
    file.write_text(TINY.replace("models: {}\n", MODELS))
    planned = plan(Params.load(file), file)
    assert set(planned.models) == {"best"}
    assert set(planned.tables) == {"table2", "sweeps/k"}


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("dataset: digits", "dataset: digits\ndataset: digits", 'line 2: "dataset" given twice'),
        (
            "caption: A scaled-down table",
            "caption: 2020-02-30",
            "not valid YAML: day is out of range for month",
        ),
        (
            "caption: A scaled-down table",
            "caption: 2024-02-01",
            'tables.table2.caption: is a date; in quotes it is a text: "2024-02-01"',
        ),
        ("seeds: [0]", "seeds: [!!int abc]", "not valid YAML: invalid literal for int() with base 10: 'abc'"),
        ("seeds: [0]", f"seeds: [{'9' * 5000}]", "not valid YAML: Exceeds the limit"),
        ("seeds: [0]", f"seeds: [0x{'f' * 5000}]", "seeds[0]: a number of 20,000 bits; 63 are the most"),
        ("seeds: [0]", "seeds: [.inf]", "seeds[0]: inf is no number that a setting can have"),
        ("features: {views: 2}", "? [a, b]\n: c", "the key (tuple) is no text"),
        ("features: {views: 2}", "? {a: b}\n: c", "not valid YAML"),
        ("  joint: {}", "  null: {}", "stage_two: the key null is no text"),
        ("  joint: {}", "  2024: {}", 'stage_two: the key 2024 is no text; in quotes it is a name: "2024"'),
        (
            "  joint: {}",
            "  2024-05-06: {}",
            'stage_two: the key 2024-05-06 is no text; in quotes it is a name: "2024-05-06"',
        ),
        ("  joint: {}", "  true: {}", 'stage_two: the key True is no text; in quotes it is a name: "True"'),
        ("GLAG: {st", f"? {'x' * 100_000}\n  : {{st", "x ... xxxxxxxxxxxx': a text of 100,000 characters"),
        ("GLAG: {st", f"{'x' * 900}: {{st", "String should have at most 200 characters"),
        ("  afg: {", f"  {'x' * 300}: {{name: afg, ", "has 80 characters at most"),
        ("seeds: [0]", f"seeds: {'[' * 5000}", "not valid YAML: brackets in brackets, too many of them"),
        (
            "seeds: [0]",
            f"seeds: {'[' * 100}{']' * 100}",
            "seeds[0][0]: blocks in blocks, more than 30 of them",
        ),
        ("seeds: [0]", "seeds: &a [*a]", "seeds[0][0]: blocks in blocks, more than 30 of them"),
        ("seeds: [0]", "seeds: [true]", "seeds[0]: True: should be a valid integer"),
        ("seeds: [0]", "seeds: ['7']", "seeds[0]: '7': should be a valid integer"),
        (
            "schedule: {epochs: 2}",
            "schedule: {epochs: '4'}",
            "training.schedule.epochs: '4': should be a valid integer",
        ),
        ("peak: 0.1", "peak: '0.1'", "training.learning_rate.peak: '0.1': should be a valid number"),
        ("peak: 0.1", "peak: true", "training.learning_rate.peak: True: should be a valid number"),
        ("flip: false", "flip: 0", "training.augmentation.flip: 0: should be a valid boolean"),
        ("flip: false", "flip: 'no'", "training.augmentation.flip: 'no': should be a valid boolean"),
        ("caption: A scaled-down table", "caption: 5", "tables.table2.caption: 5: should be a valid string"),
        ("width: 8", "width: 1.6e13", "training.network.width: 16000000000000.0: should be a valid integer"),
        (
            "width: 8",
            "width: 16000000000000",
            "training.network.width: 16000000000000 is too large, less than or equal to 4096",
        ),
        ("batch_size: 64", "batch_size: 64000000000", "training.batch_size: 64000000000 is too large"),
        ("root: null", f"root: {'a/' * 2500}", "data.root: 'a/a/a/"),
        ("root: null", "root: ~nobody-here/data", "there is no such user on this machine"),
        (
            "caption: A scaled-down table",
            'caption: "a\\0b"',
            "tables.table2.caption: has the character '\\x00'",
        ),
        (
            "caption: A scaled-down table",
            'caption: "\\ud83d"',
            "tables.table2.caption: has the character '\\ud83d'",
        ),
        (
            "caption: A scaled-down table",
            f"caption: {'a' * 20_000}",
            "a text of 20,000 characters; 10,000 are the most",
        ),
        (
            "stage_two.k: [2]",
            f"stage_two.k: {list(range(1, 2000))}",
            "sweeps.k.grid: has 1,999 points; 1,000 are the most",
        ),
        (
            "label: cRT",
            'label: "cRT, folded\\n"',
            "label: 'cRT, folded\\n' has several lines; it should be one",
        ),
        ("seeds: [0]", f"seeds: {list(range(5000))}", "List should have at most 1000 items"),
        ("presets: {}", "presets: !!set {a, b}", "presets: is a set, which settings do not have"),
    ],
)
def test_a_value_that_no_settings_have(file, old, new, line):
    assert TINY.count(old) == 1
    file.write_text(TINY.replace(old, new), "utf-8", errors="surrogatepass")
    assert line in refused(file)


def test_a_whole_number_may_stand_for_a_fraction(file):
    file.write_text(TINY.replace("peak: 0.1", "peak: 1"))
    assert Params.load(file).training.learning_rate.peak == 1.0


def test_aliases_of_aliases(file):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    file.write_text("\n".join(lines))
    assert refused(file) == "more than 200,000 values; aliases of aliases?"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            TINY.replace("A scaled", "Ä scaled").encode("latin-1"),
            "line 34 is not UTF-8 (byte 0xc4); save the file as UTF-8",
        ),
        (TINY.encode("utf-16"), "line 1 is not UTF-8 (byte 0xff); save the file as UTF-8"),
        (b"#" * 5_000_000, "is larger than 4,194,304 bytes, and no settings file"),
        (b"", "needs keys and values"),
        (b"\x00\x01\x02", "not valid YAML: "),
    ],
)
def test_a_file_that_is_no_settings(file, content, line):
    file.write_bytes(content)
    assert refused(file).startswith(line)


def test_a_file_that_begins_with_a_byte_order_mark(file):
    file.write_bytes(b"\xef\xbb\xbf" + TINY.encode())
    assert Params.load(file).dataset == "digits"


@pytest.mark.parametrize(
    ("like", "line"),
    [
        ('"a\\0b"', "like: has the character '\\x00', which no text of settings has"),
        ("/dev/null", "/dev/null: is no file; a settings file is one of text"),
        ("/dev/zero", "/dev/zero: is no file; a settings file is one of text"),
        (".", "is no file; a settings file is one of text"),
        ("empty.yaml", "has no settings, which are keys and values"),
        ("pipe", "is no file; a settings file is one of text"),
        ("x" * 3000, "cannot be read (File name too long)"),
        ("''", "like: '' is not the path of a settings file"),
    ],
)
def test_a_file_like_what_is_no_settings(file, like, line):
    (file.parent / "empty.yaml").touch()
    os.mkfifo(file.parent / "pipe")
    file.write_text(f"like: {like}\n{TINY}")
    assert line in refused(file)


def test_an_error_in_many_places_says_ten_of_them(file):
    entries = {f"m{n}": {"stage_one": 5, "stage_two": 6} for n in range(50)}
    file.write_text(TINY.replace("methods:", f"methods:\n  x: {json.dumps(entries)}\n"))
    data = {
        "dataset": "digits",
        "imbalance": {"ratios": [10]},
        "stage_one": {},
        "stage_two": {},
        "methods": entries,
    }
    file.write_text(json.dumps(data))
    assert refused(file).endswith("; and 90 more")


def test_names_of_runs_are_those_of_folders(file):
    values = [{"x" * 60: 1}]
    grid = json.dumps({"stage_two.kd": values})
    file.write_text(TINY.replace("{stage_two.k: [2]}", grid))
    assert "unknown key" in refused(file)
    long = (
        TINY.replace("graloss", "g" * 80)
        .replace("afg:", f"{'a' * 80}: {{name: afg}}\n  afg:")
        .replace("stage_two: afg", f"stage_two: {'a' * 80}")
    )
    file.write_text(long.replace("stage_two.k: [2]", "stage_two.weight_decay: [0.00011111111111]"))
    assert ": give its entries, or the values of its sweep, shorter names" in refused(file)


def test_entries_like_one_another_in_a_long_row(file):
    row = "".join(f"  r{n}: {{like: r{n - 1}}}\n" for n in range(1, 1000))
    file.write_text(TINY.replace("stage_one:\n", f"stage_one:\n  r0: {{loss: focal}}\n{row}"))
    assert "more than 50 that are like one another" in refused(file)


def test_a_row_that_stands_for_a_million(file):
    many = json.dumps([f"l{n}" for n in range(2000)])
    classifiers = json.dumps(["joint"] * 2000)
    row = f"      - {{section: {many}, label: {many}, stage_one: ce, stage_two: {classifiers}}}\n"
    file.write_text(TINY.replace("figures:\n", f"{row}figures:\n"))
    assert "stands for 4,000,000 rows; 1,000 are the most of a table" in refused(file)
