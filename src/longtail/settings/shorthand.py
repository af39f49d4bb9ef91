"""Short ways of writing recipes and classifiers in a settings file, and what they stand for.

    presets: {plain: {augmentation: {autoaugment: none, cutout: 0}}}
    stage_one:
      ce: {loss: focal, use: plain}                  # the preset's lines, as if they stood in the recipe
      longer: {like: ce, schedule: {epochs: 300}}    # ce, but for these lines

`entries_in_full` writes them out. It works on the data of a file, before anything is checked: what comes out
says the same without them, and whatever is wrong with a value is found where values are checked. Rows of
tables have short ways of their own (`longtail.settings.row_shorthand`).
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any

from longtail.errors import UserError, shown
from longtail.settings.methods import method_names

KINDS = ("stage_one", "stage_two")
DEEPEST = 50  # entries that are like one another
Presets = Mapping[str, Mapping[str, Any]]  # lines by the preset's name


class MisplacedError(ValueError):
    """A wrong value that a check of the whole file found, with the path of its key."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def over(base: Any, own: Any) -> Any:
    """Own settings in place of a base's, block by block; a block of another name or form as a whole.

    Args:
        base: what is kept where `own` says nothing.
        own: what counts; a list replaces a list.
    """
    if not isinstance(base, dict) or not isinstance(own, dict):
        return own
    if any(key in own and own[key] != base.get(key) for key in ("name", "form", "profile")):
        return own
    return lines_over(base, own)


def lines_over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The same for whole entries: the name of one, such as a phase's, replaces a name and nothing else."""
    return {**base, **{key: over(base.get(key), value) for key, value in own.items()}}


def without(base: Any, keys: Any, where: str) -> Any:
    """The data of a settings file but for some of its blocks, for a file that is like it in all others.

    Args:
        base: the data.
        keys: the blocks' keys.
        where: the key that an error is said of.

    Raises:
        UserError: if a key is none of the data's.
    """
    if not isinstance(base, dict):
        return base
    if not isinstance(keys, list):
        raise UserError(f"{where}: {shown(keys)} should be a list of keys, e.g. [tables, figures]")
    if unknown := [key for key in keys if not isinstance(key, str) or key not in base]:
        raise UserError(
            f"{where}: {shown(unknown[0])} is no key of the other file: {', '.join(map(str, base))}"
        )
    return {key: value for key, value in base.items() if key not in keys}


def known(where: str, name: Any, kind: str, entries: Any) -> str:
    """A name, if it is that of an entry.

    Args:
        where: the key that has the name.
        name: what stands there.
        kind: the block that should have the entry.
        entries: what stands in that block.

    Raises:
        MisplacedError: if it is not; the message lists the entries that there are.
    """
    names = entries if isinstance(entries, dict) else {}
    if not isinstance(name, str) or name not in names:
        listed = ", ".join(map(str, names)) or "it has none"
        raise MisplacedError(where, f"{shown(name)} is not an entry of {kind}: {listed}")
    return name


def entries_in_full(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without `presets`, and without `use` and `like` in recipes, phases and classifiers.

    Args:
        settings: the data of a settings file, which stays as it is.

    Raises:
        MisplacedError: if a name is unknown, or entries are like one another in a circle.
    """
    result = {key: value for key, value in settings.items() if key != "presets"}
    presets = _presets(settings.get("presets"))
    for kind in KINDS:
        if isinstance(entries := result.get(kind), dict):
            result[kind] = {name: _in_full(kind, name, entries, presets) for name in entries}
    return result


def _presets(value: Any) -> Presets:
    """`presets:` of a file, checked as far as its lines can stand elsewhere."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        message = (
            f"{shown(value)} should be named lines, e.g. {{light: {{optimiser: {{weight_decay: 0.0002}}}}}}"
        )
        raise MisplacedError("presets", message)
    for name, lines in value.items():
        if not isinstance(lines, dict):
            message = (
                f"{shown(lines)} should be lines of an entry, e.g. {{optimiser: {{weight_decay: 0.0002}}}}"
            )
            raise MisplacedError(f"presets.{name}", message)
        if taken := [key for key in ("use", "like") if key in lines]:
            message = f"is not for presets; write the lines of {shown(lines[taken[0]])} here"
            raise MisplacedError(f"presets.{name}.{taken[0]}", message)
    return value


def _in_full(
    kind: str, name: str, entries: Mapping[str, Any], presets: Presets, below: tuple[str, ...] = ()
) -> Any:
    """An entry of `stage_one:` or `stage_two:` with everything that it takes from elsewhere.

    Args:
        kind: stage_one or stage_two.
        name: the entry's.
        entries: all of this kind, as they stand in the file.
        presets: lines by the preset's name.
        below: entries that are like this one, the first one first.
    """
    entry, where = entries[name], f"{kind}.{name}"
    if not isinstance(entry, dict):
        return entry
    own = _with_presets(where, entry, presets)
    if "like" in own:
        other = known(f"{where}.like", own.pop("like"), kind, entries)
        if other in (*below, name):
            circle = " is like ".join((*below, name, other))
            raise MisplacedError(f"{where}.like", f"goes round in a circle: {circle}")
        if len(below) > DEEPEST:
            raise MisplacedError(
                f"{where}.like", f"is the last of more than {DEEPEST} that are like one another"
            )
        base = _in_full(kind, other, entries, presets, (*below, name))
        base = base if isinstance(base, dict) else {}
        own = lines_over(base if kind == "stage_one" else _same_method(name, own, other, base), own)
    return _with_phases(where, own, presets) if kind == "stage_one" else own


def _with_presets(where: str, entry: Mapping[str, Any], presets: Presets) -> dict[str, Any]:
    """An entry over the lines of the presets that it uses, of which a later one counts before an earlier."""
    own = {key: value for key, value in entry.items() if key != "use"}
    if "use" not in entry:
        return own
    names = entry["use"] if isinstance(entry["use"], list) else [entry["use"]]
    lines = [presets[known(f"{where}.use", name, "presets", presets)] for name in names]
    return reduce(lines_over, [*lines, own], {})


def _with_phases(where: str, recipe: dict[str, Any], presets: Presets) -> dict[str, Any]:
    """A recipe whose later phases have the lines of their presets."""
    if not isinstance(phases := recipe.get("then"), list):
        return recipe
    full = [
        _with_presets(f"{where}.then[{index}]", phase, presets) if isinstance(phase, dict) else phase
        for index, phase in enumerate(phases)
    ]
    return {**recipe, "then": full}


def _same_method(name: str, own: Mapping[str, Any], other: str, base: Mapping[str, Any]) -> dict[str, Any]:
    """The lines of the classifier that another one is like, with the name of its method.

    Raises:
        MisplacedError: if this one is of another method, by its `name` or as the entry of a method.
    """
    lines = {"name": other, **base}
    method = own.get("name", name if name in method_names("stage_two") else lines["name"])
    if method != lines["name"]:
        message = f"{other!r} is of the method {lines['name']}, not {method}; lines of both are for presets"
        raise MisplacedError(f"stage_two.{name}.like", message)
    return lines
