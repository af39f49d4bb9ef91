"""Names of entries."""

import re
from typing import Annotated

from pydantic import BeforeValidator

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def _entry_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(
            "a name is made of small letters, digits, '_', '.', '-' and begins with a letter or digit"
        )
    return value


EntryName = Annotated[str, BeforeValidator(_entry_name)]
