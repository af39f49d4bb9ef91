"""The command that checks a dataset again, as it can be typed: with the settings file of the last check."""

import shlex
from pathlib import Path

from longtail.runs import store

USUAL = "params.yaml"  # what the command reads where no file is named


def _file(dataset: str) -> Path:
    return store.home(Path.cwd()) / "checked" / f"{dataset}.settings"


def remember(dataset: str, settings: str | Path) -> None:
    """Note by which settings file a dataset was checked on this machine."""
    store.write_text(_file(dataset), f"{Path(settings).resolve()}\n")


def check_command(dataset: str, settings: str | Path | None = None) -> str:
    """What to type to check a dataset.

    Args:
        dataset: its name.
        settings: the settings file; None: the one by which it was checked last.
    """
    if settings is None:
        try:
            settings = _file(dataset).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            settings = USUAL
    file = Path(settings)
    if file.is_absolute() and file.is_relative_to(Path.cwd()):
        file = file.relative_to(Path.cwd())
    return "`longtail check-data" + ("`" if str(file) == USUAL else f" --params {shlex.quote(str(file))}`")
