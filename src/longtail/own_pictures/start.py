"""Where `longtail init` starts: a folder of pictures, or a table of them; what is taken for what."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from longtail.data import file_changes
from longtail.data.lists import named
from longtail.errors import UserError
from longtail.own_pictures.layout import layout, one_line
from longtail.own_pictures.problems import files_of
from longtail.settings.data import CsvData, FolderData


@dataclass(frozen=True)
class Start:
    """A dataset as it is found.

    Attributes:
        data: settings of it, without test images that are held out.
        parts: where the parts are that it has, by part.
        taken: what was taken for what, a line each for the terminal.
        parts_why, classes_why, left_out: for the comments of the settings file.
    """

    data: FolderData | CsvData
    parts: Mapping[str, str]
    taken: tuple[str, ...]
    parts_why: str
    classes_why: str
    left_out: str = ""


def start(path: Path, root: Path | None) -> Start:
    """What a user names: a folder, or a CSV file.

    Args:
        path: of the folder or the file.
        root: to which the paths of a table are relative; None: the file's own folder.

    Raises:
        UserError: if it is neither, or cannot be read.
    """
    if path.is_dir():
        if root is not None:
            raise UserError(f"--root {root}: goes with a CSV file; the root of a folder is the folder")
        return _of_folder(path)
    if path.is_file() and path.suffix.lower() == ".csv":
        return _of_table(path, root or path.parent)
    what = "is no folder and no CSV file" if path.exists() else "is not there"
    raise UserError(
        f"{path}: {what}; name a folder of pictures, or a CSV file with the columns path and label"
    )


def _of_folder(root: Path) -> Start:
    passed: list[str] = []
    found = layout(file_changes.picture_files(root, passed=passed))
    given = {"train": found.train, "validation": found.validation, "test": found.test}
    parts = {part: folder for part, folder in given.items() if folder is not None}
    data = FolderData.model_validate({"root": str(root), "classes": found.classes, "broken": "skip", **parts})
    without = {one_line(folder): what for folder, what in found.left_out.items()}
    for folder in passed:  # those in a part are among the findings
        if not any(part == "." or folder.startswith(f"{part}/") for part in parts.values()):
            without[one_line(folder)] = f"{files_of(root / folder)} of the system's own"
    left_out = ", ".join(f"{folder} ({what})" for folder, what in without.items())
    named = ", ".join(f"{part} in {one_line(folder)}" for part, folder in parts.items())
    taken = [
        f"parts: {found.parts_why}" + (f" ({named})" if len(parts) > 1 else ""),
        f"classes: {found.classes_why}",
        *([f"left out: {left_out}"] if left_out else []),
    ]
    return Start(data, parts, tuple(taken), found.parts_why, found.classes_why, left_out)


def _of_table(file: Path, root: Path) -> Start:
    if not root.is_dir():
        raise UserError(
            f"--root {root}: is no folder; name the one to which the paths of {file} are relative"
        )
    data = CsvData(root=str(root), file=str(file), broken="skip")
    parts = {part: part for part, rows in named(data, []).items() if rows}
    why = (
        "by the column part" if len(parts) > 1 else "all pictures are one set: the column part names no other"
    )
    taken = (f"parts: {why}", f"paths: below {root}")
    return Start(data, parts, taken, why, "")
