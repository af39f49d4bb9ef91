"""The text of the settings file that `longtail init` writes: a value and its reason beside each other."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from longtail.data.lists import some
from longtail.own_pictures.checked import Checked
from longtail.own_pictures.choices import (
    CLASSIFIERS,
    LEAST,
    LONG,
    MOST,
    RECIPES,
    TUNED_EPOCHS,
    Heads,
    Schedule,
    choose_batch_size,
)
from longtail.own_pictures.layout import one_line
from longtail.own_pictures.start import Start
from longtail.own_pictures.time_estimate import Machine
from longtail.own_pictures.weights import Weights
from longtail.rendering import environment
from longtail.settings.data import CsvData, FolderData, HeldOut
from longtail.settings.published import Groups
from longtail.settings.reading import parse


def settings_text(
    dataset: str,
    data: FolderData | CsvData,
    begun: Start,
    checked: Checked,
    left: Mapping[str, int],
    groups: Groups,
    groups_why: str,
    parted: str,
    training: Mapping[str, Any],
) -> str:
    """The settings file as text.

    Args:
        dataset, data: what it is about.
        begun: how the folder or table was understood.
        checked: what is in it.
        left: training pictures of each class.
        groups: where many ends and few begins.
        groups_why: in words.
        parted: why near-duplicates are on both sides, in words; "" where they are not.
        training: what `from_scratch` or `pretrained` says.
    """
    all_of = Counter(label for _, label in checked.parts["train"])
    held = data.held_out
    view: dict[str, Any] = {
        "name": scalar(dataset),
        "plain_name": dataset,
        "pictures": f"{sum(map(len, checked.parts.values())):,}",
        "classes": len(left),
        "largest": max(all_of.values()),
        "smallest": min(all_of.values()),
        "root": scalar(data.root),
        "data": data,
        "begun": begun,
        "parts": {part: scalar(folder) for part, folder in begun.parts.items()},
        "file": scalar(getattr(data, "file", "")),
        "held_out": "" if held is None else _flow(held.resolved(hashed=True)),
        "held_why": _held_why(held, all_of),
        "parted": one_line(parted),
        "together": some(len(checked.near), "group"),
        "broken": data.broken,
        "broken_why": f"left out: {some(len(checked.broken), 'file')} of no use, "
        f"see data/checked/{dataset}/report.md"
        if checked.broken
        else "all files can be read; one that no longer can is not passed over",
        "validation": "official" if "validation" in begun.parts else "{source: holdout, share: 0.1}",
        "validation_why": "the dataset's own, by which tau and confidences are chosen"
        if "validation" in begun.parts
        else "a tenth of each class's training pictures, by which tau and confidences are chosen",
        "groups": groups,
        "groups_why": groups_why,
        "k": 2 if len(left) > 4 else 1,
        "tail_max": groups.many_above,
        **training,
    }
    return environment("own_pictures/templates").get_template("settings.yaml").render(view).rstrip() + "\n"


def from_scratch(
    schedule: Schedule, machine: Machine, pictures: int, side: float, minutes: float, why: str
) -> dict[str, Any]:
    """What the template says of a training from random weights.

    Args:
        schedule: as chosen for the machine.
        machine: as measured.
        pictures: to train on.
        side: median of the pictures' shorter sides in pixels.
        minutes: that all may take.
        why: there are no weights to begin with, in words.
    """
    batch_size = choose_batch_size(pictures, machine.gpu)
    return {
        "training": "from_scratch.yaml",
        "said": f"random, {why}",
        "looked_at": "CE",
        "choice": "GLAG",
        "from_scratch_why": why,
        "images": f"{{size: {schedule.size}}}",
        "images_why": f"in pixels; the pictures' shorter side is {side:g} in the median, "
        + ("and 224 is ImageNet's" if schedule.size == 224 else "less is for the time there is"),
        "seeds": list(range(schedule.seeds)),
        "seeds_why": "three trainings, for a mean and a spread"
        if schedule.seeds > 1
        else "one, for the time there is; [0, 1, 2] gives a mean and a spread in three times as long",
        "architecture": schedule.architecture,
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
        "expected": _expected(schedule.seconds, machine),
        "how": f"Estimated: {_measured(machine)}; one epoch {schedule.epoch:.1f} s,\n"
        f"# {RECIPES * schedule.seeds} trainings, {'one after the other' if machine.gpu else 'one a core'}, "
        f"then features and {CLASSIFIERS * schedule.seeds} classifiers "
        "(src/longtail/own_pictures/time_estimate.py).",
    }


def pretrained(heads: Heads, weights: Weights, machine: Machine, minutes: float) -> dict[str, Any]:
    """What the template says of heads on features of published weights.

    Args:
        heads: as chosen for the machine.
        weights: that the network begins with.
        machine: as measured.
        minutes: that all may take.
    """
    network = ", ".join(f"{key}: {json.dumps(value)}" for key, value in weights.network.items())
    adapters = weights.is_transformer
    return {
        "training": "pretrained.yaml",
        "said": f"{weights.what}\n  {weights.why}; licence: {weights.licence}",
        "looked_at": "Linear head",
        "choice": "AFG",
        "images": "" if weights.size else "{size: 224}",
        "images_why": "in pixels; the weights say nothing of it",
        "seeds": list(range(heads.seeds)),
        "seeds_why": "of heads and classifiers, for a mean and a spread; all share the features",
        "network": f"{{{network}}}",
        "weights_what": weights.what,
        "weights_why": weights.why,
        "licence": weights.licence,
        "views": heads.views,
        "tuned": heads.tuned,
        "tuned_network": f"{{{network}, adapters: {{form: adaptformer}}}}" if adapters else "",
        "tuned_freeze": "all_but_adapters" if adapters else "all_but_last_stage",
        "tuned_what": "adapters in every block" if adapters else "the last stage",
        "tuned_epochs": TUNED_EPOCHS,
        "tuned_why": "there is a GPU" if machine.gpu else f"{minutes:g} minutes leave time for it",
        "expected": _expected(heads.seconds, machine),
        "how": f"Estimated: a picture takes {1000 * weights.seconds:.0f} ms in the network and "
        f"{1000 * machine.decoding:.0f} ms to decode, on one core\n"
        f"# ({'the network on the GPU' if machine.gpu else 'as measured here'}); "
        "src/longtail/own_pictures/time_estimate.py.",
    }


def _expected(seconds: float, machine: Machine) -> str:
    cores = some(machine.cores, "core")
    return f"about {duration(seconds)} for everything on this machine ({machine.name}, {cores})"


def _measured(machine: Machine) -> str:
    return (
        f"training was measured at {2 * machine.gmacs:.0f} GFLOP/s a run, decoding at "
        f"{1 / max(machine.decoding, 1e-6):.0f} pictures a second and core"
    )


def _held_why(held: HeldOut | None, counts: Mapping[str, int]) -> str:
    if held is None:
        return ""
    smallest = min(count for count in counts.values() if count > 1 or not held.untested)
    why = (
        f"test images, as many of every class, a third of the smallest at most, which has {smallest}"
        if held.per_class is not None
        else f"test images, a fifth of every class; the smallest has {smallest}, "
        "too few to give as many as others"
    )
    if held.untested:
        single = sum(count == 1 for count in counts.values())
        why += f"; {some(single, 'class')} of one picture can only be trained on"
    return why


def scalar(text: str) -> str:
    """Text as YAML on one line: as it is where a settings file reads the same back, else quoted."""
    try:
        if text and text.isprintable() and parse(f"{{a: {text}}}") == parse(f"a: {text}") == {"a": text}:
            return text
    except ValueError:
        pass
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _flow(block: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in block.items() if value is not None}
    return "{" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in kept.items()) + "}"


def duration(seconds: float) -> str:
    """Minutes, or hours from an hour and a half on."""
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
