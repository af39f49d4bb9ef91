"""Finished runs by name and by identity, wherever they stand: results/, results/NAME/, the store."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longtail import store
from longtail.errors import UserError

SHOWN = 12  # candidates that an error names
PLACES = {
    "acquire": ("data/raw/*",),
    "split": ("data/splits/*", "data/splits/*/*", "results/*/splits/*"),
}


@dataclass(frozen=True)
class Finished:
    """A finished run of stage two with all that it is built on.

    Attributes:
        name: of the run of stage two.
        folders: verified folders by step: stage_two, features, stage_one, split, acquire.
        records: run.json of each.
    """

    name: str
    folders: dict[str, Path]
    records: dict[str, dict[str, Any]]

    def counts(self) -> list[dict[str, str]]:
        """counts.csv of the split: label, name, train, validation and test of each class."""
        with (self.folders["split"] / "counts.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def metrics(self) -> dict[str, Any]:
        """metrics.json of the run of stage two."""
        return dict(json.loads((self.folders["stage_two"] / "metrics.json").read_text("utf-8")))


def _places(step: str) -> tuple[str, ...]:
    return PLACES.get(step, (f"results/{step}/*", f"results/*/{step}/*"))


def _standing(step: str) -> list[Path]:
    """Folders of finished runs, results first, the store behind them."""
    found = [folder for place in _places(step) for folder in sorted(Path().glob(place))]
    found += sorted(store.stored(step, "-").parent.glob("[!.]*"))
    return [folder for folder in found if (folder / "run.json").is_file()]


def named(given: str) -> Finished:
    """The finished run of stage two of a name, or of a beginning that only one has.

    Args:
        given: name, beginning of a name, or the run's folder.

    Raises:
        UserError: if there is none or more than one, or something it is built on is damaged or missing.
    """
    wanted = Path(given).name
    folders: dict[str, Path] = {}
    for folder in _standing("stage_two"):
        folders.setdefault(folder.name, folder)
    fitting = sorted(name for name in folders if name.startswith(wanted)) if wanted else []
    if wanted in folders:
        fitting = [wanted]
    if len(fitting) != 1:
        raise UserError(_choose(given, fitting, sorted(folders)))
    return _complete(fitting[0], folders[fitting[0]])


def _choose(given: str, fitting: list[str], there: list[str]) -> str:
    if fitting:
        return f"{given}: {len(fitting)} finished runs begin so: {_some(fitting)}; name one of them"
    if there:
        return f"{given}: no finished run of stage two begins so; there are {_some(there)}"
    return f"{given}: no run of stage two is finished here; `make demo` or `snakemake` makes some"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _complete(name: str, folder: Path) -> Finished:
    records = {"stage_two": store.verify(folder, store.record(folder)["identity"])}
    folders = {"stage_two": folder}
    for step, built_on in (
        ("features", "stage_two"),
        ("split", "features"),
        ("stage_one", "features"),
        ("acquire", "features"),
    ):
        identity = records[built_on].get("inputs", {}).get(step)
        if not isinstance(identity, str):
            raise UserError(f"{folders[built_on] / 'run.json'}: does not say which {step} it is built on")
        folders[step] = _identified(step, identity, records)
        records[step] = store.verify(folders[step], identity)
    if records["stage_two"]["inputs"].get("split") != records["split"]["identity"]:
        raise UserError(f"{folder / 'run.json'}: its features are of another split")
    return Finished(name, folders, records)


def _identified(step: str, identity: str, records: dict[str, dict[str, Any]]) -> Path:
    """Where a run of an identity stands, undamaged in one place at least."""
    damaged = ""
    for folder in _standing(step):
        if step != "acquire" and not folder.name.endswith(f"-{identity[:8]}"):
            continue
        try:
            if store.record(folder)["identity"] == identity:
                store.verify(folder, identity)
                return folder
        except UserError as error:
            damaged = damaged or str(error)
    if damaged:
        raise UserError(damaged)
    raise UserError(
        f"{records['stage_two']['run']}: the {step} run that it is built on ({identity[:8]}) is not here; "
        f"`dvc pull` or the command that made the table brings it back"
    )
