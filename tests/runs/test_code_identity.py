"""The identity of a run: what changes it, and what must not."""

import ast
import json
import shutil
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.runs import code_identity
from longtail.runs.code_identity import adopted, closure, code_digest
from longtail.runs.identity import digest, hashed
from longtail.settings.base import Neutral, Settings, Texts
from longtail.settings.params import Params

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
    """A package of a step, a method and what they import, whose files a test may edit."""
    files = {
        "stage_one/step.py": "from longtail.data.part import work\n"
        "from longtail.settings.params import Params\n\n\ndef compute(x):\n    return work(x)\n",
        "stage_one/methods/one.py": "from longtail.settings.base import Settings as BaseSettings\n\n"
        "class Settings(BaseSettings):\n    k: int = 2\n\n\ndef fit(x):\n    return x\n",
        "stage_one/methods/two.py": "def fit(x):\n    return 2 * x\n",
        "data/part.py": '"""Doc."""\n\nfrom longtail.data import constants\n'
        "from longtail.settings.schedules import rate\n\n"
        'def work(x):\n    """Doc."""\n    return x + 1.0 * rate(x) + constants.ONE  # a comment\n',
        "data/constants.py": "ONE = 1\n",
        "data/lists/published.csv": "train\n5\n",
        "settings/base.py": "class Settings:\n    pass\n",
        "settings/params.py": "Params = 1\n",
        "settings/schedules.py": "COMPUTES = True\n\n\ndef rate(x):\n    return 1\n",
        "cli.py": "from longtail.stage_one.step import compute\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code_identity, "PACKAGE", tmp_path)
    return tmp_path


STEP = ("longtail.stage_one.step", "longtail.stage_one.methods.one")


def test_the_closure_holds_what_the_step_and_its_method_import_and_no_other_method(package):
    assert set(closure(STEP)) == {
        "longtail.stage_one.step",
        "longtail.stage_one.methods.one",
        "longtail.data.part",
        "longtail.data.constants",
        "longtail.settings.schedules",
    }


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("data/part.py", "x + 1.0", "x + 2.0", True),
        ("data/part.py", "# a comment", "# another", False),
        ("data/part.py", '"""Doc."""', '"""Other words."""', False),
        ("data/part.py", "return x + 1.0 * rate(x)", "return (x\n            + 1.0 * rate(x))", False),
        ("data/part.py", "1.0", '"1.0"', True),
        ("data/part.py", "1.0", "1", True),
        ("data/part.py", "import rate", "import rate as speed", True),
        ("data/constants.py", "ONE = 1", "ONE = 2", True),
        ("stage_one/methods/one.py", "return x", "return -x", True),
        ("stage_one/methods/one.py", "k: int = 2", "k: int = 2\n    new: float = 0.0", False),
        ("stage_one/methods/two.py", "2 * x", "3 * x", False),
        ("settings/schedules.py", "return 1", "return 2", True),
        ("settings/params.py", "1", "2", False),
        ("cli.py", "import compute", "import compute as other", False),
    ],
)
def test_only_edits_that_can_change_results_change_the_digest(package, file, old, new, changes):
    before = code_digest(STEP)
    path = package / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (code_digest(STEP) != before) == changes


def test_what_is_imported_for_types_alone_does_not_count(package):
    before = code_digest(STEP)
    step = package / "stage_one/step.py"
    types = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from longtail.data.part import work\n"
    constants = package / "data/constants.py"
    constants.write_text(types.removeprefix("from typing import TYPE_CHECKING\n\n") + "ONE = 1\n")
    assert code_digest(STEP) == before
    step.write_text(step.read_text().replace("from longtail.settings.params import Params\n", types))
    assert "longtail.data.part" in closure(STEP)


def test_what_runs_beside_an_import_for_types_counts(package):
    constants = package / "data/constants.py"
    types = "if TYPE_CHECKING:\n    TWO = int\nelse:\n    TWO = {}\n\nONE = 1\n"
    constants.write_text(types.format(2))
    before = code_digest(STEP)
    constants.write_text(types.format(3))
    assert code_digest(STEP) != before


def test_a_module_may_move_and_have_another_name(package):
    """As long as the import lines follow; what they bind keeps its name."""
    before = code_digest(STEP)
    (package / "features").mkdir()
    (package / "data/part.py").rename(package / "features/elsewhere.py")
    step = package / "stage_one/step.py"
    step.write_text(step.read_text().replace("longtail.data.part", "longtail.features.elsewhere"))
    (package / "stage_one/methods/one.py").rename(package / "stage_one/first.py")
    assert code_digest(("longtail.stage_one.step", "longtail.stage_one.first")) == before


def test_a_data_file_counts_where_it_is_named(package):
    named = (*STEP, "longtail.data:lists/published.csv")
    before = code_digest(STEP), code_digest(named)
    (package / "data/lists/published.csv").write_text("train\n6\n")
    assert code_digest(STEP) == before[0]
    assert code_digest(named) != before[1]


def test_a_circle_and_a_missing_module_are_one_line(package):
    (package / "data/constants.py").write_text("from longtail.data.part import work\n\nONE = 1\n")
    with pytest.raises(
        UserError, match=r"part imports longtail\.data\.constants imports longtail\.data\.part: "
    ):
        code_digest(STEP)
    with pytest.raises(UserError, match=r"longtail\.stage_one\.gone: is no module of this code"):
        code_digest(("longtail.stage_one.gone",))


def test_every_import_from_inside_the_package_is_one_that_is_followed(root):
    """`from longtail... import ...`, absolute: a relative or a plain import would not be seen."""
    for file in (root / "src/longtail").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), file
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.split(".")[0] == "longtail"], file


@pytest.fixture
def copied(tmp_path, monkeypatch, root):
    """A copy of the whole package that is looked at in its place."""
    shutil.copytree(root / "src/longtail", tmp_path / "longtail")
    monkeypatch.setattr(code_identity, "PACKAGE", tmp_path / "longtail")
    return tmp_path / "longtail"


@pytest.fixture(scope="module")
def planned(root):
    """Every set of modules that params.yaml plans, with the names of its runs."""
    found: dict[tuple[str, ...], set[str]] = {}
    for run in plan(Params.load(root / "params.yaml"), root=root).everything():
        found.setdefault(run.modules, set()).add(run.name)
    return found


def test_moving_a_module_that_computes_to_another_room_changes_no_identity(copied, planned):
    before = {modules: code_digest(modules) for modules in planned}
    shutil.move(copied / "data/normalisation.py", copied / "stage_one/scaling.py")
    for file in copied.rglob("*.py"):
        text = file.read_text("utf-8")
        file.write_text(text.replace("longtail.data.normalisation", "longtail.stage_one.scaling"), "utf-8")
    assert {modules: code_digest(modules) for modules in planned} == before


@pytest.mark.parametrize(
    ("file", "old", "new", "role"),
    [
        ("stage_one/losses/focal.py", "class FocalLoss(", "class Focal(", "longtail.stage_one.losses.focal"),
        ("stage_one/samplers/chances.py", "def ", "async def ", "longtail.stage_one.samplers.square_root"),
        ("stage_two/gaussian.py", "CHUNK = ", "CHUNK = 1 + ", "longtail.stage_two.afg"),
    ],
)
def test_an_edited_line_changes_exactly_the_runs_that_use_it(copied, planned, file, old, new, role):
    before = {modules: code_digest(modules) for modules in planned}
    text = (copied / file).read_text("utf-8")
    assert old in text
    (copied / file).write_text(text.replace(old, new, 1), "utf-8")
    module = "longtail." + file.removesuffix(".py").replace("/", ".")
    users = {modules for modules in planned if module in closure(modules)}
    assert {modules for modules in planned if code_digest(modules) != before[modules]} == users
    assert any(role in modules for modules in users)
    assert len(users) < len(planned) / 2


def test_adopted_code_stands_for_what_it_replaced(tmp_path):
    (tmp_path / "workflow").mkdir()
    a, b, c, d = (letter * 64 for letter in "abcd")
    (tmp_path / "workflow/adopted.csv").write_text(f"step,code,as,reason\ns,{c},{b},r\ns,{b},{a},r\n")
    assert adopted(c, tmp_path) == a
    assert adopted(d, tmp_path) == d


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
