"""A table as CSV."""

import csv
import io
from collections.abc import Sequence

from longtail.groups import GROUPS
from longtail.publish.printed.numbers import Printed
from longtail.publish.tables.rows import Difference, Measured, Seeds, TableRow, difference
from longtail.publish.tables.words import NOT_APPLICABLE, augmentation, length, mean, number, selection

COMPLETE = "complete training set"  # what a classifier learnt from that reads all training images


def tidy(lines: Sequence[TableRow], validation: str) -> str:
    """The table as CSV, a line a row and imbalance; accuracies and errors in percent, two decimals.

    Columns of what only some tables have (values of a sweep, a linear column, a reference row, printed
    groups) stand at the end.
    """
    by_group = [name for name in GROUPS if any(name in line.printed for line in lines)]
    linear = any(line.row.linear or "linear" in line.printed for line in lines)
    against = any(line.versus for line in lines)
    forgetting = any(line.ours and line.ours.rich for line in lines)
    keys = dict.fromkeys(key for line in lines for key in line.row.values)
    whole = any(line.ours and line.ours.whole for line in lines)
    records = [
        {
            **_record(line, validation),
            **{key: line.row.values.get(key, "") for key in keys},
            **({"classifier_data": _data(line)} if whole else {}),
            **(_linear(line) if linear else {}),
            **(_forgetting(line.ours) if forgetting else {}),
            **(_against(line.versus) if against else {}),
            **{f"printed_{name}": _text(line.printed.get(name)) for name in by_group},
        }
        for line in lines
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _record(line: TableRow, validation: str) -> dict[str, str]:
    ours, built = line.ours, line.built
    cells = built[0].cells if built else ()
    return {
        "section": line.row.section,
        "method": line.row.label,
        "imbalance_ratio": line.imbalance.removeprefix("ratio "),
        "mean": number(ours.accuracy.mean) if ours else "",
        "standard_deviation": number(ours.accuracy.spread) if ours else "",
        "seeds": str(len({cell.seed for cell in cells})),
        "printed": _text(line.printed.get("accuracy")),
        "difference": number(difference(line)),
        "selection_split": selection(line, validation),
        **{name: mean(ours.groups[name]) if ours else "" for name in GROUPS},
        **{f"standard_deviation_{name}": _spread(ours.groups[name]) if ours else "" for name in GROUPS},
        "expected_calibration_error": mean(ours.calibration_error) if ours else "",
        "validation": mean(ours.validation) if ours else "",
        "standard_deviation_validation": _spread(ours.validation) if ours else "",
        "subset_seeds": str(len({cell.subset_seed for cell in cells})),
        "augmentation": augmentation(built[0].recipe) if built else "",
        "stage_one_length": length(built[0].recipe) if built else "",
        "precision": " + ".join(built[0].facts("precision")) if built else "",
        "hardware": " + ".join(built[0].facts("device")) if built else "",
    }


def _data(line: TableRow) -> str:
    """What the classifier of the accuracy columns learnt from."""
    if line.ours is None:
        return ""
    return COMPLETE if line.ours.whole else "long-tailed training set"


def _linear(line: TableRow) -> dict[str, str]:
    return {
        "linear": number(line.linear.accuracy.mean) if line.linear else "",
        "standard_deviation_linear": number(line.linear.accuracy.spread) if line.linear else "",
        "printed_linear": _text(line.printed.get("linear")),
        "difference_linear": number(difference(line, "linear")),
    }


def _forgetting(ours: Measured | None) -> dict[str, str]:
    first, last = ours.rich if ours and ours.rich else (None, None)
    forgetting = ours.forgetting if ours else None
    return {
        "data_rich_after_first_phase": number(first.mean) if first else "",
        "data_rich_after_last_phase": number(last.mean) if last else "",
        "forgetting": number(forgetting.mean) if forgetting else "",
        "standard_deviation_forgetting": number(forgetting.spread) if forgetting else "",
    }


def _against(versus: Difference | None) -> dict[str, str]:
    return {
        "against": versus.reference if versus else "",
        "difference_to_it": number(versus.mean) if versus else "",
        "interval_low": number(versus.low) if versus else "",
        "interval_high": number(versus.high) if versus else "",
        "interval_over": versus.over if versus else "",
    }


def _text(found: Printed | None) -> str:
    return found.text if found and found.value is not None else ""


def _spread(seeds: Seeds | None) -> str:
    return NOT_APPLICABLE if seeds is None else number(seeds.spread)
