"""Who is in which part: the long-tailed training set, the validation images, the test images.

Writes a file a part (sample id, label) and counts.csv. A sample id is the index of an image in the
official order of train.safetensors, or of test.safetensors for the test part and `validation: test`, or of
validation.safetensors for `validation: official`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open

from longtail.data.imbalance import counts as counts_of
from longtail.data.whole_groups import choose
from longtail.errors import UserError
from longtail.runs.job import Job
from longtail.runs.store import record
from longtail.settings.split import SplitSettings, Validation

Indices = NDArray[np.int64]
LARGEST_SEED = 2**32 - 1


def compute(job: Job) -> None:
    """Choose the images of every part and write them down."""
    settings: SplitSettings = job.settings
    raw = job.inputs["acquire"]
    names = json.loads((raw / "classes.json").read_text("utf-8"))
    source = settings.validation.source
    if source == "official" and "validation.safetensors" not in record(raw)["outputs"]:
        raise UserError(
            f"validation: official: {settings.dataset} has no validation images of its own; use holdout"
        )
    own = ("validation",) if source == "official" else ()
    labels = {part: _labels(raw / f"{part}.safetensors") for part in ("train", "test", *own)}
    if empty := sorted(set(range(len(names))) - set(labels["train"].tolist())):
        raise UserError(
            f"{settings.dataset}: no training image of {', '.join(names[label] for label in empty)}; "
            "remove these classes or merge them into others"
        )
    parts = split(labels["train"], len(names), settings, _groups(raw / "train.safetensors"))
    test = np.arange(len(labels["test"]))
    among = {"test": "test", "official": "validation"}.get(source, "train")
    validation = parts.validation if among == "train" else np.arange(len(labels[among]))
    validation_labels = labels[among][validation]
    train_labels = labels["train"][parts.train]
    _write_part(job.folder / "train.csv", parts.train, train_labels)
    # Sample ids of `official` count in a file of their own, which a column says.
    _write_part(job.folder / "validation.csv", validation, validation_labels, *own)
    _write_part(job.folder / "test.csv", test, labels["test"])
    table = {
        "train": np.bincount(train_labels, minlength=len(names)),
        "validation": np.bincount(validation_labels, minlength=len(names)),
        "test": np.bincount(labels["test"], minlength=len(names)),
    }
    counts = pd.DataFrame({"label": range(len(names)), "name": names, **table})
    counts.to_csv(job.folder / "counts.csv", index=False, lineterminator="\n")
    job.facts.update(
        totals={part: int(column.sum()) for part, column in table.items()},
        without_validation=[names[c] for c in not_judged(table["validation"])],
    )


def not_judged(images: Indices) -> list[int]:
    """Classes that selection scores leave out, as `longtail.stage_two.classifier.selection_classes` does.

    Those without a validation image, and where at least half of the classes have as many as any, those with
    fewer; none where no class has one, so that nothing is selected.

    Args:
        images: validation images of each class, (C,).
    """
    full = images == images.max()
    enough = images.max() if 2 * full.sum() >= len(images) else 1
    return [int(label) for label in np.flatnonzero(images < enough)]


@dataclass(frozen=True)
class Chosen:
    """Indices of training images."""

    train: Indices
    validation: Indices


def split(labels: Indices, classes: int, settings: SplitSettings, groups: Indices | None = None) -> Chosen:
    """Choose training and validation images by LDAM-DRW's procedure (Cao et al. 2019).

    One legacy random state, seeded once, shuffles the ascending indices of each class in label order, and
    the first n_c stay. Validation from unused images takes the next ones of the same shuffle, a holdout
    the last ones that stayed. The rows are in LDAM-DRW's order; a natural profile keeps the official order.

    Args:
        labels: of all training images, shape (N,); every class occurs.
        classes: number of classes C.
        settings: imbalance, subset seed, validation.
        groups: name of each training image's group, shape (N,), none of which is parted between training and
            validation; None: each is for itself.

    Raises:
        UserError: if the imbalance, the seed or the validation asked for cannot be had.
    """
    if settings.subset_seed > LARGEST_SEED:
        raise UserError(f"subset_seed: {settings.subset_seed} is above {LARGEST_SEED}, numpy's largest seed")
    wanted = counts_of(settings.imbalance, np.bincount(labels, minlength=classes))
    state = np.random.RandomState(settings.subset_seed)
    train, validation, unused = [], [], []
    for label in range(classes):
        indices = np.flatnonzero(labels == label)
        state.shuffle(indices)
        kept, rest = indices[: wanted[label]], indices[wanted[label] :]
        held = _validation(settings.validation, kept, rest)
        validation.append(held)
        train.append(kept[: len(kept) - len(held)] if settings.validation.source == "holdout" else kept)
        unused.append(rest)
    chosen = Chosen(np.concatenate(train), np.concatenate(validation))
    if groups is not None:
        chosen = _regrouped(chosen, unused, labels, groups, settings.validation)
    if settings.imbalance.profile == "natural":
        chosen.train.sort()
    if settings.validation.source == "unused" and not len(chosen.validation):
        raise UserError(
            "validation: unused: the imbalance leaves no training image out; use validation: holdout"
        )
    return chosen


def _validation(validation: Validation, kept: Indices, rest: Indices) -> Indices:
    """The validation images of one class.

    A holdout is at least one image, or selection would be blind to the tail, and at least one image stays
    in training: a class with a single image gives none.
    """
    if validation.source == "unused":
        return rest[: validation.per_class]
    if validation.source == "holdout":
        share = max(1, round(len(kept) * validation.share))
        return kept[max(1, len(kept) - share) :]
    return kept[:0]


def _regrouped(
    chosen: Chosen, unused: list[Indices], labels: Indices, groups: Indices, validation: Validation
) -> Chosen:
    """The same numbers of each class, or as near as can be, with no group in training and in validation.

    Of a holdout whole groups change sides; of unused images those are passed over that belong to training
    images.
    """
    if validation.source == "holdout":
        kept = np.concatenate([chosen.train, chosen.validation])
        wanted = np.bincount(labels[chosen.validation], minlength=len(unused)).tolist()
        # those that would be held out anyway come first
        ranks = np.concatenate([np.arange(len(chosen.train)) + len(kept), np.arange(len(chosen.validation))])
        held = choose(labels[kept], groups[kept], wanted, ranks)
        return Chosen(kept[~held], kept[held])
    if validation.source == "unused":
        own = groups[chosen.train]
        free = [rest[~np.isin(groups[rest], own)][: validation.per_class] for rest in unused]
        return Chosen(chosen.train, np.concatenate(free))
    return chosen


def _groups(file: Path) -> Indices | None:
    """Groups of the training images that `acquire` keeps together; None where it keeps none."""
    with safe_open(file, framework="np") as tensors:
        if "groups" not in tensors.keys():  # noqa: SIM118 - it is no dictionary
            return None
        found: Indices = tensors.get_tensor("groups")
    return found


def _labels(file: Path) -> Indices:
    with safe_open(file, framework="np") as tensors:
        found: Indices = tensors.get_tensor("labels")
    return found


def _write_part(file: Path, samples: Indices, labels: Indices, source: str = "") -> None:
    part = pd.DataFrame({"sample": samples, "label": labels})
    if source:
        part["source"] = source
    part.to_csv(file, index=False, lineterminator="\n")
