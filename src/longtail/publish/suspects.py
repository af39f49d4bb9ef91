"""What may be wrong with the data, by a finished run of features: likely wrong labels, and a page.

Writes label_issues.csv, label_issues_by_class.csv and data_problems.html.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from longtail.data.lists import some
from longtail.device import set_up
from longtail.errors import UserError
from longtail.publish import data_problems, label_issues
from longtail.runs.lookup import named_features, pictures_root


def compute(dataset: str, runs: Mapping[str, Path], folder: Path) -> None:
    """Write the lists and the page.

    Args:
        dataset: its name.
        runs: finished and verified folders by step: acquire, split, features.
        folder: where they go.
    """
    set_up(torch.device("cpu"))
    pictures = label_issues.read_pictures(runs["features"], runs["split"], runs["acquire"])
    found = label_issues.find(pictures)
    label_issues.write(found, folder)
    try:
        root = pictures_root(runs["acquire"])
    except UserError:  # the pictures are elsewhere: the lists are made all the same
        root = None
    data_problems.write(dataset, root, found, folder)
    notes = int((found.classes["note"] != "").sum())
    print(
        f"{dataset}: {some(len(found.suspects), 'label')} suspected of {len(pictures.labels):,}"
        + (f"; {some(notes, 'class')} with a note" if notes else ""),
        file=sys.stderr,
        flush=True,
    )


def by_hand(run: str, to: str | None) -> None:
    """`longtail suspects`: the same for any finished features run.

    Args:
        run: its name, or a beginning that no other has.
        to: the folder; None: suspects/RUN.

    Raises:
        UserError: if there is no such run, or the folder is there and holds something else.
    """
    finished = named_features(run)
    folder = Path(to) if to else Path("suspects") / finished.name
    known = {label_issues.FILE, label_issues.CLASSES_FILE, data_problems.FILE}
    if folder.exists() and (not folder.is_dir() or {file.name for file in folder.iterdir()} - known):
        raise UserError(f"--to {folder}: is there and holds other files; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    compute(str(finished.records["features"]["settings"]["dataset"]), finished.folders, folder)
    print(f"{folder / data_problems.FILE}")
