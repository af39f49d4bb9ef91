"""`longtail init`: look at a user's pictures, check them, and write settings that suit them.

What is chosen and why stands beside each value in the file; docs/how-to/own-pictures.md has the rules.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from longtail.data import file_changes, manifest
from longtail.data.check_command import remember
from longtail.data.groupings import NEAR
from longtail.data.held_out import trained
from longtail.data.lists import some
from longtail.errors import UserError
from longtail.orchestration.pipeline import under_dvc
from longtail.orchestration.planner import plan
from longtail.own_pictures import check, time_estimate
from longtail.own_pictures.checked import Checked
from longtail.own_pictures.choices import (
    METHODS,
    choose_groups,
    choose_heads,
    choose_held_out,
    choose_schedule,
    passes,
)
from longtail.own_pictures.place import next_steps, project, usable
from longtail.own_pictures.planned_parts import planned_parts
from longtail.own_pictures.problems import Demands
from longtail.own_pictures.settings_text import duration, from_scratch, pretrained, settings_text
from longtail.own_pictures.start import Start, start
from longtail.own_pictures.weights import choose_weights
from longtail.runs.steps import STEPS
from longtail.runs.store import write_text
from longtail.settings.data import CsvData, FolderData, HeldOut, Pictures
from longtail.settings.datasets import DATASETS
from longtail.settings.params import Params
from longtail.settings.published import Groups
from longtail.settings.split import Validation

PARTED = "near-duplicates are not kept on one side, so that copies of training pictures may be tested"
RESERVED = {*STEPS, *DATASETS, "figures", "models", "splits", "sweeps", "report", "params"}


def init(
    given: str,
    name: str | None,
    to: str | None,
    minutes: float | None = None,
    root: str | None = None,
    untested: bool = False,
    weights: str | None = None,
    scratch: bool = False,
) -> Path:
    """Check a folder or a table of pictures and write its settings file; the file.

    Where the workflow is in another folder, all is written there, and what to type next begins with `cd`.

    Args:
        given: the folder, or a CSV file.
        name: of the dataset; None: that of the folder or file.
        to: the settings file; None: NAME.yaml.
        minutes: that all may take; None: 3 with published weights, 12 from random ones.
        root: to which the paths of a CSV file are relative; None: its own folder.
        untested: whether classes with too few pictures to test are trained on.
        weights: to begin with (`longtail.own_pictures.weights`); None: look for some.
        scratch: whether to begin with random weights.

    Raises:
        UserError: if the file is there, there are too few classes or pictures, or weights that were asked for
            are not to be had.
    """
    if minutes is not None and not 0 < 60 * minutes < inf:
        raise UserError(f"--minutes {minutes:g}: should be above 0 and finite")
    if scratch and weights is not None:
        raise UserError("--from-scratch begins with random weights; leave --weights out, or --from-scratch")
    stood = Path.cwd()
    place = project()
    elsewhere = stood != place
    path, below, file = (_seen(text, stood, place) for text in (given, root, to))
    assert path is not None
    begun = start(path, below)
    weights = _weights_seen(weights, stood, place)
    dataset = _dataset(name, path)
    file = file or Path(f"{dataset}.yaml")
    usable(file)
    os.chdir(place)
    _absent(file)
    first = begun.data
    _own_name(dataset, Path(first.root))
    official = "validation" in begun.parts
    validation = Validation(source="official" if official else "holdout")
    checked = check.check(dataset, Demands(first, validation, Groups(), natural=True))
    counts = Counter(label for path, label in checked.parts["train"] if path not in checked.broken)
    _enough(path, checked, counts, begun, untested, elsewhere)
    held = None if "test" in begun.parts else _held_out(counts, untested)
    left = {label: trained(count, held, validation) for label, count in counts.items()}
    groups, groups_why = choose_groups(list(left.values()))
    used = [entry for entry in checked.entries if not entry.trouble]
    sides = [min(entry.width, entry.height) for entry in used]
    files = [Path(first.root) / entry.path for entry in used]
    pictures = sum(left.values())
    images, training, seconds = _training(
        files, pictures, len(checked.entries) - pictures, median(sides), minutes, weights, scratch
    )
    parted = ""
    if held is not None:
        held, parted = _kept_together(dataset, first, held, checked, untested)
    own = first.model_copy(
        update={
            "held_out": held,
            "broken": "skip" if checked.broken else "stop",
            "images": images,
        }
    )
    again = check.check(dataset, Demands(own, validation, groups, natural=True))
    checked = replace(again, read=checked.read, seconds=checked.seconds)
    check.write(checked)
    print(check.summary(checked, begun.taken, absolute=elsewhere))
    text = settings_text(dataset, own, begun, checked, left, groups, groups_why, parted, training)
    results = _verify(text, file)
    _absent(file)  # still, after minutes
    write_text(file, text)
    remember(dataset, file)
    steps = "\n".join(f"  {step}" for step in next_steps(stood, file, results))
    shown = place / file if elsewhere else file
    print(f"weights: {training['said']}")
    if parted:
        print(f"test pictures: {parted}")
    print(f"\nsettings: {shown}, about {duration(seconds)} in all on this machine. Next:\n{steps}")
    print(under_dvc(file))
    return file


def _training(
    files: Sequence[Path],
    pictures: int,
    others: int,
    side: float,
    minutes: float | None,
    asked: str | None,
    scratch: bool,
) -> tuple[Pictures, dict[str, Any], float]:
    """How to train: what is seen of a picture, what the settings file says of it, and seconds in all.

    Args:
        files: of all usable pictures.
        pictures: to train on.
        others: validation and test images.
        side: median of the pictures' shorter sides in pixels.
        minutes, asked, scratch: as the user says.
    """
    if not scratch:
        time = 3.0 if minutes is None else minutes
        machine = time_estimate.measured(files, 224)
        found = choose_weights(
            asked, time_estimate.forward_seconds, 60 * time, passes(pictures, others, 1, machine)
        )
        if found is not None:
            heads = choose_heads(machine, found, pictures, others, METHODS, time)
            said = pretrained(heads, found, machine, time)
            return Pictures(), said, heads.seconds
    why = "as asked for" if scratch else "no published weights are here, and no network to have them from"
    time = 12.0 if minutes is None else minutes
    machine = time_estimate.measured(files, 96)
    schedule = choose_schedule(machine, pictures, others, side, time)
    said = from_scratch(schedule, machine, pictures, side, time, why)
    return Pictures(size=schedule.size), said, schedule.seconds


def _absent(file: Path) -> None:
    if os.path.lexists(file):
        raise UserError(f"{file}: is there already; --to FILE writes another one, or move it away")


def _own_name(dataset: str, root: Path) -> None:
    """Refuse the name of another collection, whose check would be replaced."""
    other = file_changes.checked_root(dataset)
    if other is not None and other != root.expanduser().resolve() and manifest.file_of(dataset).is_file():
        raise UserError(
            f"{dataset}: is the name of the pictures in {other}; --name NAME gives these a name of their own "
            f"(where they are the same, moved, delete {manifest.file_of(dataset).parent} first)"
        )


def _seen(text: str | None, stood: Path, place: Path) -> Path | None:
    """A path as it is named from the folder of the workflow: as it was typed where one stands there."""
    if text is None:
        return None
    path = Path(text).expanduser()
    return path if stood == place else stood / path


def _weights_seen(weights: str | None, stood: Path, place: Path) -> str | None:
    """ARCHITECTURE=FILE with the file as it is named from the folder of the workflow; all else as it is."""
    architecture, is_file, text = (weights or "").partition("=")
    return f"{architecture}={_seen(text, stood, place)}" if is_file and text else weights


def _held_out(counts: Mapping[str, int], untested: bool) -> HeldOut:
    """As the smallest class allows; of those that are trained on untested nothing is asked."""
    enough = [count for count in counts.values() if count > 1]
    held = choose_held_out(min(enough))
    few = untested and len(enough) < len(counts)
    return held.model_copy(update={"untested": True}) if few else held


def _kept_together(
    dataset: str, data: FolderData | CsvData, held: HeldOut, checked: Checked, untested: bool
) -> tuple[HeldOut, str]:
    """Test pictures with near-duplicates on one side, and "" or why they are not.

    A class that is nothing but copies of one picture can be tested only with a copy of what it learnt from;
    where such classes may be left untested, they are.
    """
    if not checked.near:
        return held, ""
    together = held.model_copy(update={"groups": NEAR})
    open_to = together.model_copy(update={"untested": True})

    def planned(wanted: HeldOut) -> dict[str, str] | None:
        grouped = replace(checked.demands, data=data.model_copy(update={"held_out": wanted}))
        try:
            return planned_parts(dataset, grouped, checked.parts, checked.broken)
        except UserError:
            return None

    if planned(together) is not None:
        return together, ""
    found = planned(open_to)
    if untested and found is not None:
        return open_to, ""
    if found is None:
        return held, f"{PARTED}: else no class could be tested"
    labels = dict(checked.parts["train"])
    alone = sorted(set(labels.values()) - {labels[path] for path, part in found.items() if part == "test"})
    names = ", ".join(alone[: manifest.SHOWN])
    return (
        held,
        f"{PARTED}: else {some(len(alone), 'class')} ({names}) would have none, which --untested allows",
    )


def _dataset(name: str | None, path: Path) -> str:
    """The name of the dataset: as given, else the folder's or the table's in small letters."""
    if name is None:
        whole = path.resolve()
        own = whole.name if path.is_dir() else whole.stem
        name = re.sub(r"[^a-z0-9_.-]+", "-", own.lower()).strip("-_.") or "pictures"
        return f"{name}-pictures" if name in RESERVED else name
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) or name in RESERVED:
        raise UserError(
            f"--name {name}: a name is made of small letters, digits, '_', '.', '-', begins with a letter or "
            "digit, and is no name of a published dataset or of a folder of results"
        )
    return name


def _enough(
    path: Path,
    checked: Checked,
    usable: Mapping[str, int],
    begun: Start,
    untested: bool,
    elsewhere: bool,
) -> None:
    tested = "test" in begun.parts
    least = 1 if tested or untested else 2
    names = sorted({label for _, label in checked.parts["train"]})
    few = [name for name in names if usable.get(name, 0) < least]
    strange = sorted({label for rows in checked.parts.values() for _, label in rows} - set(names))
    if len(names) < 2:
        raise UserError(
            f"{path}: found {some(len(names), 'class')}; at least two are needed, each in a folder of its own"
        )
    if few or strange:
        check.write(checked)
        file = manifest.file_of(checked.dataset).with_name("report.md")
        file = file.resolve() if elsewhere else file
        shown = ", ".join((few or strange)[: manifest.SHOWN])
        where = begun.parts["train"] if isinstance(begun.data, FolderData) else begun.data.file
        what = (
            f"no training picture, but others: add some to {where}, or remove them"
            if not few
            else "no usable picture: mend, merge or remove them"
            if least == 1
            else "fewer than 2 usable pictures (one to test, one to train on): merge or remove them, "
            "or train on them untested by --untested"
        )
        raise UserError(f"{path}: {some(len(few or strange), 'class')} ({shown}) with {what}; see {file}")
    if not tested and not any(count > 1 for count in usable.values()):
        raise UserError(f"{path}: no class has a second picture, so that nothing can be tested; add some")


def _verify(text: str, file: Path) -> str:
    """Read the settings as the workflow will, and plan its runs; the folder of its results.

    Raises:
        UserError: if they cannot be, e.g. for the file's name, after which results are called.
    """
    temporary = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        temporary.write_text(text, "utf-8")
        params = Params.load(temporary)
        return plan(params, file).results
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from None
    except UserError as error:
        raise UserError(str(error).replace(str(temporary), str(file))) from None
    finally:
        temporary.unlink(missing_ok=True)
