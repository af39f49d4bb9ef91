"""true is no 1, 1 is no true, and 1.0 is no 1, wherever a settings file can have one of them."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from longtail.errors import UserError
from longtail.orchestration.sweeps import expanded
from longtail.settings.base import Settings
from longtail.settings.methods import ROOMS, method_names, settings_of
from longtail.settings.params import Params
from longtail.settings.reading import parse
from tests.tiny import TINY

# A number for a block of more keys.
SHORT = {("Params", "subset_seed"): int}


def kinds(annotation: Any) -> Iterator[Any]:
    """The types that a field may have at its top level; of a choice those of its values."""
    if get_origin(annotation) is Annotated:
        yield from kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for one in get_args(annotation):
            yield from kinds(one)
    elif get_origin(annotation) is Literal:
        yield from map(type, get_args(annotation))
    else:
        yield annotation


def blocks() -> list[type[Settings]]:
    """Every block that a settings file may have, those of methods included."""
    found: list[type[Settings]] = [Params]
    for room in ROOMS:
        for name in method_names(room):
            found.append(settings_of(room, name))
    waiting: list[type[BaseModel]] = [Settings]
    while waiting:
        for below in waiting.pop().__subclasses__():
            waiting.append(below)
            if below.model_config.get("strict") and below not in found:
                found.append(below)
    return found


FIELDS = [
    pytest.param(block, name, id=f"{block.__module__.removeprefix('longtail.')}.{block.__name__}.{name}")
    for block in blocks()
    for name in block.model_fields
]


def complaints(block: type[Settings], key: str, value: Any) -> list[str]:
    """What is said of one key, whatever is said of others, which may be missing."""
    try:
        block.model_validate({key: value})
    except ValidationError as error:
        return [item["msg"] for item in error.errors() if item["loc"][:1] == (key,)]
    return []


@pytest.mark.parametrize(("block", "name"), FIELDS)
def test_a_value_of_another_type_is_refused(block, name):
    field = block.model_fields[name]
    allowed = {*kinds(field.annotation), SHORT.get((block.__name__, name))}
    if Any in allowed:
        pytest.skip("any value; what it is put into refuses it")
    wrong: list[Any] = []
    if bool not in allowed:
        wrong += [True, False]
    if not allowed & {int, float}:
        wrong += [0, 1]
    if float not in allowed:
        wrong += [0.0, 1.0, 2.0, 3.0]
    for value in wrong:
        assert complaints(block, field.alias or name, value), f"{value!r} is taken"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("alpha: 0.0", "alpha: 0.0, distance_power: true", "distance_power: True: should be 1 or 2"),
        ("alpha: 0.0", "alpha: 0.0, distance_power: 2.0", "distance_power: 2.0: should be 1 or 2"),
        ("alpha: 0.0", "alpha: false", "alpha: False: should be a valid number"),
        ("flip: false", "flip: 0", "augmentation.flip: 0: should be a valid boolean"),
        ("k: [2]", "k: [true]", "k: True: should be a valid integer"),
    ],
)
def test_the_line_names_the_key_and_what_is_right(old, new, line):
    assert old in TINY
    with pytest.raises(UserError) as caught:
        list(expanded(Params.read(parse(TINY.replace(old, new)))))
    assert line in str(caught.value)


def test_channels_of_pictures():
    data = {"kind": "folder", "root": "pictures", "images": {"channels": True}}
    with pytest.raises(UserError, match=r"data\.images\.channels: True: should be 1 or 3"):
        Params.read({**parse(TINY), "dataset": "own", "data": data})
