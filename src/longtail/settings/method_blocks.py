"""Blocks `{name: METHOD, ...its settings}` of settings, by the room that holds the methods."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from longtail.settings.base import Settings
from longtail.settings.methods import method_names, settings_of


class Method(Settings):
    """A method by its module's name, with that module's own settings."""

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
        return Method(name=value["name"], options=settings_of(kind, value["name"]).model_validate(options))

    return Annotated[Method, BeforeValidator(read)]


if TYPE_CHECKING:
    Network = Method
    Loss = Method
    Sampler = Method
    Transform = Method
    Observer = Method
    Exemplars = Method
    Retention = Method
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
    ClassifierMethod = method_of("stage_two")
    Figure = method_of("figures")
