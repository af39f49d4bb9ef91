"""Who a run is: a hash of its settings, of what it is built on and of the code that computes it.

The code counts by its syntax tree: comments, docstrings and formatting do not matter, and neither do
the modules that only order and report (`BESIDE`), unless they are named, nor the fields of settings
classes, whose values are hashed already.
"""

import ast
import csv
import json
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
BESIDE = frozenset(
    f"longtail.{name}"
    for name in (
        "adopt",
        "cli",
        "companions",
        "datasets",  # by the dataset's own identity
        "errors",
        "identity",
        "job",
        "params",
        "picture_files",  # named by the runs on picture files alone
        "pictures",
        "plan",
        "progress",
        "publish",
        "run",
        "settings",
        "sources",
        "store",
    )
)


def digest(data: Any) -> str:
    """SHA-256 of JSON data, in hexadecimal; the order of keys does not count, 1 and 1.0 are one."""
    return hashed(canonical(data))


def hashed(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return sha256(text.encode()).hexdigest()


def canonical(data: Any) -> str:
    """JSON data as the text that is hashed."""
    return json.dumps(_canonical(data), sort_keys=True, separators=(",", ":"))


def composed(parts: dict[str, str]) -> str:
    """The text of an object of which the texts of its values are known."""
    return "{" + ",".join([f"{quoted(key)}:{parts[key]}" for key in sorted(parts)]) + "}"


def _canonical(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _canonical(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_canonical(value) for value in data]
    if isinstance(data, float) and data.is_integer():
        return int(data)
    return data


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    result = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            result.update(block)
    return result.hexdigest()


def code_digest(modules: Iterable[str]) -> str:
    """SHA-256 over the modules named and all that they import inside the package.

    Reads the files as they are now, at each call that finds one changed.
    """
    found = closure(modules)
    return digest({name: _module_digest(file, file.stat().st_mtime_ns) for name, file in found.items()})


def closure(modules: Iterable[str]) -> dict[str, Path]:
    """The modules named and what they import inside the package, with their files."""
    found: dict[str, Path] = {}
    waiting = list(named := tuple(modules))
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        if name in found or (name in BESIDE and name not in named) or file is None:
            continue
        found[name] = file
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # Python runs a package before its modules
        waiting.extend(_imports(file, file.stat().st_mtime_ns))
    return dict(sorted(found.items()))


def module_file(name: str) -> Path | None:
    """The file of a module of this package; None for anything else."""
    first, *rest = name.split(".")
    if first != "longtail":
        return None
    path = PACKAGE.joinpath(*rest)
    for file in (path / "__init__.py", path.with_suffix(".py") if rest else path / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def _tree(file: Path, _modified: int) -> ast.Module:
    return ast.parse(file.read_bytes(), filename=str(file))


@cache
def _imports(file: Path, modified: int) -> tuple[str, ...]:
    names: set[str] = set()
    waiting: list[ast.AST] = [_tree(file, modified)]
    while waiting:  # statements only: an import is no part of an expression
        node = waiting.pop()
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting.extend(getattr(node, block, ()))
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(sorted(name for name in names if name.split(".")[0] == "longtail"))


@cache
def _module_digest(file: Path, modified: int) -> str:
    tree = _plain(_tree(file, modified))
    return hashed(json.dumps(tree, sort_keys=True, separators=(",", ":")))  # canonical as it is


def _plain(node: Any) -> Any:
    """A syntax tree as JSON data, the same under every version of Python that the project supports."""
    if isinstance(node, ast.AST):
        body = getattr(node, "body", None)
        fields = {name: getattr(node, name, None) for name in node._fields}
        if isinstance(body, list):
            fields["body"] = [item for item in body if not _silent(item, node)]
        left_out = ("type_comment", "type_ignores", "type_params", "kind", "ctx")
        kept = {
            name: _plain(value)
            for name, value in fields.items()
            if name not in left_out and value is not None and value != []
        }
        return {"node": type(node).__name__, **kept}
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return node if isinstance(node, str | int | None) else repr(node)  # so that 1.0 is not 1


def _silent(item: ast.stmt, parent: ast.AST) -> bool:
    """Docstrings, and the fields of a settings class."""
    if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant):
        return isinstance(item.value.value, str)
    if isinstance(item, ast.AnnAssign) and isinstance(parent, ast.ClassDef):
        return any(isinstance(base, ast.Name) and base.id.endswith("Settings") for base in parent.bases)
    return False


ADOPTED = Path("workflow/adopted.csv")


def adopted(code: str, root: Path) -> str:
    """The digest under which the results of this code stand, if a refactoring was adopted."""
    renamed = _adopted(root / ADOPTED)
    while code in renamed:
        code = renamed.pop(code)
    return code


def _adopted(file: Path) -> dict[str, str]:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            return {line["code"]: line["as"] for line in csv.DictReader(lines)}
    except FileNotFoundError:
        return {}
