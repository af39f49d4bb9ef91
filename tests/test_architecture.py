"""The house: rooms whose imports go one way, without circles, in modules that one can read at a sitting."""

import ast
import tomllib
from pathlib import Path

import pytest

# What a room may import stands before it.
ROOMS = (
    *("errors", "groups", "device", "random", "metrics", "rendering"),
    *("runs", "settings", "data", "stage_one", "features", "stage_two"),
    *("export", "publish", "tracking", "orchestration", "own_pictures", "cli", "__main__"),
)
LONGEST = 350  # lines


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name below it."""
    package = root / "src/longtail"
    return {".".join(file.relative_to(package).with_suffix("").parts): file for file in package.rglob("*.py")}


def imported(file: Path, known: dict[str, Path], types: bool) -> set[str]:
    """What a module imports from inside, wherever in it; with `types` also what it does for types alone."""
    tree = ast.parse(file.read_text("utf-8"))
    beside = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "longtail":
            if not types and id(node) in beside:
                continue
            above = str(node.module).removeprefix("longtail").lstrip(".")
            for alias in node.names:
                whole = f"{above}.{alias.name}".lstrip(".")
                found.add(whole if whole in known else above)
    return found


def test_imports_between_rooms_go_one_way(root):
    known = modules(root)
    for name, file in known.items():
        own = ROOMS.index(name.split(".")[0]) if name != "__init__" else 0
        for other in imported(file, known, types=True):
            assert ROOMS.index(other.split(".")[0]) <= own, f"{name} imports {other}"


def test_no_module_imports_another_in_a_circle(root):
    known = modules(root)
    edges = {name: imported(file, known, types=False) for name, file in known.items()}
    done: set[str] = set()

    def walk(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in edges.get(name, ()):
                walk(other, (*above, name))
            done.add(name)

    for name in edges:
        walk(name, ())


def test_packages_hold_a_docstring_and_nothing_else(root):
    for name, file in modules(root).items():
        if name.split(".")[-1] == "__init__":
            body = ast.parse(file.read_text("utf-8")).body
            assert len(body) == 1, name
            assert ast.get_docstring(ast.Module(body, [])), name


def test_no_module_is_longer_than_one_reads_at_a_sitting(root):
    lengths = {name: len(file.read_text("utf-8").splitlines()) for name, file in modules(root).items()}
    assert max(lengths.values()) <= LONGEST, max(lengths, key=lambda name: lengths[name])


def test_files_that_are_no_modules_are_installed_with_the_package(root):
    package = root / "src/longtail"
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    installed = {file for pattern in settings["package-data"]["longtail"] for file in package.glob(pattern)}
    beside = {file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert {file for file in beside if file.suffix != ".py"} <= installed


def test_every_room_has_a_place_in_the_order_of_imports(root):
    there = {name.split(".")[0] for name in modules(root)} - {"__init__"}
    assert there == set(ROOMS)


@pytest.mark.parametrize("word", ["utils", "helpers", "misc", "common"])
def test_no_module_is_named_by_a_word_that_says_nothing(root, word):
    assert not [name for name in modules(root) if word in name.split(".")]


def test_a_class_has_its_name_to_itself(root):
    """One meaning a word; a method's own blocks of settings are named alike on purpose."""
    places: dict[str, list[str]] = {}
    for name, file in modules(root).items():
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name not in ("Settings", "Tukey"):
                places.setdefault(node.name, []).append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
