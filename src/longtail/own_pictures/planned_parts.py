"""In which part each picture of a dataset will be, as `acquire` and `split` choose it."""

from collections.abc import Mapping

import numpy as np

from longtail.data import groupings
from longtail.data.holding_out import held_out
from longtail.data.lists import Named, numbered
from longtail.own_pictures.problems import Demands
from longtail.settings.split import NaturalImbalance, SplitSettings


def planned_parts(
    dataset: str, demands: Demands, parts: Mapping[str, Named], broken: Mapping[str, str]
) -> dict[str, str]:
    """The part of every usable picture by its path: train, validation or test.

    Where the imbalance is another than the natural one, validation images and those that are left out count
    as training images.

    Raises:
        UserError: if test images cannot be held out as the settings ask.
    """
    from longtail.data.split import split  # imports pandas

    named = {part: [row for row in rows if row[0] not in broken] for part, rows in parts.items()}
    classes, rows = numbered(dataset, named)
    held = demands.data.held_out
    paths = [path for path, _ in rows["train"]]
    groups = groupings.of(dataset, demands.data, paths)
    if held is not None and not rows.get("test"):
        rows["train"], rows["test"] = held_out(dataset, rows["train"], len(classes), held, groups)
    found = {path: part for part, own in rows.items() for path, _ in own}
    if demands.natural and demands.validation.source == "holdout":
        labels = np.array([label for _, label in rows["train"]])
        if groups is not None:
            of = dict(zip(paths, groups.tolist(), strict=True))
            groups = np.array([of[path] for path, _ in rows["train"]])
        settings = SplitSettings(
            dataset=dataset,
            imbalance=NaturalImbalance(),
            subset_seed=demands.subset_seed,
            validation=demands.validation,
        )
        for number in split(labels, len(classes), settings, groups).validation.tolist():
            found[rows["train"][number][0]] = "validation"
    return found
