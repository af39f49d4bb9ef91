"""runs.csv: all results of a settings file as one tidy frame, for everybody to load.

    pandas.read_csv("results/runs.csv")

A row a run of stage two and a split, runs in the order of the tables and then the sweeps; the columns of
`longtail.publish.results`, then every setting of recipes and classifiers that is not the same in all rows,
named as in a settings file and in the grid of a sweep (stage_one.loss.gamma.b). Empty: there is no such
setting. The same runs give the same bytes. Beside it stand curves.csv and metrics.json
(`longtail.publish.curves`).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from longtail.publish.curves import curves, metrics
from longtail.publish.job import PublishedJob
from longtail.publish.results import results


def compute(job: PublishedJob, recipes: Mapping[str, Any], classifiers: Mapping[str, Any]) -> None:
    """Write runs.csv, and beside it curves.csv and metrics.json.

    Args:
        job: all runs, each once.
        recipes: the settings of each recipe as JSON data; a sweep's is named SWEEP/RECIPE.
        classifiers: the same of the classifiers.
    """
    found = results(job)
    numbers = json.dumps(metrics(found), indent=1) + "\n"
    (job.folder / "metrics.json").write_text(numbers, encoding="utf-8", newline="\n")
    curves(job).to_csv(job.folder / "curves.csv", index=False, lineterminator="\n")
    settings = pd.concat(
        [
            _settings(found["recipe"], {name: recipe_settings(block) for name, block in recipes.items()}),
            _settings(
                found["classifier"], {name: classifier_settings(block) for name, block in classifiers.items()}
            ),
        ],
        axis="columns",
    )
    for column in ("recipe", "classifier"):
        found[column] = found[column].str.rpartition("/")[2]
    table = found.join(varying(settings))
    table.to_csv(job.folder / f"{job.name}.csv", index=False, lineterminator="\n")


def varying(settings: pd.DataFrame) -> pd.DataFrame:
    """The columns that are not the same in all rows; 1, 1.0 and true are three values."""
    return settings.loc[:, settings.map(json.dumps).nunique() > 1]


def recipe_settings(block: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recipe by their keys, e.g. stage_one.loss.gamma.b."""
    return dict(_flat(block, "stage_one"))


def classifier_settings(block: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a classifier by their keys, flat as in a settings file, e.g. stage_two.k."""
    common = {key: value for key, value in block.items() if key != "method"}
    return dict(_flat({**common, **block["method"]}, "stage_two"))


def _settings(names: "pd.Series[str]", blocks: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """A row a name, a column a setting of any block; nan where a block has no such setting."""
    known = pd.DataFrame(list(blocks.values()), index=list(blocks), dtype=object)
    return known.reindex(names.tolist()).set_axis(names.index)


def _flat(block: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The values in a block by dotted keys; items of a list that have names by these, other lists as JSON."""
    if isinstance(block, Mapping):
        for name, value in block.items():
            yield from _flat(value, f"{key}.{name}")
    elif isinstance(block, list):
        names = [item.get("name") if isinstance(item, Mapping) else None for item in block]
        if None in names or len(set(names)) < len(names):
            yield key, json.dumps(block, sort_keys=True)
        for name, item in zip(names, block, strict=True) if None not in names else ():
            yield from _flat(item, f"{key}.{name}")
    elif block is not None:
        yield key, block
