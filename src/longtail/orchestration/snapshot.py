"""The settings as they stood when an invocation of Snakemake began, for its jobs on other machines.

Such a job reads the Snakefile again, maybe hours after it was submitted. With the settings of that moment it
finds itself in the plan, whatever was edited since; it would not, had it read the file again.
"""

import json
import os
from pathlib import Path

from longtail.errors import UserError
from longtail.runs.identity import digest
from longtail.runs.store import PLANNED, write_text
from longtail.settings.params import Params
from longtail.settings.reading import read_file

FROZEN = "LONGTAIL_SETTINGS"  # names the copy in the environment of jobs


def settings(source: str, main: bool) -> Params:
    """The checked settings of a file.

    Args:
        source: the settings file.
        main: whether this is the process that plans: it reads the file and keeps a copy. Another one takes
            the copy of the process that started it, and the file only where there is none.

    Raises:
        UserError: one line with the key's path, what is wrong and what is allowed.
    """
    if not main:
        try:
            copy = Path(os.environ[FROZEN])
            text = copy.read_text("utf-8")
        except (KeyError, OSError):
            return Params.load(source)
        except ValueError:
            text = ""
        if _name(text) != copy.name:
            raise UserError(f"{copy}: is damaged; type the command again, which writes it anew")
        return Params.read(json.loads(text), source)
    data = read_file(Path(source))
    params = Params.read(data, source)
    text = json.dumps(data, indent=1)  # not YAML, in which 1e3 is a text or a number, as the reader sees it
    copy = PLANNED / "settings" / _name(text)
    if not copy.is_file() or copy.read_bytes() != text.encode():
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_text(copy, text)
    os.environ[FROZEN] = str(copy.resolve())
    return params


def _name(text: str) -> str:
    return f"{digest(text)[:16]}.json"
