"""Edits of a project's files, as a user's editor would make them."""

from pathlib import Path


def edit(folder: Path, file: str, old: str, new: str) -> None:
    """Replace words of a file, which must be there."""
    path = folder / file
    text = path.read_text("utf-8")
    assert old in text, f"{old!r} is not in {file}"
    path.write_text(text.replace(old, new), "utf-8")


def add_a_neutral_key(folder: Path) -> None:
    """A new key of the optimiser's settings, whose neutral value means what was there before it."""
    recipe = "src/longtail/settings/recipe.py"
    key = "    dampening: Annotated[float, Neutral(0.0)] = 0.0\n"
    edit(folder, recipe, "    weight_decay: float", f"{key}    weight_decay: float")
    edit(folder, recipe, "import Field, model_validator", "import Field as Field, model_validator")
