"""Where the workflow is, and the commands that go on from where a user stands."""

import shlex
import shutil
import sys
from pathlib import Path

from longtail.errors import UserError
from longtail.runs.identity import PACKAGE
from longtail.settings.names import STEM, STEM_WORDS

SETTINGS = (".yaml", ".yml")


def project() -> Path:
    """The folder that has the workflow: the current one, else the one that this code is from.

    Raises:
        UserError: if neither has it, as where the package alone is installed.
    """
    for folder in (Path.cwd(), PACKAGE.parents[1]):
        if (folder / "Snakefile").is_file() and (folder / "workflow/rules/plan.smk").is_file():
            return folder
    raise UserError(f"{Path.cwd()}: has no Snakefile; change into a clone of longtail and type it there")


def usable(file: Path) -> None:
    """Refuse names of settings files that would not reach Snakemake as they are written.

    Raises:
        UserError: if the name has no suffix of YAML or other letters than allowed, or its path reads as YAML.
    """
    if file.suffix not in SETTINGS or ": " in str(file) or "#" in str(file) or not str(file).isprintable():
        raise UserError(f"--to {file}: should end in .yaml and hold no ': ' and no '#'")
    if not STEM.fullmatch(file.stem):
        raise UserError(f"--to {file}: the name of a settings file is made of {STEM_WORDS}")


def next_steps(stood: Path, file: Path, results: str) -> list[str]:
    """What to type next, a command a line.

    Args:
        stood: the folder in which the user stands.
        file: the settings file.
        results: the folder of its results.
    """
    here = Path.cwd()
    return [
        *([f"cd {shlex.quote(str(here))}"] if here != stood else []),
        f"{_command('snakemake')} --cores all --config {shlex.quote(f'params={file}')}",
        f"{_command('longtail')} predict {shlex.quote(f'{results}/models/best')} PICTURES",
    ]


def _command(name: str) -> str:
    """A command of this environment: by its name where that finds it, else by its path."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if not own.is_file() or (found and Path(found).samefile(own)) else shlex.quote(str(own))
