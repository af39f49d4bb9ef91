"""`longtail init`: look at a user's folder of pictures, check them, and write settings that suit them.

What is chosen and why stands beside each value in the file; docs/how-to/own-pictures.md has the rules.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from longtail.data import file_changes, manifest
from longtail.data.held_out import trained
from longtail.data.lists import some
from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.own_pictures import check, time_estimate
from longtail.own_pictures.checked import Checked
from longtail.own_pictures.choices import (
    CLASSIFIERS,
    LEAST,
    LONG,
    MOST,
    RECIPES,
    Schedule,
    choose_batch_size,
    choose_groups,
    choose_held_out,
    choose_schedule,
)
from longtail.own_pictures.layout import Layout, layout
from longtail.own_pictures.problems import Demands
from longtail.own_pictures.time_estimate import Machine
from longtail.rendering import environment
from longtail.runs.steps import STEPS
from longtail.runs.store import write_text
from longtail.settings.data import FolderData, HeldOut, Pictures
from longtail.settings.datasets import DATASETS
from longtail.settings.params import Params
from longtail.settings.published import Groups
from longtail.settings.split import Validation

RESERVED = {*STEPS, *DATASETS, "figures", "models", "splits", "sweeps", "report", "params"}


def init(folder: str, name: str | None, to: str | None, minutes: float) -> Path:
    """Check a folder and write its settings file; the file.

    Raises:
        UserError: if the file is there, or the folder has too few classes or pictures.
    """
    if not minutes > 0:
        raise UserError(f"--minutes {minutes:g}: should be above 0")
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(
            f"{folder}: {'is no folder' if root.exists() else 'is not there'}; name one of pictures"
        )
    dataset = _dataset(name, root)
    file = Path(to or f"{dataset}.yaml")
    if os.path.lexists(file):
        raise UserError(f"{file}: is there already; --to FILE writes another one, or move it away")
    found = layout(file_changes.picture_files(root))
    first = FolderData(
        root=str(root),
        classes=found.classes,
        train=found.train,
        validation=found.validation,
        test=found.test,
        broken="skip",
    )
    validation = Validation(source="official" if found.validation else "holdout")
    checked = check.check(dataset, Demands(first, validation, Groups(), natural=True))
    usable = Counter(label for path, label in checked.parts["train"] if path not in checked.broken)
    _enough(root, checked, usable, found)
    held = None if found.test else choose_held_out(min(usable.values()))
    left = {label: trained(count, held, validation) for label, count in usable.items()}
    groups, groups_why = choose_groups(list(left.values()))
    used = [entry for entry in checked.entries if not entry.trouble]
    sides = [min(entry.width, entry.height) for entry in used]
    machine = time_estimate.measured([root / entry.path for entry in used], 96)
    pictures = sum(left.values())
    schedule = choose_schedule(machine, pictures, len(checked.entries) - pictures, median(sides), minutes)
    own = first.model_copy(
        update={
            "held_out": held,
            "broken": "skip" if checked.broken else "stop",
            "images": Pictures(size=schedule.size),
        }
    )
    again = check.check(dataset, Demands(own, validation, groups, natural=True))
    checked = replace(again, read=checked.read, seconds=checked.seconds)
    check.write(checked)
    print(check.summary(checked))
    text = _settings(
        dataset, own, found, checked, left, groups, groups_why, schedule, machine, median(sides), minutes
    )
    _verify(text, file)
    write_text(file, text)
    print(
        f"\nsettings: {file}, about {_minutes(schedule.seconds)} in all on this machine. Next:\n"
        f"  snakemake --cores all --config params={file}\n"
        f"  longtail predict results/{file.stem}/models/best PICTURES"
    )
    return file


def _dataset(name: str | None, root: Path) -> str:
    """The name of the dataset: as given, else the folder's in small letters."""
    if name is None:
        name = re.sub(r"[^a-z0-9_.-]+", "-", root.resolve().name.lower()).strip("-_.") or "pictures"
        return f"{name}-pictures" if name in RESERVED else name
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) or name in RESERVED:
        raise UserError(
            f"--name {name}: a name is made of small letters, digits, '_', '.', '-', begins with a letter or "
            "digit, and is no name of a published dataset or of a folder of results"
        )
    return name


def _enough(root: Path, checked: Checked, usable: Mapping[str, int], found: Layout) -> None:
    least = 1 if found.test else 2
    names = sorted({label for _, label in checked.parts["train"]})
    few = [name for name in names if usable.get(name, 0) < least]
    strange = sorted({label for rows in checked.parts.values() for _, label in rows} - set(names))
    if len(names) < 2:
        raise UserError(
            f"{root}: has pictures of {some(len(names), 'class')}; two are the least, a folder each"
        )
    if few or strange:
        check.write(checked)
        file = manifest.file_of(checked.dataset).with_name("report.md")
        shown = ", ".join((few or strange)[: manifest.SHOWN])
        what = (
            f"fewer than {least} usable pictures (one to test, one to train on): merge or remove them"
            if few
            else f"no training picture, but others: add some to {found.train}, or remove them"
        )
        raise UserError(f"{root}: {some(len(few or strange), 'class')} ({shown}) with {what}; see {file}")


def _settings(
    dataset: str,
    data: FolderData,
    found: Layout,
    checked: Checked,
    left: Mapping[str, int],
    groups: Groups,
    groups_why: str,
    schedule: Schedule,
    machine: Machine,
    side: float,
    minutes: float,
) -> str:
    """The settings file as text."""
    pictures = sum(left.values())
    all_of = Counter(label for _, label in checked.parts["train"])
    batch_size = choose_batch_size(pictures, machine.gpu)
    held = data.held_out
    view: dict[str, Any] = {
        "name": dataset,
        "pictures": f"{sum(map(len, checked.parts.values())):,}",
        "classes": len(left),
        "largest": max(all_of.values()),
        "smallest": min(all_of.values()),
        "root": _scalar(data.root),
        "layout": found,
        "train": _scalar(data.train),
        "validation_folder": _scalar(data.validation or ""),
        "test_folder": _scalar(data.test or ""),
        "held_out": "" if held is None else _flow(held.resolved()),
        "held_why": _held_why(held, min(all_of.values())),
        "broken": data.broken,
        "broken_why": f"left out: {some(len(checked.broken), 'file')} of no use, "
        f"see data/checked/{dataset}/report.md"
        if checked.broken
        else "all files can be read; one that no longer can is not passed over",
        "size": schedule.size,
        "size_why": f"in pixels; the pictures' shorter side is {side:g} in the median, "
        + ("and 224 is ImageNet's" if schedule.size == 224 else "less is for the time there is"),
        "validation": "official" if data.validation else "{source: holdout, share: 0.1}",
        "validation_why": "the dataset's own, by which tau and confidences are chosen"
        if data.validation
        else "a tenth of each class's training pictures, by which tau and confidences are chosen",
        "seeds": list(range(schedule.seeds)),
        "seeds_why": "three trainings, for a mean and a spread"
        if schedule.seeds > 1
        else "one, for the time there is; [0, 1, 2] gives a mean and a spread in three times as long",
        "groups": groups,
        "groups_why": groups_why,
        "architecture": schedule.architecture,
        "architecture_why": "pretrained: "
        + (
            "the path of weights of your own, if there are any; torchvision has none of resnet10"
            if schedule.architecture == "resnet10"
            else "torchvision begins with ImageNet's weights, which are downloaded; a path with your own"
        ),
        "batch_size": batch_size,
        "batch_why": f"about {-(-pictures // batch_size)} steps an epoch",
        "epochs": schedule.epochs,
        "epochs_why": f"as many as fit into {minutes:g} minutes"
        if LEAST < schedule.epochs < MOST
        else f"the most that is of use from such a start; {minutes:g} minutes allow them"
        if schedule.epochs == MOST
        else f"the least; {minutes:g} minutes allow fewer",
        "peak": f"{0.1 * batch_size / 128:g}",
        "warmup": max(1, round(schedule.epochs / 20)),
        "evaluate_every": max(1, round(schedule.epochs / 10)),
        "crop": 0.08 if schedule.epochs >= LONG else 0.25,
        "crop_why": "a part of the picture of at least this share; "
        + ("ImageNet's" if schedule.epochs >= LONG else "ImageNet's 0.08 is for longer trainings"),
        "randaugment": schedule.epochs >= LONG,
        "views": schedule.views,
        "views_why": "augmented views an image that classifiers learn from"
        + ("; 10 where there is a GPU" if schedule.views < 10 else ""),
        "k": 2 if len(left) > 4 else 1,
        "tail_max": groups.many_above,
        "expected": f"about {_minutes(schedule.seconds)} for everything on this machine "
        f"({machine.name}, {some(machine.cores, 'core')})",
        "how": f"Estimated: {_measured(machine)}; one epoch {schedule.epoch:.1f} s,\n"
        f"# {RECIPES * schedule.seeds} trainings, {'one after the other' if machine.gpu else 'one a core'}, "
        f"then features and {CLASSIFIERS * schedule.seeds} classifiers (src/longtail/time_estimate.py).",
    }
    return environment("own_pictures/templates").get_template("settings.yaml").render(view).rstrip() + "\n"


def _measured(machine: Machine) -> str:
    return (
        f"training was measured at {2 * machine.gmacs:.0f} GFLOP/s a run, decoding at "
        f"{1 / max(machine.decoding, 1e-6):.0f} pictures a second and core"
    )


def _held_why(held: HeldOut | None, smallest: int) -> str:
    if held is None:
        return ""
    if held.per_class is not None:
        return f"test images, as many of every class, a third of the smallest at most, which has {smallest}"
    return (
        f"test images, a fifth of every class; the smallest has {smallest}, too few to give as many as others"
    )


def _scalar(text: str) -> str:
    """Text as YAML on one line, quoted where it has to be."""
    written = yaml.safe_dump(text, allow_unicode=True, width=10**6).removesuffix("\n").removesuffix("\n...")
    return written if "\n" not in written else yaml.safe_dump(text, default_style='"', width=10**6).strip()


def _flow(block: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in block.items() if value is not None}
    return "{" + ", ".join(f"{key}: {value}" for key, value in kept.items()) + "}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _verify(text: str, file: Path) -> None:
    """Read the settings as the workflow will, and plan its runs.

    Raises:
        UserError: if they cannot be, e.g. for the file's name, after which results are called.
    """
    temporary = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        temporary.write_text(text, "utf-8")
        params = Params.load(temporary)
        plan(params, file)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from None
    except UserError as error:
        raise UserError(str(error).replace(str(temporary), str(file))) from None
    finally:
        temporary.unlink(missing_ok=True)
