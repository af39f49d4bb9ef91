"""Names of entries, texts of one line, and places of files."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from longtail.errors import shown

LONGEST_NAME = 80  # characters; several of them make the name of a run, which is that of a folder
NAME = re.compile(rf"[a-z0-9][a-z0-9_.-]{{,{LONGEST_NAME - 1}}}")
# of settings files, without .yaml: a folder of results has it, and so has every command of the workflow
STEM = re.compile(r"\w[\w.-]*")
STEM_WORDS = "letters, digits, '_', '.', '-'"


def _entry_name(value: Any) -> Any:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError(
            f"{shown(value)}: a name is made of small letters, digits, '_', '.', '-', begins with a letter "
            f"or digit and has {LONGEST_NAME} characters at most"
        )
    return value


def _of_one_line(value: str) -> str:
    if len(f"{value}.".splitlines()) > 1:
        raise ValueError(f"{shown(value)} has several lines; it should be one (in YAML >- instead of >)")
    return value


def _on_one_line(value: str) -> str:
    return " ".join(value.split())


def _place(value: str) -> str:
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{shown(value)}: there is no such user on this machine, whose home ~ means"
        ) from None
    return value


EntryName = Annotated[str, BeforeValidator(_entry_name)]
Line = Annotated[str, Field(max_length=200), AfterValidator(_of_one_line)]  # a label, the name of a method
Paragraph = Annotated[str, AfterValidator(_on_one_line)]  # a text in which line breaks are spaces
Place = Annotated[str, Field(max_length=4000), AfterValidator(_place)]  # the path of a file or folder
