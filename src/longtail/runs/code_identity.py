"""The digest of the code that computes a run: a module is known by what it says, not by where it stands.

The digest of a module is the hash of its syntax tree without docstrings, comments and imports from inside
the package, together with the names that those imports bind and the digests of the modules they come from
(a Merkle tree). So a move or a new name costs nothing, and an edit reaches exactly what is built on it.

A room counts or does not (`COUNTS`), and a module may say otherwise of itself by `COMPUTES = True` or
`False` at its top level. Of what does not count only the bound names are hashed. The fields of settings
classes are left out: their values are hashed as settings. So is what stands under `if TYPE_CHECKING`.
"""

import ast
import csv
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from longtail.errors import UserError, shown
from longtail.runs.identity import PACKAGE, digest, file_digest
from longtail.runs.source_memory import SourceMemory

# Whether what is imported from a room can change a result; the modules of the root are rooms of their own.
COUNTS = {
    "errors": False,
    "rendering": True,
    "device": True,
    "random": True,
    "metrics": True,
    "groups": True,
    "runs": False,
    "settings": False,
    "data": True,
    "stage_one": True,
    "features": True,
    "stage_two": True,
    "export": True,
    "publish": True,
    "tracking": False,
    "orchestration": False,
    "own_pictures": False,
    "cli": False,
    "__main__": False,
}
SOURCES = SourceMemory(Path(__file__))
ADOPTED = Path("workflow/adopted.csv")
COLUMNS = ["step", "code", "as", "reason"]  # of it
DIGEST = re.compile("[0-9a-f]{64}")


class Bound(NamedTuple):
    """A name that an import of the package binds: from which module, and what it is called there.

    `origin` is empty where the module itself is bound.
    """

    name: str
    module: str
    origin: str


class Source(NamedTuple):
    """What is hashed of a file: its tree, the names bound from inside the package, and its `COMPUTES`."""

    tree: str
    bound: tuple[Bound, ...]
    computes: bool | None


def code_digest(modules: Iterable[str]) -> str:
    """SHA-256 over what computes a run: modules in the order of their roles, and all that they import.

    Reads the files as they are now, at each call that finds one changed.

    Args:
        modules: dotted names; `longtail.data:counts/NAME.csv` is a data file of the package.

    Raises:
        UserError: if there is no such module or file, or modules import each other in a circle.
    """
    known: dict[str, str] = {}
    found = digest([_digest(name, known, ()) for name in modules])
    SOURCES.write()
    return found


def closure(modules: Iterable[str]) -> dict[str, Path]:
    """The modules that count in `code_digest`, with their files."""
    known: dict[str, str] = {}
    for name in modules:
        _digest(name, known, ())
    return {name: file_of(name) for name in sorted(known)}


def counts(module: str) -> bool:
    """Whether what is imported from a module can change a result: as it says itself, else as its room."""
    said = _source(file := file_of(module), file.stat().st_mtime_ns).computes
    return COUNTS[module.split(".")[1]] if said is None else said


def file_of(name: str) -> Path:
    """The file of a module, or the data file that is named after a colon.

    Raises:
        UserError: if it is not there.
    """
    module, _, data = name.partition(":")
    path = PACKAGE.joinpath(*module.split(".")[1:])
    file = path / data if data else path.with_suffix(".py")
    if not file.is_file():
        raise UserError(f"{name}: is no module of this code; type the command again, which plans anew")
    return file


def _digest(name: str, known: dict[str, str], above: tuple[str, ...]) -> str:
    if name in known:
        return known[name]
    if name in above:
        raise UserError(f"{' imports '.join([*above[above.index(name) :], name])}: a circle has no digest")
    file = file_of(name)
    if ":" in name:
        known[name] = file_digest(file)
        return known[name]
    source = _source(file, file.stat().st_mtime_ns)
    bound = [
        [
            item.name,
            item.origin,
            _digest(item.module, known, (*above, name)) if counts(item.module) else "",
        ]
        for item in source.bound
    ]
    known[name] = digest({"tree": source.tree, "bound": bound})
    return known[name]


@cache
def _source(file: Path, _modified: int) -> Source:
    read = SOURCES.of(file.read_bytes(), lambda content: _read(content, file))
    return Source(
        read["tree"], tuple(sorted({_resolved(*names) for names in read["imports"]})), read["computes"]
    )


def _read(content: bytes, file: Path) -> dict[str, Any]:
    """What a file says, whatever stands beside it: see `Source`."""
    tree = ast.parse(content, filename=str(file))
    said = [
        bool(ast.literal_eval(node.value))
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPUTES"
    ]
    return {
        "tree": digest(_plain(tree)),
        "imports": [list(names) for names in _imports(tree)],
        "computes": said[0] if said else None,
    }


def _imports(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Every import from inside the package in a module, but for the types' sake: module, name, name here."""
    waiting: list[ast.AST] = [tree]
    while waiting:  # statements only: an import is no part of an expression
        node = waiting.pop()
        if _is_for_types(node):
            continue
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting.extend(getattr(node, block, ()))
        if isinstance(node, ast.ImportFrom) and _is_inside(node):
            yield from ((str(node.module), alias.name, alias.asname or alias.name) for alias in node.names)


def _resolved(module: str, name: str, here: str) -> Bound:
    """What an import binds: a module of the package, or something of one."""
    whole = f"{module}.{name}"
    if PACKAGE.joinpath(*whole.split(".")[1:]).with_suffix(".py").is_file():
        return Bound(here, whole, "")
    return Bound(here, module, name)


def _is_inside(node: ast.AST) -> bool:
    """Whether it is an import from inside the package; those begin with `from`, which a test checks."""
    return isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "longtail"


def _is_for_types(node: ast.AST) -> bool:
    names = ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    return isinstance(node, ast.If) and not node.orelse and ast.unparse(node.test) in names


def _plain(node: Any) -> Any:
    """A syntax tree as JSON data, the same under every version of Python that the project supports."""
    if isinstance(node, ast.AST):
        fields = {name: getattr(node, name, None) for name in node._fields}
        for name, value in fields.items():
            if isinstance(value, list):
                fields[name] = [item for item in value if not _is_left_out(item, node)]
        left_out = ("type_comment", "type_ignores", "type_params", "kind", "ctx")
        kept = {
            name: _plain(value)
            for name, value in fields.items()
            if name not in left_out and value is not None and value != []
        }
        return {"node": type(node).__name__, **kept}
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if isinstance(node, str | int | None):
        return node
    return {"constant": f"{type(node).__name__} {node!r}"}  # 1.0 is neither 1 nor "1.0"


def _is_left_out(item: Any, parent: ast.AST) -> bool:
    """Docstrings, imports from inside, what stands there for types alone, fields of a settings class."""
    if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant):
        return isinstance(item.value.value, str)
    if isinstance(item, ast.AnnAssign) and isinstance(parent, ast.ClassDef):
        return any(isinstance(base, ast.Name) and base.id.endswith("Settings") for base in parent.bases)
    return _is_inside(item) or _is_for_types(item)


def adopted(code: str, root: Path) -> str:
    """The digest under which the results of this code stand, if a refactoring was adopted."""
    renamed = _adopted(root / ADOPTED)
    while code in renamed:
        code = renamed.pop(code)
    return code


def _adopted(file: Path) -> dict[str, str]:
    """The lines of workflow/adopted.csv: new digest by old.

    Raises:
        UserError: if one is no such line; with it left out, runs would be computed again.
    """
    way_out = f"mend the line, or `git checkout {file}`"
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            found = {}
            for row in reader:
                if row == COLUMNS or not row:
                    continue
                if len(row) != len(COLUMNS) or not (DIGEST.fullmatch(row[1]) and DIGEST.fullmatch(row[2])):
                    where = f"{file}:{reader.line_num}: {shown(','.join(row))}"
                    raise UserError(f"{where} is not `{','.join(COLUMNS)}` (an open merge?); {way_out}")
                found[row[1]] = row[2]
            return found
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: is not a CSV file in UTF-8 ({error}); {way_out}") from None
