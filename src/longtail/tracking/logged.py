"""What a tracker is told of a finished run. A tracker is a module of this room with one function:

    def write(run: LoggedRun, place: str | None) -> str

It writes the run to a place (None: the usual one), over what it wrote of it before, and says where it stands.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail.errors import UserError
from longtail.publish.job import validation_can_judge
from longtail.publish.published_record import is_current, read_record
from longtail.runs.frames import read_frame
from longtail.runs.lookup import Finished
from longtail.settings.published import Groups

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path("tracked")  # where a tracker writes unless told otherwise
SPLITS = ("test", "validation")
CURVES = ("stage_one", "stage_two")
SUFFIXES = ("csv", "md", "tex", "html")  # of a published table


@dataclass(frozen=True)
class LoggedRun:
    """A finished run as trackers have runs.

    Attributes:
        name: of the run of stage two.
        identity: of the same, which tells whether it was written before.
        project: what holds the runs of a dataset together.
        settings: of all steps, by dotted keys, e.g. stage_one.recipe.loss.gamma.b; lists as JSON.
        curves: value by epoch, counted over all phases, by STEP/COLUMN, e.g. stage_one/train_loss.
        metrics: e.g. test/few; accuracies are shares.
        tags: dataset, commit, device, precision and the like.
        tables: published tables by name: the CSV file.
    """

    name: str
    identity: str
    project: str
    settings: dict[str, Any]
    curves: dict[str, dict[int, float]]
    metrics: dict[str, float]
    tags: dict[str, str]
    tables: dict[str, Path] = field(default_factory=dict)

    def by_epoch(self) -> dict[int, dict[str, float]]:
        """The curves, all values of an epoch beside each other."""
        found: dict[int, dict[str, float]] = {}
        for name, values in self.curves.items():
            for epoch, value in values.items():
                found.setdefault(epoch, {})[name] = value
        return dict(sorted(found.items()))

    def frame(self, table: str) -> "pd.DataFrame":
        """A published table as it stands there: words and numbers as texts, none empty."""
        import pandas as pd

        return pd.read_csv(self.tables[table], dtype=str, keep_default_na=False)


def logged(run: Finished, groups: Groups, tables: Mapping[str, Path]) -> LoggedRun:
    """A verified run as a tracker is told it."""
    records = run.records
    dataset = records["features"]["settings"]["dataset"]
    facts = {f"{step}_{key}": records[step].get("facts", {}).get(key) for step in CURVES for key in FACTS}
    known = {
        "dataset": dataset,
        **{f"{step}_run": record.get("run") for step, record in records.items()},
        **{f"{step}_commit": records[step].get("code", {}).get("commit") for step in CURVES},
        **facts,
    }
    return LoggedRun(
        name=run.name,
        identity=records["stage_two"]["identity"],
        project=f"longtail-{dataset}",
        settings={
            key: value
            for step, record in records.items()
            for key, value in _flat(record.get("settings", {}), step)
        },
        curves={name: values for step in CURVES for name, values in _curves(step, run.folders[step])},
        metrics=dict(_metrics(run, groups)),
        tags={key: str(value) for key, value in known.items() if value is not None},
        tables=dict(tables),
    )


FACTS = ("device", "precision", "batch_norm")


def _flat(block: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The values of settings by dotted keys."""
    if isinstance(block, Mapping) and block:
        for name, value in block.items():
            yield from _flat(value, f"{key}.{name}")
    else:
        yield key, json.dumps(block) if isinstance(block, list | Mapping) or block is None else block


def _curves(step: str, folder: Path) -> Iterator[tuple[str, dict[int, float]]]:
    """The columns of a run's history.csv; nothing where it has none."""
    file = folder / "history.csv"
    if not file.is_file() or not file.read_bytes().strip():
        return
    history = read_frame(file)
    if "epoch" not in history:  # of values that were tried
        return
    epochs = range(1, len(history) + 1)  # over all phases; the column counts in each
    for column in history.columns:
        if column not in ("epoch", "phase"):
            pairs = zip(epochs, history[column].tolist(), strict=True)
            if values := {epoch: float(value) for epoch, value in pairs if value == value}:
                yield f"{step}/{column}", values


def _metrics(run: Finished, groups: Groups) -> Iterator[tuple[str, float]]:
    """What was measured of the classifier by split, groups by the borders given, and what each step cost."""
    from longtail.metrics import group_accuracy  # imports torch

    counts = run.counts()["train"].tolist()
    blind = () if validation_can_judge(run.records) else ("selection_accuracy",)
    for split, found in run.metrics().items():
        if split not in SPLITS:
            continue
        by_class = (found.get("per_class", []), found.get("per_class_n", []))
        shares = group_accuracy(*by_class, counts, **groups.resolved()) if all(by_class) else {}
        for name, value in {**found, **shares}.items():
            if isinstance(value, int | float) and value == value and name not in blind:
                yield f"{split}/{name}", float(value)
    for step, record in run.records.items():
        for name in ("seconds", "peak_memory_mb"):
            if isinstance(record.get(name), int | float):
                yield f"{step}/{name}", float(record[name])


def table(given: str) -> tuple[str, Path]:
    """A published table by any of its files: its name and its CSV file, once it is known to be undamaged.

    Raises:
        UserError: if there is none, or it is not what was published from the runs that are here.
    """
    file = Path(given).with_suffix(".csv")
    record = file.with_suffix(".identity.json")
    if not file.is_file() or not record.is_file():
        raise UserError(f"--table {given}: no table is published there; e.g. results/table2.csv")
    outputs = [str(file.with_suffix(f".{suffix}")) for suffix in SUFFIXES]
    if not is_current(str(record), str(read_record(str(record)).get("identity")), outputs):
        raise UserError(
            f"--table {given}: is not what was made of the runs that are here; `snakemake` makes it anew"
        )
    return file.stem, file
