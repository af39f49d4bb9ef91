"""The identity of a run: what changes it, and what must not."""

import json
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from longtail import identity, settings
from longtail.identity import adopted, closure, code_digest, digest, hashed
from longtail.settings import Neutral, Settings, Texts

json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), json_data))
def test_the_order_of_keys_does_not_count(data):
    assert digest(data) == digest(dict(reversed(data.items())))


def test_one_and_one_point_zero_are_the_same_setting_but_true_is_not():
    assert digest({"a": 1}) == digest({"a": 1.0})
    assert digest({"a": 1}) != digest({"a": "1"})


def test_a_key_with_its_neutral_value_is_not_hashed():
    class Old(Settings):
        rate: float = 0.1

    class New(Settings):
        rate: float = 0.1
        smoothing: Annotated[float, Neutral(0.0)] = 0.1

    assert New(smoothing=0.0).resolved(hashed=True) == Old().resolved(hashed=True)
    assert New().resolved(hashed=True) != Old().resolved(hashed=True)
    assert New(smoothing=0.0).resolved() == {"rate": 0.1, "smoothing": 0.0}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `longtail` of a step, a method and what they import, whose files a test may edit."""
    files = {
        "__init__.py": "",
        "step.py": "from longtail.part import work\nfrom longtail.params import Params\n",
        "part.py": '"""Doc."""\n\ndef work(x):\n    """Doc."""\n    return x + 1  # a comment\n',
        "params.py": "Params = 1\n",
        "cli.py": "import longtail.step\n",
        "methods/__init__.py": "",
        "methods/one.py": "from longtail.settings import Settings as BaseSettings\n\n"
        "class Settings(BaseSettings):\n    k: int = 2\n\n\ndef fit(x):\n    return x\n",
        "methods/two.py": "def fit(x):\n    return 2 * x\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(settings, "PACKAGE", tmp_path)
    monkeypatch.setattr(identity, "PACKAGE", tmp_path)
    return tmp_path


STEP = ("longtail.step", "longtail.methods.one")


def test_the_closure_holds_what_the_step_and_its_method_import_and_no_other_method(package):
    names = set(closure(STEP))
    assert names == {
        "longtail",
        "longtail.step",
        "longtail.part",
        "longtail.methods",
        "longtail.methods.one",
    }


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("part.py", "x + 1", "x + 2", True),
        ("part.py", "# a comment", "# another", False),
        ("part.py", '"""Doc."""', '"""Other words."""', False),
        ("part.py", "return x + 1", "return (x\n            + 1)", False),
        ("methods/one.py", "return x", "return -x", True),
        ("methods/one.py", "k: int = 2", "k: int = 2\n    new: float = 0.0", False),
        ("methods/two.py", "2 * x", "3 * x", False),
        ("params.py", "1", "2", False),
        ("cli.py", "longtail.step", "longtail.part", False),
    ],
)
def test_only_edits_that_can_change_results_change_the_digest(package, file, old, new, changes):
    before = code_digest(STEP)
    path = package / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (code_digest(STEP) != before) == changes


def test_adopted_code_stands_for_what_it_replaced(tmp_path):
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/adopted.csv").write_text("step,code,as,reason\ns,ccc,bbb,r\ns,bbb,aaa,r\n")
    assert adopted("ccc", tmp_path) == "aaa"
    assert adopted("ddd", tmp_path) == "ddd"


def test_blocks_written_once_hash_as_the_whole_does():
    class Inner(Settings):
        rate: float = 1.0
        words: tuple[str, ...] = ("a", "ä")

    class Outer(Settings):
        power: float = Field(0.5, alias="lambda")
        added: Annotated[int, Neutral(3)] = 3
        inner: Inner = Inner()
        given: Inner | None = None

    block = Outer(given=Inner(rate=2))
    assert hashed(Texts(hashed=True).of(block)) == digest(block.resolved(hashed=True))
    assert json.loads(Texts(hashed=False).of(block)) == block.resolved()
