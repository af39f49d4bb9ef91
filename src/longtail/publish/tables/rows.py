"""The rows of a table as a frame: ours with their spread over runs, beside the printed numbers."""

from dataclasses import asdict
from itertools import product
from typing import Any

import pandas as pd

from longtail.errors import UserError
from longtail.publish.job import UNKNOWN, Cell, PublishedJob, imbalance_words
from longtail.publish.results import results
from longtail.publish.tables.check import check, printed_numbers
from longtail.publish.tables.differences import COMPARED, versus
from longtail.publish.tables.over_runs import KEYS, QUANTITIES, STATISTICS, over_runs
from longtail.publish.tables.words import augmentation, length
from longtail.settings.frozen_features import FROZEN
from longtail.settings.methods import settings_of
from longtail.settings.published import Row, Table
from longtail.settings.split import published_counts

SHOWN = (*QUANTITIES, "linear")  # what a table may show of a row, of ours or printed
PRINTED_AT = ["section", "label", "ratio"]
DECLARED = ["selected", "whole", "trained_on_validation", "length", "augmentation", "schedule"]
FACTS = ("precision", "device", "torch")


def shown_results(job: PublishedJob) -> pd.DataFrame:
    """The results of a table's runs (`longtail.publish.results`), `imbalance` as the table says it.

    Raises:
        UserError: if of a method no test image was measured.
    """
    found = results(job, features=True)
    known = zip(found["imbalance"], found["ratio"], strict=True)
    words = [imbalance_words(name, None if pd.isna(ratio) else ratio) for name, ratio in known]
    found["imbalance"] = pd.Series(words, found.index, dtype=str)
    tested = set(over_runs(found).index)
    for cell in job.cells:
        if (cell.method, cell.imbalance_words) not in tested:
            raise UserError(f"{cell.runs['stage_two']}: no test image was measured")
    return found


def table_rows(job: PublishedJob, found: pd.DataFrame) -> pd.DataFrame:
    """Every row of a table at every imbalance, rows in the order of the table.

    Args:
        job: the table.
        found: what `shown_results` gives.

    Returns:
        - section, label, name (as `Table.name_of` has it), values, method, linear, imbalance: the row; method
          and linear are "" for none.
        - mean_Q, spread_Q, runs_Q: as in `over_runs`, of the method; with linear as Q the accuracy of the
          second method. nan where it is not built, or not applicable.
        - built, built_linear: whether there are runs of the method, and of the second.
        - the columns of `_methods`, those of the second method with _linear behind their names.
        - printed_Q, a text, and sources, a list: nan where the paper prints nothing for this dataset.
        - difference_Q: ours minus printed, in points.
        - COMPARED: as `versus` says, nan where it says nothing.

    Raises:
        UserError: as `check` does.
    """
    table: Table = job.settings
    check(job.name, table)
    printed = _printed(job)
    imbalances = _imbalances(job, printed)
    rows = pd.DataFrame([_as_told(table, row) for row in table.rows]).merge(imbalances, how="cross")
    statistics = over_runs(found)
    methods = _methods(job, found)
    linear = pd.DataFrame({f"{name}_linear": statistics[f"{name}_accuracy"] for name in STATISTICS})
    second = linear.join(methods.add_suffix("_linear"))
    rows = rows.join(statistics.join(methods), on=KEYS).join(second, on=["linear", "imbalance"])
    rows["built"], rows["built_linear"] = rows["runs_accuracy"].notna(), rows["runs_linear"].notna()
    beside = rows[PRINTED_AT].join(_by_place(printed), on=PRINTED_AT).drop(columns=PRINTED_AT)
    rows = rows.join(beside.where(rows["printed"]))
    for quantity in ("accuracy", "linear"):
        numbers = pd.to_numeric(rows[f"printed_{quantity}"], errors="coerce")  # `-`: the paper gives none
        rows[f"difference_{quantity}"] = rows[f"mean_{quantity}"] - numbers
    compared = [versus(job, row, words) for row, words in product(table.rows, imbalances["imbalance"])]
    return rows.join(pd.DataFrame(compared, columns=COMPARED))


def _as_told(table: Table, row: Row) -> dict[str, Any]:
    known = {"section": row.section, "label": row.label, "name": table.name_of(row), "values": row.values}
    return known | {"printed": row.printed, "method": row.method or "", "linear": row.linear or ""}


def _printed(job: PublishedJob) -> pd.DataFrame:
    """What the paper prints for the dataset and the imbalances of a table, a row a number."""
    table: Table = job.settings
    numbers = [
        asdict(number) | {"ratio": _key(number.ratio)}
        for number in printed_numbers(table)
        if number.dataset == job.dataset and table.shows(number.ratio)
    ]
    return pd.DataFrame(numbers, columns=[*PRINTED_AT, "quantity", "text", "source"], dtype=str)


def _imbalances(job: PublishedJob, printed: pd.DataFrame) -> pd.DataFrame:
    """The imbalances of a table in words, and their ratios: those of our runs, else the printed ones."""
    ours = {cell.imbalance_words: _printed_at(cell) for cell in job.cells}
    others = {f"ratio {float(key):g}" if key else "natural": key for key in printed["ratio"]}
    return pd.DataFrame(list((ours or others).items()), columns=["imbalance", "ratio"], dtype=str)


def _printed_at(cell: Cell) -> str:
    """Where papers print what is comparable with a cell; nobody prints a profile of ours without a ratio."""
    published = cell.ratio is not None or cell.imbalance in ("natural", *published_counts())
    return _key(cell.ratio) if published else cell.imbalance


def _key(ratio: float | None) -> str:
    """A ratio as a key that is equal where ratios are; "" for a dataset that is as it is."""
    return "" if ratio is None else f"{ratio:.17g}"


def _by_place(printed: pd.DataFrame) -> pd.DataFrame:
    """What the paper prints of a row at a ratio: printed_Q of each quantity, and the sources in a list."""
    texts = printed.pivot(index=PRINTED_AT, columns="quantity", values="text")
    texts = texts.reindex(columns=pd.Index(SHOWN)).add_prefix("printed_")
    return texts.join(printed.groupby(PRINTED_AT)["source"].agg(list).rename("sources"))


def _methods(job: PublishedJob, found: pd.DataFrame) -> pd.DataFrame:
    """What is said of a method at an imbalance beside its numbers, a row a (method, imbalance).

    Returns:
        seeds and subset_seeds: how many. Each of FACTS: what run.json of stage one and of its features says,
        each value once; of a trunk that stays as it was published, of its features alone.
        selected: what the validation images chose, "" if nothing. whole: whether stage two learnt from the
        complete, balanced training set. trained_on_validation: whether stage one trained on validation
        images. length, augmentation and schedule of stage one, in words.
    """
    test = found[found["split"] == "test"]
    frozen = test["recipe"].map(lambda name: job.recipes[name].freeze == FROZEN).astype(bool)
    facts = pd.DataFrame({name: _computed_with(test, frozen, name) for name in FACTS})
    counts = {"seeds": ("seed", "nunique"), "subset_seeds": ("subset_seed", "nunique")}
    firsts = {(cell.method, cell.imbalance_words): cell for cell in reversed(job.cells)}
    said = [dict(zip(KEYS, key, strict=True)) | _declared(job, cell) for key, cell in firsts.items()]
    declared = pd.DataFrame(said, columns=[*KEYS, *DECLARED]).set_index(KEYS)
    return test.groupby(KEYS).agg(**counts).join(facts).join(declared)


def _computed_with(test: pd.DataFrame, frozen: "pd.Series[bool]", name: str) -> "pd.Series[str]":
    """One of FACTS by method and imbalance; old records of features may lack it."""
    told = test[f"features_{name}"][test[f"features_{name}"] != UNKNOWN]
    own = test[f"stage_one_{name}"].drop(told.index[frozen[told.index]])
    found = pd.concat([own, told]).rename(name)
    return test[KEYS].join(found, how="right").groupby(KEYS)[name].agg(_each_once)


def _each_once(values: "pd.Series[str]") -> str:
    return " + ".join(sorted(set(values)))


def _declared(job: PublishedJob, cell: Cell) -> dict[str, Any]:
    recipe = job.recipes[job.methods[cell.method]["stage_one"]]
    method = dict(cell.info["stage_two"]["settings"]["method"])
    settings = settings_of("stage_two", method.pop("name")).model_validate(method)
    return {
        "selected": getattr(settings, "selects", ""),
        "whole": getattr(settings, "reads", "") == "whole",
        "trained_on_validation": recipe.learns_from_validation,
        "length": length(recipe),
        "augmentation": augmentation(recipe),
        "schedule": f"{length(recipe)} at batch size {recipe.batch_size}",
    }
