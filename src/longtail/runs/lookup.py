"""Find finished runs by name or by identity, wherever they stand: results/, results/NAME/, the store."""

import json
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail.errors import UserError
from longtail.runs import store
from longtail.runs.steps import step_of

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 12  # candidates that an error names
PLACES = {
    "acquire": ("data/raw/*",),
    "split": ("data/splits/*", "data/splits/*/*", "results/*/splits/*"),
}


@dataclass(frozen=True)
class Finished:
    """A finished run of stage two with all that it is built on.

    Attributes:
        name: of the run of stage two, or of features.
        folders: verified folders by step: stage_two, features, stage_one, split, acquire; and `head`, another
            run of stage two, where the trunk is as it was published.
        records: run.json of each.
    """

    name: str
    folders: dict[str, Path]
    records: dict[str, dict[str, Any]]

    def counts(self) -> "pd.DataFrame":
        """counts.csv of the split: label, name, train, validation and test of each class, a row a class."""
        from longtail.runs.frames import read_frame  # imports pandas

        return read_frame(self.folders["split"] / "counts.csv")

    def metrics(self) -> dict[str, Any]:
        """metrics.json of the run of stage two."""
        return dict(json.loads((self.folders["stage_two"] / "metrics.json").read_text("utf-8")))


def find(step: str, run: str, identity: str, inputs: Mapping[str, Any] | None = None) -> Path | None:
    """A finished, undamaged run of this identity in the store, under any label; None if there is none.

    Args:
        step, run, identity: of the run.
        inputs: records of what it is built on, by step; one that was computed from another computation of
            these, on an unlike machine, is passed over.
    """
    shelf = store.stored(step, run).parent
    for folder in chain([shelf / run], shelf.glob(f"[!.]*-{identity[:8]}")):
        if (looked_at := _inode(folder / "run.json")) is None:
            continue
        try:
            if store.record(folder)["identity"] != identity:
                continue  # another run whose hash begins with the same digits
            found = store.verify(folder, identity)
        except UserError as error:
            if _inode(folder / "run.json") == looked_at:
                _set_aside(folder, error)
            continue
        if inputs and built_on_others(found, inputs):
            continue
        return folder
    return None


def _inode(file: Path) -> tuple[int, int] | None:
    """Which file stands at a path, as against what it says; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _set_aside(folder: Path, error: UserError) -> None:
    """Rename a stored run that was edited through a hard link: of no use, but not ours to delete."""
    aside = folder.with_name(f".damaged-{folder.name}")
    with suppress(OSError):  # of a reader that was quicker
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        print(f"{error} (the stored copy; set aside as {aside})", file=sys.stderr, flush=True)


def built_on_others(found: Mapping[str, Any], inputs: Mapping[str, dict[str, Any]]) -> str:
    """Which input of a run is another computation than the one it was built on; empty if none is.

    Two computations of one run may differ on unlike machines (precision, batch normalisation, device, library
    versions). A record says what it was built on by a digest of its outputs; records of old runs do not.

    Args:
        found: run.json of the run.
        inputs: run.json of what it is built on, by step, as far as it is here.
    """
    for step, made in found.get("built_on", {}).items():
        if step in inputs and made != store.outputs_digest(inputs[step]):
            here = inputs[step]
            facts = here.get("facts", {})
            known = {key: str(facts[key]) for key in ("precision", "batch_norm", "device") if key in facts}
            if "batch_norm" in known:
                known["precision"] = f"{known.get('precision', '')}, batch_norm {known.pop('batch_norm')}"
            where = " on ".join(known.values())
            return (
                f"{found['run']} ({found['step']}) was computed from another computation of {here['run']} "
                f"than the one that is here ({where or 'of unknown origin'})"
            )
    return ""


def mixed(records: Mapping[str, dict[str, Any]]) -> str:
    """Which of the runs that make a result was not built on those beside it; empty if all were.

    Args:
        records: run.json by step. A run of stage one is that of the last phase, whose own input is none of
            these.
    """
    for step, found in records.items():
        others = {other: record for other, record in records.items() if other != step}
        if wrongly := built_on_others(found, others):
            return wrongly
    return ""


def input_records(planned: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """run.json of what a planned run is built on, by key, as far as it is here; nothing is verified."""
    found = {}
    for key, reference in planned["inputs"].items():
        for folder in (Path(reference["folder"]), store.stored(step_of(key), reference["run"])):
            with suppress(UserError):
                found[key] = store.record(folder)
                break
    return found


def locate(step: str, reference: dict[str, str]) -> Path:
    """The verified folder of a finished run: its results folder, else its place in the store.

    Where both hold the same files it is the store's, in which Snakemake deletes nothing: a second one clears
    the results folder of a run before it asks for it.

    Raises:
        UserError: if it is damaged or nowhere.
    """
    folder, kept = Path(reference["folder"]), store.stored(step, reference["run"])
    replaced = False
    with suppress(UserError):  # a dataset's folder has no more than its name
        replaced = step == "acquire" and store.record(folder)["identity"] != reference["identity"]
    if (folder / "run.json").is_file() and not replaced:
        try:
            outputs = store.verify(folder, reference["identity"])["outputs"]
        except UserError:
            if (folder / "run.json").is_file():
                raise
        else:
            same = all(_inode(folder / name) == _inode(kept / name) for name in ("run.json", *outputs))
            return kept if same else folder
    if found := find(step, reference["run"], reference["identity"]):
        return found
    if replaced:
        raise UserError(
            f"{folder}: is of other settings with a dataset of this name now; type the command again when "
            "theirs has ended, or give one of the two datasets another name"
        )
    raise UserError(f"{folder}: not there; the command that made or planned it brings it back")


def acquired(raw: Path) -> dict[str, Any]:
    """Settings of a finished acquisition, with the place of its files on this machine: as planned last.

    Args:
        raw: the finished run of acquisition.
    """
    found = store.record(raw)
    if (store.PLANNED / "acquire" / f"{raw.name}.json").is_file():
        planned = store.read_plan("acquire", raw.name)
        # another settings file may have another dataset of this name
        found = planned if planned["identity"] == found["identity"] else found
    return dict(found["settings"])


def pictures_root(raw: Path) -> Path | None:
    """The folder of a dataset's picture files on this machine; None where images are in the run itself.

    Args:
        raw: the finished run of acquisition.

    Raises:
        UserError: if the folder is not there.
    """
    if (files := acquired(raw).get("files")) is None:
        return None
    root = Path(files["root"]).expanduser()
    if not root.is_dir():
        raise UserError(
            f"{root}: the pictures of {raw.name} are not there; set data.root to where they are now"
        )
    return root


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
    return complete(_only("stage_two", given))


def named_features(given: str) -> Finished:
    """The same of a run of features; its folders are features, split and acquire.

    Raises:
        UserError: if there is none or more than one, or something it is built on is damaged or missing.
    """
    folder = _only("features", given)
    records = {"features": store.verify(folder, store.record(folder)["identity"])}
    folders = {"features": folder}
    for step in ("split", "acquire"):
        identity = _input(step, folder, records["features"])
        folders[step] = _identified(step, identity, records)
        records[step] = store.verify(folders[step], identity)
    return Finished(folder.name, folders, records)


def _only(step: str, given: str) -> Path:
    """The folder of the finished run of a name, or of a beginning that only one has."""
    wanted = Path(given).name
    folders: dict[str, Path] = {}
    for folder in _standing(step):
        folders.setdefault(folder.name, folder)
    fitting = sorted(name for name in folders if name.startswith(wanted)) if wanted else []
    if wanted in folders:
        fitting = [wanted]
    if len(fitting) != 1:
        raise UserError(_choose(step.replace("_", " "), given, fitting, sorted(folders)))
    return folders[fitting[0]]


def _choose(step: str, given: str, fitting: list[str], there: list[str]) -> str:
    if fitting:
        return f"{given}: {len(fitting)} finished runs begin so: {_some(fitting)}; name one of them"
    if there:
        return f"{given}: no finished run of {step} begins so; there are {_some(there)}"
    return f"{given}: no run of {step} is finished here; `make demo` or `snakemake` makes some"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def complete(folder: Path) -> Finished:
    """The finished run of stage two in a folder, with all that it is built on.

    Raises:
        UserError: if it, or something it is built on, is damaged or missing.
    """
    records = {"stage_two": store.verify(folder, store.record(folder)["identity"])}
    folders = {"stage_two": folder}
    for step, built_on in (
        ("features", "stage_two"),
        ("split", "features"),
        ("stage_one", "features"),
        ("acquire", "features"),
    ):
        identity = _input(step, folders[built_on], records[built_on])
        folders[step] = _identified(step, identity, records)
        records[step] = store.verify(folders[step], identity)
    if isinstance(head := records["stage_two"]["inputs"].get("stage_two"), str):
        folders["head"] = _identified("stage_two", head, records)
        records["head"] = store.verify(folders["head"], head)
    if records["stage_two"]["inputs"].get("split") != records["split"]["identity"]:
        raise UserError(f"{folder / 'run.json'}: its features are of another split")
    return Finished(folder.name, folders, records)


def _input(step: str, folder: Path, record: Mapping[str, Any]) -> str:
    """The identity of what a run is built on."""
    identity = record.get("inputs", {}).get(step)
    if not isinstance(identity, str):
        raise UserError(f"{folder / 'run.json'}: does not say which {step} it is built on")
    return identity


def _identified(step: str, identity: str, records: dict[str, dict[str, Any]]) -> Path:
    """Where a run of an identity stands: undamaged, and the computation on which the others were built."""
    damaged = wrongly = ""
    for folder in _standing(step):
        if step != "acquire" and not folder.name.endswith(f"-{identity[:8]}"):
            continue
        try:
            if store.record(folder)["identity"] == identity:
                found = store.verify(folder, identity)
                if not (other := mixed({**records, step: found})):
                    return folder
                wrongly = other
        except UserError as error:
            damaged = damaged or str(error)
    if damaged or wrongly:
        raise UserError(damaged or wrongly)
    asking = next(iter(records.values()))["run"]
    raise UserError(
        f"{asking}: the {step} run that it is built on ({identity[:8]}) is not here; "
        f"`dvc pull` or the command that made the table brings it back"
    )
