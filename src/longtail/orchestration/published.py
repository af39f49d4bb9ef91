"""A table, a figure, a model or the report as it is planned."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from longtail.errors import UserError
from longtail.orchestration.run import Run, reference
from longtail.runs.digest_cache import remembered_digest
from longtail.runs.identity import canonical, composed, hashed
from longtail.runs.store import PLANNED
from longtail.settings.base import Settings, plain


@dataclass(frozen=True)
class PlannedCell:
    """One method at one imbalance with one subset and one seed, and the runs that make it."""

    method: str
    imbalance: str
    ratio: float | None
    subset_seed: int
    seed: int
    runs: dict[str, Run]

    def planned(self, reads: Iterable[str]) -> dict[str, Any]:
        """The cell as JSON data, its runs by their names."""
        return {
            "method": self.method,
            "imbalance": self.imbalance,
            "ratio": self.ratio,
            "subset_seed": self.subset_seed,
            "seed": self.seed,
            "runs": {step: self.runs[step].name for step in reads},
        }

    def hashed(self, reads: Iterable[str]) -> str:
        """The text of it that is hashed: its runs by their identities, keys in alphabetical order."""
        runs = ",".join(f'"{step}":"{self.runs[step].identity}"' for step in sorted(reads))
        return f'{{{self._place},"runs":{{{runs}}},"seed":{self.seed},"subset_seed":{self.subset_seed}}}'

    @cached_property
    def _place(self) -> str:
        known = {"imbalance": self.imbalance, "method": self.method, "ratio": self.ratio}
        return canonical(known)[1:-1]


@dataclass(frozen=True, eq=False)
class Published:
    """A table, a figure, a model or the report: files of stable names, with their identity beside them."""

    kind: str
    name: str
    folder: str
    settings: Settings | dict[str, Any]
    modules: tuple[str, ...]
    code: str
    cells: tuple[PlannedCell, ...]
    reads: tuple[str, ...]
    context: dict[str, Any]
    suffixes: tuple[str, ...]
    built_on: "tuple[Published, ...]" = ()
    names: tuple[str, ...] = ()  # of its files, where they are not its own name and a suffix
    files: tuple[Path, ...] = ()  # whose content the context has by a digest

    @property
    def outputs(self) -> list[str]:
        """The files that are published, without the record."""
        if self.names:
            return [f"{self.folder}/{name}" for name in self.names]
        return [f"{self.folder}/{self.name}.{suffix}" for suffix in self.suffixes]

    @property
    def record(self) -> str:
        """The file that says of which runs the outputs are."""
        if self.names:
            return f"{self.folder}/{Path(self.names[0]).stem}.identity.json"
        return f"{self.folder}/{self.name}.identity.json"

    @property
    def benchmark(self) -> str:
        """What Snakemake measured of the job; it counts the file's time among those of the outputs."""
        return f"logs/{self.kind}/{self.name}.benchmark.tsv"

    @property
    def caption(self) -> str:
        """What to see in a figure, for the report: workflow/report/KIND.rst, empty for a kind without one."""
        file = Path(f"workflow/report/{plain(self.settings).get('name')}.rst")
        return file.read_text("utf-8") if file.is_file() else ""

    @cached_property
    def runs(self) -> dict[str, dict[str, Run]]:
        """Every run that is read, by step and name."""
        return {step: {cell.runs[step].name: cell.runs[step] for cell in self.cells} for step in self.reads}

    @cached_property
    def inputs(self) -> list[str]:
        """What Snakemake has to have made before, and what the command is told: new with every identity."""
        told = str(PLANNED / self.kind / f"{self.name}-{self.identity[:16]}.json")
        records = (run.record for runs in self.runs.values() for run in runs.values())
        return [told, *records, *(item.outputs[0] for item in self.built_on)]

    @property
    def planned(self) -> dict[str, Any]:
        """What the command is told, beside the identity."""
        return {
            **self._known(),
            "files": {str(file): digest_at_hand(file) for file in self.files},
            "cells": [cell.planned(self.reads) for cell in self.cells],
            "runs": {
                step: {name: reference(run) for name, run in runs.items()} for step, runs in self.runs.items()
            },
        }

    @cached_property
    def identity(self) -> str:
        """Hash of everything that the outputs depend on, and of where they are published."""
        parts = {key: canonical(value) for key, value in self._known(hashed=True).items()}
        cells = ",".join(cell.hashed(self.reads) for cell in self.cells)
        return hashed(composed({**parts, "cells": f"[{cells}]"}))

    def _known(self, hashed: bool = False) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "folder": self.folder,
            "settings": plain(self.settings, hashed),
            **({} if hashed else {"modules": list(self.modules)}),  # known by what they say: code
            "code": self.code,
            "reads": list(self.reads),
            "context": plain(self.context, hashed),
            "outputs": self.outputs,
            "built_on": [
                {"record": item.record, "identity": item.identity, "outputs": item.outputs}
                for item in self.built_on
            ],
        }


def digest_at_hand(file: Path) -> str:
    """SHA-256 of a file that something published reads; "" where there is none.

    Raises:
        UserError: if it is there and cannot be read.
    """
    try:
        return remembered_digest(file.expanduser())
    except FileNotFoundError:
        return ""
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
