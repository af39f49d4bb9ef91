"""The plan: every run that the tables and figures need, with its settings and what it is built on.

    acquire -> split -> stage_one -> features -> stage_two -> tables, figures -> report

The Snakefile and every command are thin on top of it. `write` puts each wanted run's resolved settings
into `.longtail/plan`, from where its command reads them: edits of params.yaml made while jobs wait
reach no job.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from longtail.orchestration.published import Published
from longtail.orchestration.run import Run, reference
from longtail.runs.identity import digest
from longtail.runs.steps import STEPS
from longtail.runs.store import PLANNED, write_json, write_text
from longtail.settings.base import Settings, Texts
from longtail.settings.recipe import StageOneSettings
from longtail.settings.weight_file import WeightFile

PUBLISHED = ("tables", "figures", "models", "report")


@dataclass
class Plan:
    """All runs by step and name, and what is published of them."""

    name: str  # "" for params.yaml; the stem of any other settings file
    results: str
    splits: str
    source: str
    tables_in: str  # the folder of tables: results, or that of a settings file that asks for no other
    acquire: dict[str, Run] = field(default_factory=dict)
    split: dict[str, Run] = field(default_factory=dict)
    stage_one: dict[str, Run] = field(default_factory=dict)
    features: dict[str, Run] = field(default_factory=dict)
    stage_two: dict[str, Run] = field(default_factory=dict)
    tables: dict[str, Published] = field(default_factory=dict)
    figures: dict[str, Published] = field(default_factory=dict)
    models: dict[str, Published] = field(default_factory=dict)
    report: dict[str, Published] = field(default_factory=dict)

    def runs(self, step: str) -> dict[str, Run]:
        """The runs of a step by name."""
        return dict(getattr(self, step))

    def everything(self) -> Iterator[Run]:
        """Every run, what is built on comes first."""
        for step in STEPS:
            yield from self.runs(step).values()

    def published(self) -> list[Published]:
        """Tables, then figures, then models, then the report."""
        return [item for kind in PUBLISHED for item in getattr(self, kind).values()]

    @property
    def files(self) -> list[str]:
        """The first file of everything published: the workflow's targets."""
        return [item.outputs[0] for item in self.published()]

    @cached_property
    def digest(self) -> str:
        """Names the list of runs that a layer's check goes through."""
        return digest(self._listing())[:16]

    def _listing(self) -> dict[str, Any]:
        runs = {step: [reference(run) for run in self.runs(step).values()] for step in STEPS}
        published: dict[str, Any] = {kind: [] for kind in PUBLISHED}
        for item in self.published():
            published[item.kind].append(
                {"record": item.record, "identity": item.identity, "outputs": item.outputs}
            )
        return {**runs, **published}

    def write(self, folder: Path = PLANNED) -> None:
        """Write what every command will be told; what is there already is the same by its name."""
        texts = Texts(hashed=False)
        for step in STEPS:
            there = _names(folder / step)
            for run in self.runs(step).values():
                name = f"{run.name}.json"
                if name not in there or _depends_on_local_paths(run):
                    write_text(folder / step / name, run.planned(texts))
        for item in self.published():
            told = folder / item.kind / f"{item.name}-{item.identity[:16]}.json"
            if not told.exists():
                write_json(told, {**item.planned, "identity": item.identity}, indent=None)
        layers = folder / "layers" / f"{self.digest}.json"
        if not layers.exists():
            write_json(layers, self._listing(), indent=None)


def _depends_on_local_paths(run: Run) -> bool:
    """Whether a run's command is told something that its name does not say.

    A name says what a dataset is, or weights to begin with, but not where the files lie; and not on how many
    devices a run is trained.
    """
    settings = run.settings
    sharded = isinstance(settings, StageOneSettings) and settings.recipe.shards > 1
    return run.step == "acquire" or sharded or _weight_file(settings) is not None


def _weight_file(settings: Settings) -> WeightFile | None:
    """The file of weights that a run of stage one begins with."""
    if not isinstance(settings, StageOneSettings):
        return None
    found = getattr(settings.recipe.network.options, "pretrained", None)
    return found if isinstance(found, WeightFile) else None


def _names(folder: Path) -> set[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return set(os.listdir(folder))
