"""Whatever stands in settings, lists and tables: it is planned, or one line says why not.

LONGTAIL_FUZZ=10000 tries so many examples of each kind, instead of the few of every day.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longtail.data import catalogue
from longtail.errors import LONGEST, UserError, foreseen
from longtail.orchestration.planner import plan
from longtail.runs.code_identity import ADOPTED, COLUMNS
from longtail.settings.data import PublishedData
from longtail.settings.params import Params
from longtail.settings.reading import parse, read_file
from tests.conftest import ROOT
from tests.workflow.conftest import TINY

EXAMPLES = int(os.environ.get("LONGTAIL_FUZZ", "40"))
FUZZ = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)

OWN = """\
dataset: own
data: {kind: KIND, root: pictures, KEY: FILE}
imbalance: {profile: natural}
training: {schedule: {epochs: 1}, learning_rate: {peak: 0.1}}
stage_one: {ce: {loss: focal}}
stage_two: {joint: {}}
tables: {t: {caption: c, rows: [{section: s, label: l, stage_one: ce, stage_two: joint}]}}
"""
TINY = TINY.replace("models: {}", "models: {best: {method: GLAG}}")
EVERYTHING = f"""\
{TINY}  gamma: {{method: GraLoss, grid: {{stage_one.loss.gamma.b: [0.5, 2], stage_one.loss.gamma.a: [1]}}}}
"""
BASES = {
    "tiny": EVERYTHING,
    "demo": (ROOT / "workflow/settings/demo.yaml").read_text("utf-8"),
    "asynchronous": json.dumps(read_file(ROOT / "workflow/settings/demo-asynchronous.yaml")),
    "params": (ROOT / "params.yaml").read_text("utf-8"),
}

words = st.sampled_from(
    [
        "",
        "auto",
        "null",
        "all",
        "none",
        "4",
        "1e3",
        "true",
        "afg",
        "ce",
        "joint",
        "digits",
        "cifar100",
        "natural",
        "counts",
        "folder",
        "csv",
        "params.yaml",
        ".",
        "..",
        "/",
        "/dev/null",
        "~",
        "~nobody-here/x",
        "a b",
        "ä",
        "\u2028",
        "a\nb",
        "a\0b",
        "\x1b[31m",
        "\ud800",
        "🦄",
        "{}",
        "%s",
        "é" * 300,
        "x" * 5000,
        "y" * 100_000,
    ]
)
numbers = st.one_of(
    st.sampled_from([0, 1, -1, 2, 10**6, 10**9, 2**31, 2**63, 10**400, 0.5, -0.0, 1e-320, 1e308, 16e12]),
    st.integers(),
    st.floats(),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, words, st.text(max_size=20))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(words, st.text(max_size=8)), inner, max_size=4)
    ),
    max_leaves=8,
)
KEYS = """
like use without name form profile kind then loss network pretrained method linear rows grid ratio stage_one
stage_two table classes bank stage_one.loss stage_one.loss.gamma.b stage_two.k train schedule decay sampler
"""
keys = st.sampled_from(KEYS.split())
edits = st.tuples(st.integers(0, 10**6), st.integers(0, 9), keys, values)


@contextmanager
def project(folder: Path) -> Iterator[None]:
    """Work in a folder, whatever an example leaves there."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def plans_or_says_why(file: Path) -> bool:
    """The way of `longtail plan`, and of acquisition to lists: whether they go; else the line is checked."""
    try:
        with foreseen():
            params = Params.load(file)
            planned = plan(params, file, Path())
            if not isinstance(params.data, PublishedData):
                catalogue.members(params.dataset, params.data)
            if sum(1 for _ in planned.everything()) < 200:
                planned.write(file.parent / "plan")
    except UserError as error:
        line = str(error)
        assert line.isprintable(), ascii(line)
        assert 0 < len(line) <= LONGEST
        line.encode()
        return False
    return True


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every block or list with each of its keys."""
    found, waiting = [], [data]
    while waiting:
        block = waiting.pop()
        items = (
            block.items() if isinstance(block, dict) else enumerate(block) if isinstance(block, list) else ()
        )
        for key, item in items:
            found.append((block, key))
            waiting.append(item)
    return found


def edited(data: Any, where: int, how: int, key: str, value: Any) -> None:
    """One edit of settings, in place: a value is replaced, removed, added, doubled or moved."""
    known = places(data)
    if not known:
        return
    block, at = known[where % len(known)]
    other, place = known[(where * 7919 + 13) % len(known)]
    match how:
        case 0 | 1:
            block[at] = value
        case 2:
            del block[at]
        case 7 | 8 if isinstance(block[at], int | float):
            block[at] = type(block[at])(max(0, block[at] * 2 - 1))
        case 9 if isinstance(block[at], list):
            block[at].reverse()
        case 3 if isinstance(block[at], dict):
            block[at][key] = value
        case 4:
            block[at] = json.loads(json.dumps(other[place]))
        case 5 if isinstance(block, dict):
            block[str(value)[:100] if how % 2 else key] = block.pop(at)
        case 6 if isinstance(block[at], list):
            block[at].extend(json.loads(json.dumps(block[at])) * 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@FUZZ
@given(st.sampled_from(["tiny", "tiny", "demo", "asynchronous"]), st.lists(edits, min_size=1, max_size=3))
def test_edited_settings(folder, base, changes):
    data = parse(BASES[base])
    for change in changes:
        edited(data, *change)
    file = folder / "edited.yaml"
    file.write_text(json.dumps(data), "utf-8")
    with project(folder):
        plans_or_says_why(file)


@FUZZ
@given(st.lists(edits, min_size=1, max_size=2))
def test_settings_like_params_yaml(folder, changes):
    (folder / "base.yaml").write_text(BASES["tiny"])
    data: dict[str, Any] = {"seeds": [0], "stage_one": {"ce": {}}, "tables": {}, "without": ["sweeps"]}
    for change in changes:
        edited(data, *change)
    file = folder / "like.yaml"
    file.write_text(json.dumps({"like": "base.yaml", **data}), "utf-8")
    with project(folder):
        plans_or_says_why(file)


snippets = st.sampled_from(
    [
        "'",
        '"',
        "{",
        "}",
        "[",
        "]",
        ":",
        ": ",
        "- ",
        "#",
        "&a ",
        "*a",
        "<<: *a",
        "? ",
        "? [a, b]\n: c\n",
        "!!int abc",
        "!!python/object:os.system x",
        "!!binary YQ==",
        "!!set {a}",
        "!!float []",
        "!!omap [a: 1]",
        "!!timestamp x",
        "2020-02-30",
        "2024-01-01",
        "2024: 1\n",
        "null: 1\n",
        "true: 1\n",
        "9" * 5000,
        "0x" + "f" * 5000,
        ".inf",
        ".nan",
        "[" * 5000,
        "{a: " * 400,
        "a: " * 50,
        "%YAML 1.1\n---\n",
        "---\n",
        "...\n",
        "\t",
        "\r",
        "\0",
        "|\n",
        ">-\n",
        "\xff",
        "\ufeff",
        "&a [*a]",
        "&a {b: *a}",
        "1_000",
        "0o17",
        "1:30:00",
        "seeds: [0]\n",
        "!t x",
        "@",
        "`",
        "%",
    ]
)
cuts = st.tuples(st.integers(0, 10**6), st.integers(0, 30), st.one_of(snippets, st.text(max_size=5)))


@FUZZ
@given(
    st.sampled_from(["tiny", "demo"]),
    st.lists(cuts, min_size=1, max_size=3),
    st.sampled_from(["utf-8", "latin-1", "utf-16"]),
)
def test_edited_text(folder, base, changes, encoding):
    text = BASES[base]
    for where, size, new in changes:
        at = where % (len(text) + 1)
        text = text[:at] + new + text[at + size :]
    file = folder / "text.yaml"
    file.write_bytes(text.encode(encoding, "replace"))
    with project(folder):
        plans_or_says_why(file)


@FUZZ
@given(st.binary(max_size=200), st.integers(0, 10**6))
def test_bytes(folder, content, where):
    whole = BASES["tiny"].encode()
    at = where % len(whole)
    file = folder / "bytes.yaml"
    file.write_bytes(whole[:at] + content + whole[at:])
    with project(folder):
        plans_or_says_why(file)


lines = st.one_of(
    st.sampled_from(
        ["a.jpg 0", "b.jpg 1", "c d.jpg 1", "../x.jpg 0", "/x.jpg 1", "a.jpg", "0", "a.jpg 99999999999"]
    )
    | st.sampled_from(
        ["a.jpg -1", "a.jpg 1.5", "a.jpg ²", "\0 0", "./a.jpg 0", "a.jpg 123456789", "x" * 9000 + " 0"]
    ),
    st.text(max_size=20),
)
cells = st.one_of(
    st.sampled_from(["a.jpg", "b.jpg", "cat", "dog", "train", "test", "", "../x", "\0", '"', "x" * 200_000]),
    st.text(max_size=9),
)
rows = st.lists(st.lists(cells, min_size=1, max_size=4).map(",".join), max_size=5).map("\n".join)


@FUZZ
@given(st.lists(lines, max_size=6), st.sampled_from(["utf-8", "latin-1", "utf-16"]), st.booleans())
def test_published_lists(folder, content, encoding, good):
    (folder / "list.txt").write_bytes(
        ("a.jpg 0\nb.jpg 1\n" * good + "\n".join(content)).encode(encoding, "replace")
    )
    file = folder / "list.yaml"
    file.write_text(OWN.replace("KIND", "list").replace("KEY", "train").replace("FILE", "list.txt"))
    with project(folder):
        plans_or_says_why(file)


@FUZZ
@given(rows, rows, st.booleans(), st.sampled_from(["utf-8", "latin-1", "utf-16"]))
def test_tables_and_manifests(folder, table, manifest, good, encoding):
    head = "path,bytes,sha256,width,height,mode,trouble,format\n"
    known = f"a.jpg,1,{'a' * 64},9,9,RGB,,JPEG\nb.jpg,1,{'b' * 64},9,9,RGB,,JPEG\n"
    (folder / "table.csv").write_bytes(
        f"path,label\na.jpg,cat\nb.jpg,dog\n{table}".encode(encoding, "replace")
    )
    checked = folder / "data/checked/own/manifest.csv"
    checked.parent.mkdir(parents=True, exist_ok=True)
    checked.write_bytes((head + known + manifest * (not good)).encode("utf-8", "replace"))
    file = folder / "csv.yaml"
    file.write_text(OWN.replace("KIND", "csv").replace("KEY", "file").replace("FILE", "table.csv"))
    with project(folder):
        plans_or_says_why(file)
    checked.unlink()


@FUZZ
@given(rows, st.sampled_from(["utf-8", "latin-1", "utf-16"]))
def test_adopted_lines(folder, content, encoding):
    adopted = folder / ADOPTED
    adopted.parent.mkdir(exist_ok=True)
    good = f"{','.join(COLUMNS)}\nsplit,{'a' * 64},{'b' * 64},why\n"
    adopted.write_bytes((good + content).encode(encoding, "replace"))
    file = folder / "adopted.yaml"
    file.write_text(OWN.replace("KIND", "list").replace("KEY", "train").replace("FILE", "good.txt"))
    (folder / "good.txt").write_text("a.jpg 0\nb.jpg 1\n")
    with project(folder):
        plans_or_says_why(file)
    adopted.unlink()


@pytest.mark.parametrize("base", BASES)
def test_what_is_edited_here_can_be_planned(folder, base):
    file = folder / f"{base}.yaml"
    file.write_text(BASES[base])
    with project(folder):
        assert plans_or_says_why(file)
