"""The settings as they stood when an invocation of Snakemake began, for its jobs on other machines.

Such a job reads the Snakefile again, maybe hours after it was submitted. With the settings of that moment it
finds itself in the plan, whatever was edited since; it would not, had it read the file again.
"""

import os
from pathlib import Path

import yaml

from longtail.runs.identity import digest
from longtail.runs.store import PLANNED
from longtail.settings.params import Params
from longtail.settings.reading import parse, read_file

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
            return Params.read(parse(Path(os.environ[FROZEN]).read_text("utf-8")), source)
        except (KeyError, OSError):
            return Params.load(source)
    data = read_file(Path(source))
    params = Params.read(data, source)
    text = yaml.safe_dump(data, sort_keys=False)
    copy = PLANNED / "settings" / f"{digest(text)[:16]}.yaml"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        temporary = copy.with_name(f".{copy.name}.{os.getpid()}")
        temporary.write_text(text, "utf-8")
        temporary.replace(copy)
    os.environ[FROZEN] = str(copy.resolve())
    return params
