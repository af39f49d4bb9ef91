"""Pictures whose label is likely wrong, by class: confident learning on features (Northcutt et al. 2021).

cleanlab's `find_label_issues` compares each picture's given class with the out-of-fold probabilities of a
linear classifier over its features. All pictures are judged, those of the test set too: nothing is chosen by
it. A class that the classifier hardly knows is suspected too often, and that is a rare class. So suspects
stand by class, with their rank in it and a note where they are more than a fifth of it, and classes with
fewer pictures than folds are not judged. Groups of pictures that acquisition keeps together (bursts, copies;
`data.held_out.groups`) are not parted between folds, where they are of one class.

Best on features of a network that has not learnt these labels, a pretrained one that was left as it was:
a network trained on them may have learnt the wrong ones by heart.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from cleanlab.filter import find_label_issues
from safetensors import safe_open
from torch import Tensor

from longtail.data.file_names import unpacked
from longtail.data.manifest import write_table
from longtail.publish.out_of_fold import FOLDS, out_of_fold
from longtail.runs.frames import read_frame
from longtail.runs.store import record

NOT_JUDGED = "not judged"
FILE, CLASSES_FILE = "label_issues.csv", "label_issues_by_class.csv"
MANY = 0.2  # share of a class from which suspects say more about the classifier than about the labels
SEED = 0  # of the folds and the classifiers
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class FeaturePictures:
    """Features and labels of all pictures that a features run has.

    Attributes:
        features: float32 (N, d).
        labels: int64 (N,).
        part: of each, train, validation or test.
        sample: number of each in its file of the dataset.
        file: path of each below the dataset's root; "" where images are in the run itself.
        names: of the classes, in label order.
        groups: name of each picture's group, int64 (N,); a picture that acquisition puts into none, as those
            of the test set, has a group of its own.
    """

    features: Tensor
    labels: Tensor
    part: list[str]
    sample: list[int]
    file: list[str]
    names: list[str]
    groups: Tensor


@dataclass(frozen=True)
class LabelIssues:
    """What was found.

    Attributes:
        suspects: a row a picture, classes in label order, in each the least believed first; file, part,
            sample, class, suggested, self_confidence, suggested_confidence, rank, note.
        classes: a row a class; class, pictures, suspects, share, note.
    """

    suspects: pd.DataFrame
    classes: pd.DataFrame

    @property
    def judged(self) -> int:
        """How many classes were judged."""
        return int((~self.classes["note"].str.startswith(NOT_JUDGED)).sum())


def read_pictures(features: Path, split: Path, raw: Path) -> FeaturePictures:
    """All pictures of a features run, each once.

    Args:
        features, split, raw: finished runs.
    """
    source = record(split)["settings"]["validation"]["source"]
    files = {"train": "train", "validation": {"official": "validation"}.get(source, "train"), "test": "test"}
    rows: list[tuple[str, int, str]] = []
    found, groups = [], []
    for part in PARTS:
        if part == "validation" and source == "test":  # the test images once more
            continue
        with safe_open(features / f"{part}.safetensors", framework="pt") as tensors:
            own = {name: tensors.get_tensor(name) for name in ("features", "labels", "samples")}
        with safe_open(raw / f"{files[part]}.safetensors", framework="pt") as tensors:
            named = "names" in tensors.keys()  # noqa: SIM118 - it is no dictionary
            paths = unpacked(tensors.get_tensor("names")) if named else []
            grouped = "groups" in tensors.keys()  # noqa: SIM118 - it is no dictionary
            alone = -1 - len(rows) - torch.arange(len(own["samples"]))  # names of groups are 0 and more
            groups.append(tensors.get_tensor("groups")[own["samples"]] if grouped else alone)
        found.append(own)
        rows += [(part, sample, paths[sample] if paths else "") for sample in own["samples"].tolist()]
    return FeaturePictures(
        features=torch.cat([own["features"] for own in found]),
        labels=torch.cat([own["labels"] for own in found]),
        part=[part for part, _, _ in rows],
        sample=[sample for _, sample, _ in rows],
        file=[file for _, _, file in rows],
        names=[str(name) for name in read_frame(split / "counts.csv")["name"]],
        groups=torch.cat(groups),
    )


def find(pictures: FeaturePictures) -> LabelIssues:
    """Judge every picture of a class that has enough of them, or enough groups of them."""
    names = pictures.names
    counts = torch.bincount(pictures.labels, minlength=len(names))
    pairs = set(zip(pictures.labels.tolist(), pictures.groups.tolist(), strict=True))
    groups = torch.bincount(torch.tensor([label for label, _ in pairs]), minlength=len(names))
    known = (groups >= FOLDS).nonzero().flatten()
    rows: list[dict[str, object]] = []
    if len(known) > 1:
        new = torch.full((len(names),), -1).scatter_(0, known, torch.arange(len(known)))
        chosen = (new[pictures.labels] >= 0).nonzero().flatten()
        labels = new[pictures.labels[chosen]]
        chances = out_of_fold(pictures.features[chosen], labels, pictures.groups[chosen], SEED).double()
        chances /= chances.sum(1, keepdim=True)
        suspected = find_label_issues(labels.numpy(), chances.numpy(), n_jobs=1)
        for place in suspected.nonzero()[0].tolist():
            own = chances[place].clone()
            given = float(own[labels[place]])
            own[labels[place]] = -1
            number = int(chosen[place])
            rows.append(
                {
                    "file": pictures.file[number],
                    "part": pictures.part[number],
                    "sample": pictures.sample[number],
                    "class": int(pictures.labels[number]),
                    "suggested": names[int(known[own.argmax()])],
                    "self_confidence": given,
                    "suggested_confidence": float(own.max()),
                }
            )
    return _by_class(rows, names, counts.tolist(), groups.tolist(), len(known) == 1)


def _by_class(
    rows: list[dict[str, object]], names: list[str], counts: list[int], groups: list[int], alone: bool
) -> LabelIssues:
    head = ["file", "part", "sample", "class", "suggested", "self_confidence", "suggested_confidence"]
    suspects = pd.DataFrame(rows, columns=head).sort_values(
        ["class", "self_confidence", "part", "sample"], ignore_index=True
    )
    label = suspects["class"].astype("int64")
    suspects["rank"] = suspects.groupby(label).cumcount() + 1
    number = label.value_counts().reindex(range(len(names)), fill_value=0).tolist()
    notes = [_note(*said, alone) for said in zip(number, counts, groups, strict=True)]
    suspects["note"] = [notes[one] for one in label]
    suspects["class"] = [names[one] for one in label]
    shares = [suspected / count if count else 0.0 for suspected, count in zip(number, counts, strict=True)]
    classes = pd.DataFrame(
        {"class": names, "pictures": counts, "suspects": number, "share": shares, "note": notes}
    )
    return LabelIssues(suspects, classes)


def _note(suspected: int, count: int, groups: int, alone: bool) -> str:
    if count >= FOLDS > groups:
        return f"{NOT_JUDGED}: {groups} of the {FOLDS} groups of pictures that it takes"
    if count < FOLDS:
        return f"{NOT_JUDGED}: {count} of the {FOLDS} pictures that it takes"
    if alone:
        return f"{NOT_JUDGED}: no other class has {FOLDS} pictures"
    if suspected > MANY * count:
        return f"more than a fifth of {count} suspected: the classifier may not know the class"
    return ""


def write(found: LabelIssues, folder: Path) -> None:
    """Write label_issues.csv and label_issues_by_class.csv; numbers in four digits."""
    for name, table in ((FILE, found.suspects), (CLASSES_FILE, found.classes)):
        cells = table.astype(object).map(lambda cell: f"{cell:.4f}" if isinstance(cell, float) else cell)
        write_table(folder / name, list(table.columns), cells.itertuples(index=False, name=None))
