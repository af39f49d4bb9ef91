"""Sweeps: a grid over keys of a method's entries becomes runs, a table results/sweeps/NAME and a figure.

    sweeps:
      gamma_b: {method: GraLoss, grid: {stage_one.loss.gamma.b: [0.5, 1, 2, 4]}}

Each point of the grid is a method like any other, so a point that is an entry of the settings already, or of
another sweep, is the same run.
"""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from itertools import product
from math import prod
from typing import Any

from pydantic import ValidationError

from longtail.errors import UserError, exact, shown
from longtail.runs.identity import digest
from longtail.settings.classifier import Classifier
from longtail.settings.messages import error_lines, joined
from longtail.settings.method_blocks import Method
from longtail.settings.methods import settings_of
from longtail.settings.params import Params
from longtail.settings.published import MethodRow, Row, Sweep, Table
from longtail.settings.recipe import Recipe
from longtail.settings.references import references, with_references

MOST = 1000  # points of a grid
LONGEST = 200  # characters of a label
FIGURE_KEYS = 2  # a line, or a heat map


def expanded(params: Params) -> Iterator[Params]:
    """For each sweep, settings with nothing but its own entries, table and figure.

    Raises:
        UserError: if a grid has an unknown key or a value twice, or the figure's name is taken.
    """
    for name, sweep in params.sweeps.items():
        if f"sweep_{name}" in params.figures:
            raise UserError(f"sweeps.{name}: figures.sweep_{name} has the name of its figure; rename one")
        yield _expanded(params, name, sweep)


def _expanded(params: Params, name: str, sweep: Sweep) -> Params:
    row = params.methods[sweep.method]
    words = _words(list(sweep.grid))
    if (number := prod(len(values) for values in sweep.grid.values())) > MOST:
        raise UserError(f"sweeps.{name}.grid: has {number:,} points; {MOST:,} are the most")
    recipes: dict[str, Recipe] = {}
    classifiers: dict[str, Classifier] = {}
    methods: dict[str, MethodRow] = {}
    taken: dict[str, dict[str, Any]] = {}
    rows, points = [], []
    for values in product(*sweep.grid.values()):
        point = dict(zip(sweep.grid, values, strict=True))
        label = ", ".join(f"{words[key]} = {_said(value)}" for key, value in point.items())
        if label in methods:
            raise UserError(f"sweeps.{name}.grid: gives {label} twice")
        if len(label) > LONGEST or not label.isprintable():
            raise UserError(f"sweeps.{name}.grid: {shown(label)} is no label of a row; give shorter values")
        entries = {}
        for kind in ("stage_one", "stage_two"):
            own = {key: value for key, value in point.items() if key.startswith(f"{kind}.")}
            short = [f"-{words[key]}{_slug(value)}" for key, value in own.items()]
            entries[kind] = _entry(getattr(row, kind) + "".join(short), own, taken)
        where = f"sweeps.{name}.grid"
        recipes[entries["stage_one"]] = _recipe(params.stage_one[row.stage_one], point, where)
        classifiers[entries["stage_two"]] = _classifier(params.stage_two[row.stage_two], point, where)
        methods[label] = MethodRow(**entries)
        said = {words[key]: _said(value) for key, value in point.items()}
        rows.append(Row(section=sweep.method, label=label, method=label, printed=False, values=said))
        points.append({"method": label, "values": list(values)})
    named = {block.stage_one for recipe in recipes.values() for _, block in references(recipe)}
    if params.imbalance.ratios is None and sweep.ratio is not None:
        raise UserError(f"sweeps.{name}.ratio: imbalance.profile {params.imbalance.profile} has no ratios")
    ratios = None if params.imbalance.ratios is None else [_ratio(params, name, sweep)]
    caption = sweep.caption or f"{sweep.method} over {' and '.join(sweep.grid)}"
    table = Table(caption=caption, ratios=ratios, rows=rows)
    drawn = {"table": f"sweeps/{name}", "sweep": sweep.method, "keys": list(words.values()), "points": points}
    figure = Method(name="sweep", options=settings_of("figures", "sweep").model_validate(drawn))
    return params.model_copy(
        update={
            "stage_one": recipes | with_references(named, params.stage_one),
            "stage_two": params.stage_two | classifiers if named else classifiers,
            "methods": methods,
            "tables": {f"sweeps/{name}": table},
            "figures": {f"sweep_{name}": figure} if len(sweep.grid) <= FIGURE_KEYS else {},
            "sweeps": {},
            "models": {},
            "label_issues": None,
        }
    )


def _ratio(params: Params, name: str, sweep: Sweep) -> float:
    known = params.imbalance.ratios or []
    if sweep.ratio is None:
        return 100.0 if 100.0 in known else known[0]
    if sweep.ratio not in known:
        asked, listed = exact(sweep.ratio), ", ".join(map(exact, known))
        raise UserError(f"sweeps.{name}.ratio: {asked} is not one of imbalance.ratios: {listed}")
    return sweep.ratio


def _recipe(recipe: Recipe, point: dict[str, Any], where: str) -> Recipe:
    block = _changed(recipe.resolved(), "stage_one", point, where)
    try:
        swept = Recipe.model_validate(block)
    except ValidationError as error:
        raise UserError(f"{where}: {joined(error_lines(error, ('stage_one',)))}") from None
    if wrong := swept.out_of_scope():
        raise UserError(f"{where}: stage_one: {wrong}")
    return swept


def _classifier(classifier: Classifier, point: dict[str, Any], where: str) -> Classifier:
    common = classifier.resolved()
    method = common.pop("method")
    block = _changed({**common, **method}, "stage_two", point, where)
    own = {key: block.pop(key) for key in common}
    try:
        return Classifier.model_validate({**own, "method": block})
    except ValidationError as error:
        raise UserError(f"{where}: {joined(error_lines(error, ('stage_two',)))}") from None


def _changed(block: dict[str, Any], kind: str, point: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings of an entry with the point's values in place."""
    for key, value in point.items():
        first, *path = key.split(".")
        if first != kind:
            continue
        inner: Any = block
        for place, part in enumerate(path):
            keys = _keys(inner)
            if part not in keys:
                above = ".".join([kind, *path[:place]])
                known = ", ".join(keys) or "no keys"
                raise UserError(f"{where}.{key}: there is no {part!r} in {above}, which has {known}")
            if place == len(path) - 1:
                inner[keys[part]] = deepcopy(value)
            inner = inner[keys[part]]
    return block


def _keys(block: Any) -> dict[str, Any]:
    """What a key may name in a block: its keys; in a list, such as `then`, its items by their names."""
    if isinstance(block, dict):
        return {key: key for key in block}
    named = enumerate(block) if isinstance(block, list) else ()
    return {str(item["name"]): place for place, item in named if isinstance(item, dict) and "name" in item}


def _words(keys: list[str]) -> dict[str, str]:
    """The shortest end of each key that no other key has: `b` of stage_one.loss.gamma.b."""
    words = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-size:]) for size in range(1, len(parts) + 1)]
        words[key] = next(
            end for end in ends if not any(other.endswith(f".{end}") for other in keys if other != key)
        )
    return words


def _said(value: Any) -> str:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _entry(name: str, values: dict[str, Any], taken: dict[str, dict[str, Any]]) -> str:
    """The entry of a point; of values that read alike (`-2`, `2`) the later ones get digits of their own."""
    if taken.setdefault(name, values) != values:
        name = f"{name}-{digest(values)[:6]}"
        taken[name] = values
    return name


def _slug(value: Any) -> str:
    """A value as it may stand in the name of a run; not every value has one of its own."""
    return re.sub(r"[^a-z0-9.]+", "-", _said(value).lower()).rstrip("-")
