"""Mean and spread over runs of what a table shows, by method and imbalance."""

import statistics
from collections.abc import Iterable
from itertools import product

import pandas as pd

from longtail.groups import GROUPS
from longtail.publish.results import RICH

# accuracies and errors in percent; `validation`: mean accuracy of the classes on validation images;
# `forgetting`: points that stage one's later phases cost the data-rich classes, negative where they gained
QUANTITIES = ("accuracy", *GROUPS, "expected_calibration_error", "validation", *RICH, "forgetting")
STATISTICS = ("mean", "spread", "runs")
KEYS = ["method", "imbalance"]


def over_runs(results: pd.DataFrame) -> pd.DataFrame:
    """Each quantity over the subsets and seeds of a method at an imbalance.

    Means and deviations are the exact ones of the numbers, rounded once: so a table's last digit does not
    hang on the order in which floats are added up.

    Args:
        results: as `longtail.publish.results` has them.

    Returns:
        A row a (method, imbalance), without those of which no test image was measured. Columns mean_Q,
        spread_Q (sample standard deviation, n - 1; nan of one run) and runs_Q (how many) of each quantity Q,
        e.g. mean_few; nan where no run has the quantity.
    """
    test = results[results["split"] == "test"]
    percent = test[["accuracy", *GROUPS, "expected_calibration_error", *RICH]].mul(100)
    first, last = (percent[name] for name in RICH)
    percent = percent.assign(forgetting=first - last)
    validation = results[results["split"] == "validation"]
    chosen_by = pd.DataFrame({"validation": validation["selection_accuracy"].mul(100)})
    values = pd.concat([results[KEYS], pd.concat([percent, chosen_by])], axis=1)
    tidy = values.melt(KEYS, var_name="quantity").dropna(subset="value")
    found = tidy.groupby([*KEYS, "quantity"], sort=False)["value"].agg(mean=mean, spread=spread, runs="size")
    wide = found.unstack("quantity").reindex(columns=pd.MultiIndex.from_product([STATISTICS, QUANTITIES]))
    named = wide.set_axis(["_".join(pair) for pair in product(STATISTICS, QUANTITIES)], axis="columns")
    return named[named["runs_accuracy"].notna()]


def mean(values: Iterable[float]) -> float:
    """The mean over runs."""
    return statistics.fmean(values)


def spread(values: Iterable[float]) -> float:
    """The sample standard deviation over runs; nan of one run."""
    found = list(values)
    return statistics.stdev(found) if len(found) > 1 else float("nan")
