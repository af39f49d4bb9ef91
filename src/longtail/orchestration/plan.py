"""The plan: every run that the tables and figures need, with its settings and what it is built on.

    acquire -> split -> stage_one -> features -> stage_two -> tables, figures -> report

The Snakefile and every command are thin on top of it. `write` puts each wanted run's resolved settings
into `.longtail/plan`, from where its command reads them: edits of params.yaml made while jobs wait
reach no job.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from longtail.orchestration.published import Published
from longtail.orchestration.run import Run, reference
from longtail.runs.identity import digest
from longtail.runs.steps import PUBLISHED, STEPS
from longtail.runs.store import PLANNED, json_text, write_text
from longtail.settings.base import Texts


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
    label_issues: dict[str, Published] = field(default_factory=dict)
    frame: dict[str, Published] = field(default_factory=dict)
    page: dict[str, Published] = field(default_factory=dict)
    report: dict[str, Published] = field(default_factory=dict)

    def runs(self, step: str) -> dict[str, Run]:
        """The runs of a step by name."""
        return dict(getattr(self, step))

    def everything(self) -> Iterator[Run]:
        """Every run, step by step; what is built on comes first."""
        given: set[tuple[str, str]] = set()

        def before(run: Run) -> Iterator[Run]:
            if (run.step, run.name) not in given:
                given.add((run.step, run.name))
                for other in run.needs.values():
                    yield from before(other)
                yield run

        for step in STEPS:
            for run in self.runs(step).values():
                yield from before(run)

    def published(self) -> list[Published]:
        """Tables, then figures, models, label issues, the frame of all results, the page, the report."""
        return [item for kind in PUBLISHED for item in getattr(self, kind).values()]

    @property
    def files(self) -> list[str]:
        """The first file of everything published: the workflow's targets."""
        return [item.outputs[0] for item in self.published()]

    @cached_property
    def digest(self) -> str:
        """Names the list of runs that a layer's check goes through."""
        return digest(self._listing)[:16]

    @cached_property
    def _listing(self) -> dict[str, Any]:
        runs = {step: [reference(run) for run in self.runs(step).values()] for step in STEPS}
        published: dict[str, Any] = {kind: [] for kind in PUBLISHED}
        for item in self.published():
            published[item.kind].append(
                {"record": item.record, "identity": item.identity, "outputs": item.outputs}
            )
        return {**runs, **published}

    def write(self, folder: Path = PLANNED) -> None:
        """Write what every command will be told, where it is not there already to the letter.

        A name says what a run is, but not where its modules stand, where the files of a dataset lie, or on
        how many devices it is trained: so contents are compared.
        """
        texts = Texts(hashed=False)
        for step in STEPS:
            (folder / step).mkdir(parents=True, exist_ok=True)
            for run in self.runs(step).values():
                name, text = f"{folder}/{step}/{run.name}.json", run.planned(texts)
                if _is_other(name, text):
                    write_text(Path(name), text)
        for file, data in self._told_of_published(folder):
            text = json_text(data, indent=None)
            if _is_other(str(file), text) and not _was_asked_again(file, text):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_text(file, text)

    def _told_of_published(self, folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
        """What the commands that publish, and those that check a layer, will be told, and where."""
        for item in self.published():
            name = f"{item.name}-{item.identity[:16]}.json"
            yield folder / item.kind / name, {**item.planned, "identity": item.identity}
        yield folder / "layers" / f"{self.digest}.json", self._listing


def _is_other(name: str, text: str) -> bool:
    """Whether a file says something else than a text, or is not there; a damaged one does."""
    try:
        with open(name, "rb") as file:  # thousands are read: no more than that
            return file.read() != text.encode()
    except OSError:
        return True


def _was_asked_again(file: Path, text: str) -> bool:
    """Whether a file of JSON says what a text says, and when it was asked for again."""
    try:
        found = json.loads(file.read_bytes())
        del found["asked"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return bool(found == json.loads(text))
