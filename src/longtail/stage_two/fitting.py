"""Stage two: a classifier on frozen features. A method is a module here, a function from features to one."""

import csv
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from longtail.data.labelled_images import read_counts
from longtail.device import describe, device, set_up
from longtail.errors import UserError
from longtail.metrics import metrics
from longtail.runs.job import Job
from longtail.runs.progress import Progress
from longtail.settings.classifier import StageTwoSettings
from longtail.settings.methods import method_module
from longtail.stage_two.classifier import FeatureData, Fitted, selection_classes, selection_score


def compute(job: Job) -> None:
    """Fit the method of `job.settings` on the features, and measure it on test and validation images.

    Writes classifier.safetensors (weight, bias, tukey, center and normalise where they are used, and the
    method's own tensors), predictions.safetensors, history.csv (a row an epoch or a value tried; no rows
    for a method that does neither) and metrics.json. A method that learns from the complete training set
    has seen the validation images, if they are training images: it is measured on test images only.
    """
    settings: StageTwoSettings = job.settings
    where = device()
    set_up(where)
    features, split = job.inputs["features"], job.inputs["split"]
    whole = getattr(settings.method.options, "reads", "") == "whole"
    data = read_features(features, split, whole, job.inputs.get("stage_two"))
    classes = len(data.class_counts)
    fit: Callable[..., Fitted] = method_module("stage_two", settings.method.name).fit
    with ExitStack() as stack:
        bars: list[Progress] = []

        def report(done: int, total: int, note: str) -> None:
            if not bars:
                bars.append(stack.enter_context(job.progress(total, "epoch")))
            bars[0].to(done, note)

        parts = {name: load_file(features / f"{name}.safetensors") for name in ("test", "validation")}
        try:
            fitted = fit(data.to(where), settings.method.options, settings.seed, report)
            logits = {name: fitted.logits(part["features"].to(where)).cpu() for name, part in parts.items()}
        except ValueError as error:
            raise UserError(f"{job.run}: {error}") from None

    test, validation = parts["test"], parts["validation"]
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in fitted.state().items()},
        job.folder / "classifier.safetensors",
    )
    save_file(
        {
            "logits": logits["test"],
            "labels": test["labels"],
            "samples": test["samples"],
            "validation_logits": logits["validation"],
            "validation_labels": validation["labels"],
        },
        job.folder / "predictions.safetensors",
    )
    measured = {
        name: metrics(logits[name], part["labels"], data.class_counts)
        for name, part in parts.items()
        if len(part["labels"]) and (name == "test" or data.whole is None)
    }
    selection = selection_classes(validation["labels"], classes)
    if "validation" in measured:
        score = selection_score(logits["validation"], validation["labels"], classes)
        measured["validation"]["selection_accuracy"] = score
    (job.folder / "metrics.json").write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
    # csv: importing pandas for a few rows would add a tenth to the start of every job of stage two
    with (job.folder / "history.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, list(fitted.history[0]) if fitted.history else ["epoch"], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(fitted.history)
    job.facts.update(
        device=describe(where),
        classes_left_out_of_selection=(~selection).nonzero().flatten().tolist(),
    )


def read_features(folder: Path, split: Path, whole: bool = False, trained: Path | None = None) -> FeatureData:
    """What the step `features` wrote, as a method reads it; features of all training images if asked.

    Args:
        folder, split: finished runs.
        whole: whether the features of all training images are read.
        trained: the run of stage two that trained the head, where the trunk is as it was published.
    """
    views, head = load_file(folder / "views.safetensors"), load_file(folder / "head.safetensors")
    validation = load_file(folder / "validation.safetensors")
    all_images = load_file(folder / "whole.safetensors") if whole else {}
    found = FeatureData(
        views=views["features"],
        view_logits=views["logits"],
        labels=views["labels"],
        class_counts=read_counts(split),
        clean=load_file(folder / "train.safetensors")["features"],
        validation=validation["features"],
        validation_labels=validation["labels"],
        head_weight=head["weight"],
        head_bias=head["bias"],
        head_normalises="normalise" in head,
        whole=all_images.get("features"),
        whole_labels=all_images.get("labels"),
    )
    return found if trained is None else with_head(found, trained)


def with_head(data: FeatureData, run: Path) -> FeatureData:
    """The same with the classifier of a finished run as stage one's head, and its logits."""
    state = load_file(run / "classifier.safetensors")
    classifier = Fitted(weight=state["weight"], bias=state["bias"], normalise="normalise" in state)
    return replace(
        data,
        view_logits=classifier.logits(data.views),
        head_weight=classifier.weight,
        head_bias=classifier.bias,
        head_normalises=classifier.normalise,
    )
