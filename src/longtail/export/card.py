"""The model card of an exported model, README.md."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
from torch import Tensor

from longtail.data.held_out import validation_words
from longtail.export.folder import Description
from longtail.export.front_matter import front_matter
from longtail.export.temperature import negative_log_likelihood
from longtail.metrics import expected_calibration_error, group_accuracy
from longtail.rendering import environment
from longtail.settings.frozen_features import PublishedTrunk
from longtail.settings.phases import phases
from longtail.settings.published import Groups
from longtail.settings.recipe import Recipe, StageOneSettings
from longtail.settings.split import SplitSettings

FEW_IMAGES = 100  # test images of a class; with fewer the card says how few


def card(
    description: Description,
    records: Mapping[str, dict[str, Any]],
    metrics: Mapping[str, Any],
    counts: pd.DataFrame,
    predictions: Mapping[str, Tensor],
    groups: Groups,
    licence: str | None = None,
) -> str:
    """The card as Markdown, with a head for model hubs.

    Args:
        description: model.json as it is written.
        records: run.json of each step.
        metrics: metrics.json of stage two.
        counts: counts.csv of the split.
        predictions: logits and labels of the test images, from the run.
        groups: where many ends and few begins.
        licence: of the model, as hubs name it; None: not known.
    """
    test = metrics["test"]
    split = SplitSettings.model_validate(records["split"]["settings"])
    stage_one = StageOneSettings.model_validate(records["stage_one"]["settings"])
    columns = {part: counts[part].tolist() for part in ("train", "validation", "test")}
    logits, labels = predictions["logits"], predictions["labels"]
    calibration = description.origin["calibration"]
    per_class = zip(counts.to_dict("records"), test["per_class"], strict=True)
    fewest = min((n for n in columns["test"] if n), default=0)
    shares = group_accuracy(
        test["per_class"],
        test["per_class_n"],
        columns["train"],
        many_above=groups.many_above,
        few_below=groups.few_below,
    )
    after = _calibrated(logits, labels, description.temperature)
    measured = {**test, **shares, "expected_calibration_error": after["error"]}
    pages = environment("export/templates")
    pages.globals.update(percent=_percent, escape=_escape)
    dataset = description.origin["dataset"]
    head = front_matter(description.name, dataset, measured, licence)
    return head + pages.get_template("README.md").render(
        d=description,
        dataset=dataset,
        licence=licence,
        totals={part: sum(column) for part, column in columns.items()},
        largest=max(columns["train"]),
        smallest=min(columns["train"]),
        imbalance=_words(split.imbalance.resolved()),
        recipe=records["stage_one"]["run"],
        phases=_training(stage_one.recipe, records),
        weights=records["stage_one"]["facts"].get("pretrained"),
        seed_one=stage_one.seed,
        network=_words(description.network),
        method=_words(records["stage_two"]["settings"]["method"]),
        seed_two=records["stage_two"]["settings"]["seed"],
        channels={1: "grey", 3: "RGB"}[description.channels],
        test=test,
        selection=f"Validation images: {validation_words(split.validation)}.",
        groups=shares,
        many=groups.many_above,
        few=groups.few_below,
        calibration=calibration,
        before=_calibrated(logits, labels, 1.0),
        after=after,
        classes=[{**row, "accuracy": accuracy} for row, accuracy in per_class],
        few_images=fewest if fewest < FEW_IMAGES else 0,
        data_files=[
            (name, digest) for name, digest in description.origin["data"].items() if name != "identity"
        ],
        runs=[(step, run) for step, run in description.origin["runs"].items() if step != "acquire"],
        device=records["stage_one"]["facts"].get("device", "unknown"),
        precision=records["stage_one"]["facts"].get("precision", "unknown"),
        versions=", ".join(
            f"{name} {version}" for name, version in description.origin["packages"].items() if version
        ),
        checks=description.origin["checks"],
    )


def _training(recipe: Recipe | PublishedTrunk, records: Mapping[str, dict[str, Any]]) -> list[str]:
    """What was trained before the classifier, phase by phase; of a trunk as published its head alone."""
    if isinstance(recipe, PublishedTrunk):
        head = records.get("head", records["stage_two"])["settings"]["method"]
        length = f"{head['epochs']} epochs with loss {_words(head['loss'])}"
        return [f"not trained; its head on frozen features for {length}"]
    return [
        f"{phase.schedule.words} with loss {_words(phase.loss.resolved())}"
        for phase in phases(recipe)
        if phase.loss
    ]


def _calibrated(logits: Tensor, labels: Tensor, temperature: float) -> dict[str, float | None]:
    return {
        "error": expected_calibration_error(logits.double() / temperature, labels),
        "loss": negative_log_likelihood(logits, labels, temperature),
    }


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _words(block: Mapping[str, Any]) -> str:
    """A block of settings in one line: its name or profile, then what it is set to."""
    rest = {key: value for key, value in block.items() if key not in ("name", "profile")}
    head = str(block.get("name") or block.get("profile"))
    return head + (f" ({', '.join(f'{key} {_value(value)}' for key, value in rest.items())})" if rest else "")


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if isinstance(value, list | bool) or value is None else str(value)
