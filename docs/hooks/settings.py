"""A hook of MkDocs: put every key of a settings file, read from the typed models, into reference/settings.md.

What a key means is the comment beside its field in the source. So the page cannot fall behind the code.
"""

import ast
import inspect
import io
import re
import tokenize
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from mkdocs.structure.pages import Page
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from longtail.settings.method_blocks import Method
from longtail.settings.methods import method_file, method_names, settings_of
from longtail.settings.params import Params

PAGE, MARK = "reference/settings.md", "<!-- settings -->"
TOLD_APART_BY = ("kind", "form", "profile")  # the key whose value tells the blocks of a union apart


def on_page_markdown(markdown: str, page: Page, **_: object) -> str | None:
    """Replace the mark on the page by the tables of all blocks."""
    return markdown.replace(MARK, Reference().text()) if page.file.src_uri == PAGE else None


@dataclass
class Reference:
    """All blocks of a settings file, each described once, in the order in which they are met."""

    anchors: dict[type[BaseModel], str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)  # of methods: where one is named first
    waiting: list[tuple[str, type[BaseModel], Path | None]] = field(default_factory=list)

    def text(self) -> str:
        """The sections of the page."""
        lines = ["## Top level", "", *self.table("", Params, None)]
        named = self.waiting
        for key in Params.model_fields:
            self.waiting = [item for item in named if re.split(r"\W", item[0])[0] == key]
            if self.waiting and self.waiting[0][0] == key:
                lines += self.block(*self.waiting.pop(0), level="##")
            elif self.waiting:
                lines += ["", f"## `{key}` {{#{_slug(key)}-blocks}}"]
            lines += self.blocks()
        done: set[str] = set()
        while kinds := [kind for kind in self.kinds if kind not in done]:
            done.add(kinds[0])
            lines += ["", *self.methods(kinds[0])]
        return "\n".join(lines)

    def blocks(self) -> list[str]:
        """All blocks that wait, and those that they name."""
        lines: list[str] = []
        while self.waiting:
            lines += self.block(*self.waiting.pop(0))
        return lines

    def block(self, path: str, block: type[BaseModel], file: Path | None, level: str = "###") -> list[str]:
        """A block as a section: what it is, and its keys."""
        heading = f"{level} `{path}` {{#{self.anchors[block]}}}"
        return ["", heading, "", _first_paragraph(block.__doc__), "", *self.table(path, block, file)]

    def methods(self, kind: str) -> list[str]:
        """All methods of a kind, each with its keys."""
        lines = [f"## Methods of `{self.kinds[kind]}` {{#{_slug(kind)}-methods}}"]
        for name in method_names(kind):
            file = method_file(kind, name)
            doc = _first_paragraph(ast.get_docstring(ast.parse(file.read_text("utf-8"))))
            lines += ["", f"### `{name}` {{#{_slug(kind)}-{_slug(name)}}}", "", doc, ""]
            self.waiting = []
            lines += [*self.table(name, settings_of(kind, name), file), *self.blocks()]
        return lines

    def table(self, path: str, block: type[BaseModel], file: Path | None) -> list[str]:
        """The keys of a block."""
        rows = []
        comments: dict[str, str] = {}
        for one in reversed(block.__mro__):
            if issubclass(one, BaseModel) and one is not BaseModel:
                comments |= _comments(_source(one, file), one.__name__)
        for name, info in block.model_fields.items():
            key = info.alias or name
            if info.annotation is Method and key == "method":  # of an entry that is flat in the file
                words = f"{self._method_words(path, info.metadata)}, whose keys stand beside it"
                rows.append(f"| `name` | {words} | the entry's name | |")
                continue
            words = self.type_words(f"{path}.{key}".strip("."), info.annotation, info.metadata, file)
            meaning = _escaped(comments.get(name, "")) or _of_the_block(info.annotation)
            rows.append(f"| `{key}` | {words} | {_default(info)} | {meaning} |")
        if not rows:
            return ["No keys."]
        return ["| key | value | default | meaning |", "|:--|:--|:--|:--|", *rows]

    def type_words(self, path: str, kind: Any, metadata: list[Any], file: Path | None) -> str:
        """A type in words, with links to the blocks that it names; those are told later."""
        words = self._plain_words(path, kind, metadata, file)
        bounds = "".join(f", {bound}" for bound in _bounds(metadata))
        without = words.removesuffix(", or null")
        return without + bounds + words[len(without) :]

    def _plain_words(self, path: str, kind: Any, metadata: list[Any], file: Path | None) -> str:
        origin, arguments = get_origin(kind), get_args(kind)
        if kind is Method:
            return self._method_words(path, metadata)
        if origin is Annotated:
            return self.type_words(path, arguments[0], list(arguments[1:]), file)
        if origin is Literal:
            return ", ".join(f"`{value}`" for value in arguments)
        if origin in (Union, types.UnionType):
            given = [item for item in arguments if item is not type(None)]
            words = " or ".join(dict.fromkeys(self.type_words(path, item, [], file) for item in given))
            return f"{words}, or null" if len(given) < len(arguments) else words
        if origin in (list, tuple):
            words = self.type_words(f"{path}[]", arguments[0], [], file)
            return "list of " + re.sub("^(integer|number)", r"\1s", words)
        if origin is dict:
            return f"by name: {self.type_words(f'{path}.NAME', arguments[1], [], file)}"
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return self._block_words(path, kind, file)
        names = {int: "integer", float: "number", str: "text", bool: "`true`, `false`", Any: "any value"}
        return names[kind]

    def _block_words(self, path: str, block: type[BaseModel], file: Path | None) -> str:
        told_apart = _told_apart(block)
        if block not in self.anchors:
            title = f"{path} {told_apart}".strip()
            self.anchors[block] = _slug(title)
            self.waiting.append((title, block, file))
        return f"[{told_apart or 'block'}](#{self.anchors[block]})"

    def _method_words(self, path: str, metadata: list[Any]) -> str:
        (read,) = (mark.func for mark in metadata if isinstance(mark, BeforeValidator))
        cells = (cell.cell_contents for cell in read.__closure__)
        kind = dict(zip(read.__code__.co_freevars, cells, strict=True))["kind"]
        self.kinds.setdefault(kind, path)
        return f"[method](#{_slug(kind)}-methods) by `name`"


def _told_apart(block: type[BaseModel]) -> str:
    for key in TOLD_APART_BY:
        if key in block.model_fields and get_origin(block.model_fields[key].annotation) is Literal:
            values = get_args(block.model_fields[key].annotation)
            return f"{key}: {values[0]}" if len(values) == 1 else ""
    return ""


def _bounds(metadata: list[Any]) -> Iterator[str]:
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for mark in metadata:
        for name, words in signs.items():
            if (value := getattr(mark, name, None)) is not None:
                yield f"{words} {value:,}" if isinstance(value, int) else f"{words} {value:g}"
        if getattr(mark, "min_length", None):
            yield "not empty"
        if (most := getattr(mark, "max_length", None)) is not None:
            yield f"{most} at most"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True, by_alias=True)
        if not value:
            return "its defaults"
    if isinstance(value, list) and len(value) > 8:
        return f"`[{value[0]:g}, {value[1]:g}, ... {value[-1]:g}]`"
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _source(block: type[BaseModel], file: Path | None) -> Path:
    """The file in which a block's class stands: its module's, or the method's that was read in part."""
    try:
        return Path(inspect.getfile(block))
    except (TypeError, OSError):
        assert file is not None, block
        return file


@cache
def _comments(file: Path, name: str) -> dict[str, str]:
    """Of each field of a class, what the comments beside and right above it say."""
    text = file.read_text("utf-8")
    comments, own_line = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.removeprefix("#").strip().removeprefix("noqa").strip()
            if token.line[: token.start[1]].strip() == "":
                own_line.add(token.start[0])
    found: dict[str, str] = {}
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name]
    for block in classes:
        for node in block.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                first = node.lineno
                while first - 1 in own_line:
                    first -= 1
                lines = range(first, (node.end_lineno or node.lineno) + 1)
                found[node.target.id] = " ".join(comments[line] for line in lines if line in comments)
    return found


def _of_the_block(kind: Any) -> str:
    """What the one block says of itself that a key without a comment holds."""
    if get_origin(kind) is Annotated:
        return _of_the_block(get_args(kind)[0])
    if get_origin(kind) is dict:
        return _of_the_block(get_args(kind)[1])
    is_block = isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Method
    return _first_paragraph(kind.__doc__) if is_block else ""


def _first_paragraph(doc: str | None) -> str:
    return _escaped(" ".join((doc or "").split("\n\n")[0].split()))


def _escaped(text: str) -> str:
    """A text of the source as Markdown in a table; what stands in backticks stays as it is."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\|\[\]<*_^~])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _slug(text: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in text).strip("-").lower().replace("--", "-")
