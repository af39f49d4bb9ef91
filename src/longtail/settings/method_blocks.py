"""Blocks `{name: METHOD, ...its settings}` of settings, by the room that holds the methods."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BeforeValidator, SerializeAsAny

from longtail.settings.base import Settings
from longtail.settings.methods import method_names, settings_of


class Method(Settings):
    """A method by its module's name, with that module's own settings."""

    kind: str = ""  # the room of methods that it is of; the place in the settings says it
    name: str
    options: SerializeAsAny[Settings]

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """The name and the options in one flat block, as params.yaml has them."""
        return {"name": self.name, **self.options.kept(hashed)}


def method_of(kind: str) -> Any:
    """The type of a block `{name: METHOD, ...its settings}` whose methods are the modules of a package."""

    def read(value: Any) -> Any:
        if isinstance(value, Method):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError(f"needs a name, one of {', '.join(method_names(kind))}")
        options = {key: item for key, item in value.items() if key != "name"}
        found = settings_of(kind, value["name"]).model_validate(options)
        return Method(kind=kind, name=value["name"], options=found)

    return Annotated[Method, BeforeValidator(read)]


Block = TypeVar("Block", bound=Settings)


def blocks_in(value: Any, block: type[Block], key: str = "") -> Iterator[tuple[str, Block]]:
    """Blocks of a kind in settings, however deep, each with its key, e.g. `second` or `teachers.0`."""
    if isinstance(value, block):
        yield key, value
    if isinstance(value, Method):
        yield from blocks_in(value.options, block, key)
    elif isinstance(value, Settings):
        for name in type(value).model_fields:
            yield from blocks_in(getattr(value, name), block, f"{key}.{name}".strip("."))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from blocks_in(item, block, f"{key}.{place}".strip("."))


if TYPE_CHECKING:
    Network = Method
    Loss = Method
    Sampler = Method
    Transform = Method
    Observer = Method
    Exemplars = Method
    Retention = Method
    StepMethod = Method
    Companions = Method
    ClassifierMethod = Method
    Figure = Method
else:
    Network = method_of("networks")
    Loss = method_of("losses")
    Sampler = method_of("samplers")
    Transform = method_of("transforms")
    Observer = method_of("observers")
    Exemplars = method_of("exemplars")
    Retention = method_of("retention")
    StepMethod = method_of("steps")
    Companions = method_of("companions")
    ClassifierMethod = method_of("stage_two")
    Figure = method_of("figures")
