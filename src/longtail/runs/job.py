"""What a step is handed when it computes a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longtail.runs.progress import Progress


@dataclass
class Job:
    """One run of one step: its settings, what it is built on, and where it writes.

    Attributes:
        run: the run's name.
        settings: the step's own settings (`longtail.settings.recipe.StageOneSettings` and so on).
        inputs: finished and verified folders of what the run is built on, by step; what a step of training
            names, e.g. its teachers, by keys such as `teacher.0.stage_one`.
        pictures: folder of the dataset's picture files on this machine; None where images are in the run of
            acquisition, which holds them.
        folder: where the step writes its outputs; they appear in results/ only once all are there.
        scratch: a folder that survives a kill, for checkpoints; emptied once the run is finished.
        facts: what the step wants recorded in run.json beside what every run records.
        built_on: a digest of the outputs of each input as it was handed over, by the same keys.
    """

    step: str
    run: str
    settings: Any
    inputs: dict[str, Path]
    folder: Path
    scratch: Path
    pictures: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    built_on: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Progress]:
        """A progress bar on a terminal, a plain line now and then elsewhere."""
        with Progress(self.run, total, unit) as progress:
            yield progress
