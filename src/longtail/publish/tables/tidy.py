"""A table as CSV."""

import pandas as pd

from longtail.groups import GROUPS
from longtail.publish.results import RICH
from longtail.publish.tables.words import COMPLETE, NOT_APPLICABLE, number


def tidy(rows: pd.DataFrame, validation: str) -> str:
    """The table as CSV, a line a row and imbalance; accuracies and errors in percent, two decimals.

    Columns of what only some tables have (values of a sweep, a linear column, a reference row, printed
    groups) stand at the end.

    Args:
        rows: of the table, as `table_rows` gives them.
        validation: by which images anything was selected, in words.
    """
    first, last = _everywhere(rows, validation), _only_here(rows)
    values = {}
    for key in dict.fromkeys(key for values in rows["values"] for key in values):
        name = f"value_of_{key}" if key in first or key in last else key
        values[name] = rows["values"].map(lambda values, key=key: values.get(key, ""))
    return pd.DataFrame({**first, **values, **last}).to_csv(index=False, lineterminator="\n")


def _only_here(rows: pd.DataFrame) -> "dict[str, pd.Series]":
    """The columns that only some tables have, but for values of a sweep."""
    columns = {}
    whole = rows["whole"].eq(True)
    if whole.any():
        learnt = whole.map({True: COMPLETE, False: "long-tailed training set"})
        columns["classifier_data"] = learnt.where(rows["built"], "")
    if (rows["linear"] != "").any() or rows["printed_linear"].notna().any():
        columns |= {
            "linear": _numbers(rows["mean_linear"]),
            "standard_deviation_linear": _numbers(rows["spread_linear"]),
            "printed_linear": _printed(rows["printed_linear"]),
            "difference_linear": _numbers(rows["difference_linear"]),
        }
    if rows["runs_forgetting"].notna().any():
        columns |= {name: _numbers(rows[f"mean_{name}"]) for name in (*RICH, "forgetting")}
        columns["standard_deviation_forgetting"] = _numbers(rows["spread_forgetting"])
    if rows["against"].notna().any():
        columns |= {
            "against": rows["against"].fillna(""),
            "difference_to_it": _numbers(rows["versus"]),
            "interval_low": _numbers(rows["low"]),
            "interval_high": _numbers(rows["high"]),
            "interval_over": rows["over"].fillna(""),
        }
    for name in GROUPS:
        if rows[f"printed_{name}"].notna().any():
            columns[f"printed_{name}"] = _printed(rows[f"printed_{name}"])
    return columns


def _everywhere(rows: pd.DataFrame, validation: str) -> "dict[str, pd.Series]":
    """The columns that every table has."""
    first = {
        name: rows[name].combine_first(rows[f"{name}_linear"])  # of the row's method, else of its second
        for name in ("seeds", "subset_seeds", "augmentation", "length", "precision", "device")
    }
    return {
        "section": rows["section"],
        "method": rows["label"],
        "imbalance_ratio": rows["imbalance"].str.removeprefix("ratio "),
        "mean": _numbers(rows["mean_accuracy"]),
        "standard_deviation": _numbers(rows["spread_accuracy"]),
        "seeds": first["seeds"].fillna(0).astype(int),
        "printed": _printed(rows["printed_accuracy"]),
        "difference": _numbers(rows["difference_accuracy"]),
        "selection_split": _selection(rows, validation),
        **{name: _applicable(rows, name, "mean") for name in GROUPS},
        **{f"standard_deviation_{name}": _applicable(rows, name, "spread") for name in GROUPS},
        "expected_calibration_error": _applicable(rows, "expected_calibration_error", "mean"),
        "validation": _applicable(rows, "validation", "mean"),
        "standard_deviation_validation": _applicable(rows, "validation", "spread"),
        "subset_seeds": first["subset_seeds"].fillna(0).astype(int),
        "augmentation": first["augmentation"].fillna(""),
        "stage_one_length": first["length"].fillna(""),
        "precision": first["precision"].fillna(""),
        "hardware": first["device"].fillna(""),
    }


def _numbers(values: "pd.Series[float]") -> "pd.Series[str]":
    return values.map(number)


def _printed(texts: "pd.Series[str]") -> "pd.Series[str]":
    """What a paper prints; empty where it gives no number."""
    return texts.map(lambda text: "" if pd.isna(text) or text == "-" else text)


def _applicable(rows: pd.DataFrame, quantity: str, statistic: str) -> "pd.Series[str]":
    """A statistic; n/a where the row is built and no run has the quantity."""
    texts = _numbers(rows[f"{statistic}_{quantity}"])
    return texts.mask(rows["built"] & rows[f"runs_{quantity}"].isna(), NOT_APPLICABLE)


def _selection(rows: pd.DataFrame, validation: str) -> "pd.Series[str]":
    """By which images something was selected, and what; none where nothing was."""
    texts = []
    for selected in zip(rows["selected"], rows["selected_linear"], strict=True):
        built = [what for what in selected if isinstance(what, str)]
        chosen = ", ".join(dict.fromkeys(what for what in built if what))
        texts.append(f"{validation}: {chosen}" if chosen else "none" if built else "")
    return pd.Series(texts, rows.index, dtype=str)
