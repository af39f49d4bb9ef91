"""All results as one tidy frame: a row a finished run of stage two and a split that it was measured on.

Tables are `groupby` and `pivot` of it; results/runs.csv is it (`longtail.publish.frame`). Accuracies and
calibration errors are shares in [0, 1] in full precision, empty where there was no image; tables make percent
of them. Of the splits, the test images are what tables print and the validation images what may choose.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from longtail.groups import GROUPS
from longtail.publish.job import Cell, PublishedJob, validation_can_judge

SPLITS = ("test", "validation")

# Which run it is: `imbalance` as in names of runs (exp100), `ratio` empty where the profile has none,
# `recipe` and `classifier` the entries of stage_one and stage_two that make `method`.
PLACE = ("dataset", "imbalance", "ratio", "subset_seed", "seed", "method", "recipe", "classifier")

# Groups by the settings' borders. `selection_accuracy`, of validation alone, is the mean over the classes
# that have enough validation images: by it stage two chooses. Empty where stage one trained on these images.
MEASURED = ("accuracy", "mean_class_accuracy", *GROUPS, "expected_calibration_error", "selection_accuracy")

# Of the data-rich classes, told apart among these alone, where stage one has phases about some classes.
RICH = ("data_rich_after_first_phase", "data_rich_after_last_phase")

# What run.json says of each stage: `environments` in order, where a training went on elsewhere; `seconds` of
# stage one are those of its last phase.
RECORDED = ("run", "identity", "device", "precision", "torch", "environments", "seconds", "commit")
STAGES = {"stage_one": RECORDED, "stage_two": RECORDED}
# What run.json of the features between them says, where it is asked for.
FEATURES = {"features": ("device", "precision", "torch")}
# Where an extension computed any run's batch normalisation: what run.json of stage one says, else TORCH.
BATCH_NORM, TORCH = "batch_norm", "torch's"


def results(job: PublishedJob, features: bool = False) -> pd.DataFrame:
    """The tidy frame of a job's runs, in the order of its cells, test before validation.

    Args:
        job: what is published.
        features: whether it reads runs of features, so that there are columns of FEATURES too.

    Returns:
        The columns `split`, PLACE, `images`, MEASURED and RICH, then RECORDED of each of STAGES, e.g.
        stage_one_device; "unknown" where an old run did not say. Last stage_one_batch_norm, where any run
        was not computed by torch alone.
    """
    steps = STAGES | (FEATURES if features else {})
    columns = [f"{step}_{name}" for step, names in steps.items() for name in names]
    recorded = pd.DataFrame([_recorded(cell, steps) for cell in job.cells], columns=columns)
    normalised = [cell.info["stage_one"].get("facts", {}).get(BATCH_NORM, TORCH) for cell in job.cells]
    if any(name != TORCH for name in normalised):
        recorded[f"stage_one_{BATCH_NORM}"] = normalised
    phases = pd.DataFrame([_rich(cell) for cell in job.cells], columns=["split", *RICH])
    known = measured(job, job.cells).join(phases.drop(columns="split")).join(recorded)
    known.loc[known["split"] != "test", list(RICH)] = float("nan")
    return known.astype(dict.fromkeys(RICH, "float64")).reset_index(drop=True)


def measured(job: PublishedJob, cells: Sequence[Cell]) -> pd.DataFrame:
    """What stage two's metrics.json and the split say of some cells; the index is the number of the cell."""
    rows = [row | {"cell": number} for number, cell in enumerate(cells) for row in _measured(job, cell)]
    columns = ["cell", "split", *PLACE, "images", *MEASURED]
    found = pd.DataFrame(rows, columns=columns).set_index("cell")
    return found.astype(dict.fromkeys(("ratio", *MEASURED), "float64"))


def _measured(job: PublishedJob, cell: Cell) -> list[dict[str, Any]]:
    """A row a split of which there were images."""
    from longtail.metrics import group_accuracy  # imports torch

    method = job.methods[cell.method]
    place = {
        "dataset": job.dataset,
        "imbalance": cell.imbalance,
        "ratio": cell.ratio,
        "subset_seed": cell.subset_seed,
        "seed": cell.seed,
        "method": cell.method,
        "recipe": method["stage_one"],
        "classifier": method["stage_two"],
    }
    counts, limits = cell.class_counts(), job.groups.resolved()
    rows = []
    for split, found in cell.metrics().items():
        if split in SPLITS:
            by_class = (found.get("per_class", []), found.get("per_class_n", []))
            groups = group_accuracy(*by_class, counts, **limits) if all(by_class) else {}
            numbers = {name: (found | groups).get(name) for name in MEASURED}
            if not validation_can_judge(cell.info):
                numbers["selection_accuracy"] = None  # nothing may be chosen by it
            rows.append({"split": split, **place, "images": found.get("n"), **numbers})
    return rows


def _rich(cell: Cell) -> dict[str, float]:
    """The first and the last phase's accuracy on data-rich classes; nothing where there are no two."""
    phases = cell.rich()
    return dict(zip(RICH, (phases[0], phases[-1]), strict=True)) if len(phases) > 1 else {}


def _recorded(cell: Cell, steps: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for step, names in steps.items():
        record = cell.info[step]
        known = {
            "run": record.get("run"),
            "identity": record.get("identity"),
            "device": cell.fact(step, "device"),
            "precision": cell.fact(step, "precision"),
            "torch": cell.package(step, "torch"),
            "environments": "; ".join(record.get("facts", {}).get("environments", [])),
            "seconds": record.get("seconds"),
            "commit": record.get("code", {}).get("commit"),
        }
        found |= {f"{step}_{name}": known[name] for name in names}
    return found
