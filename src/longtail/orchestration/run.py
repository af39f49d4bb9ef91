"""One run of one step, and how it is identified."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted

from longtail.runs.identity import composed, hashed
from longtail.settings.base import Settings, Texts
from longtail.settings.recipe import StageOneSettings

DECODERS = (
    8  # cores a device that decode pictures; one decodes about 900 a second (docs/explanation/scale.md)
)


MEMORY_MB, PICTURES_MB = 4000, 16_000  # that a run asks a cluster for


@dataclass(frozen=True, eq=False)
class Run:
    """One run of one step: what it is (identity), what it reads, where it stands."""

    step: str
    name: str
    settings: Settings
    inputs: "tuple[Run, ...]"
    modules: tuple[str, ...]
    code: str
    identity: str
    folder: str
    further: "Mapping[str, Run]" = field(default_factory=dict)  # what else it is built on, by key

    @property
    def needs(self) -> "dict[str, Run]":
        """All that it is built on, by step; further runs by a key that ends with the step."""
        return {**{run.step: run for run in self.inputs}, **self.further}

    @property
    def record(self) -> str:
        """The file that is written last."""
        return f"{self.folder}/run.json"

    @property
    def devices(self) -> int:
        """On how many devices it is computed, at most."""
        settings = self.settings
        return settings.recipe.devices if isinstance(settings, StageOneSettings) else 1

    @property
    def gpus(self) -> int:
        """How many GPUs it is given where there are any.

        A classifier over features of small images takes seconds on a core, and waits for no GPU.
        """
        if self.step == "stage_two":
            return int(any(getattr(run.settings, "images", None) is not None for run in self.inputs))
        return self.devices if self.step in ("stage_one", "features") else 0

    @property
    def cpus(self) -> int:
        """Cores that keep its devices busy: pictures are decoded on them."""
        decodes = getattr(self.settings, "images", None) is not None
        return self.devices * (DECODERS if decodes else 1)

    @property
    def threads(self) -> int:
        """Cores that share the work of features of pictures where there is no GPU."""
        return self.cpus if self.step == "features" else 1

    @property
    def memory(self) -> int:
        """Main memory that it asks a cluster for, in MB; a second attempt asks for twice as much."""
        settings = [self.settings, *(run.settings for run in self.inputs)]
        large = any(getattr(block, "images", None) is not None for block in settings)
        return self.devices * (PICTURES_MB if large else MEMORY_MB)

    def planned(self, texts: Texts) -> str:
        """What the run's command is told, as JSON."""
        known = {
            "step": self.step,
            "run": self.name,
            "identity": self.identity,
            "code": self.code,
            "modules": self.modules,
            "folder": self.folder,
            "gpus": self.gpus,
            "inputs": {key: reference(run) for key, run in self.needs.items()},
        }
        return composed(
            {"settings": texts.of(self.settings)} | {key: json.dumps(known[key]) for key in known}
        )


def identity_of(step: str, settings: Settings, inputs: Mapping[str, Run], code: str, texts: Texts) -> str:
    """SHA-256 of what a run reads, of what it is built on, and of the code that computes it."""
    known = {
        "step": quoted(step),
        "settings": texts.of(settings),
        "inputs": composed({key: quoted(run.identity) for key, run in inputs.items()}),
        "code": quoted(code),
    }
    return hashed(composed(known))


def reference(run: Run) -> dict[str, str]:
    """A run as others name it."""
    return {"run": run.name, "identity": run.identity, "folder": run.folder}
