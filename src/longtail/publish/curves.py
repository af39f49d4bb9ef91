"""What a settings file's runs add up to for tools that compare versions: curves.csv and metrics.json.

`dvc plots` draws the first, and `dvc metrics` and `dvc exp show` print the second.
"""

import pandas as pd

from longtail.groups import GROUPS
from longtail.publish.job import PublishedJob

RUN = ("recipe", "imbalance", "subset_seed", "seed")
CURVES = (
    *("phase", "epoch", "learning_rate", "gamma", "train_loss", "train_accuracy"),
    *("validation_accuracy", "test_accuracy"),
)
NUMBERS = ("accuracy", *GROUPS)


def curves(job: PublishedJob) -> pd.DataFrame:
    """The trainings of all recipes, a row an epoch: the columns RUN and CURVES.

    Epochs are counted over all phases of a training. A cell is empty where a training did not measure it.
    """
    parts, seen = [], set()
    for cell in job.cells:
        if cell.runs["stage_one"] in seen:
            continue
        seen.add(cell.runs["stage_one"])
        history = cell.frame("stage_one", "history.csv")
        recipe = job.methods[cell.method]["stage_one"].rpartition("/")[2]  # as runs.csv has it
        known = history.assign(
            epoch=range(1, len(history) + 1),
            recipe=recipe,
            imbalance=cell.imbalance,
            subset_seed=cell.subset_seed,
            seed=cell.seed,
        )
        parts.append(known.reindex(columns=[*RUN, *CURVES]))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*RUN, *CURVES])


def metrics(results: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """The accuracies of every method at every imbalance, on test images, as means over its runs.

    Args:
        results: as `longtail.publish.results` has them.

    Returns:
        {METHOD: {IMBALANCE: {accuracy, many, medium, few}}}, shares; a group without a class is left out.
    """
    tested = results[results["split"] == "test"]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (method, imbalance), rows in tested.groupby(["method", "imbalance"], sort=False):
        means = rows[list(NUMBERS)].mean().dropna()
        found.setdefault(str(method), {})[str(imbalance)] = {
            str(name): float(value) for name, value in means.items()
        }
    return found
