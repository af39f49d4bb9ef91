"""What stands under a table: what a reader has to know to compare the numbers."""

from collections.abc import Sequence
from itertools import chain

import pandas as pd

from longtail.groups import GROUPS, group_sizes
from longtail.publish.bootstrap import RESAMPLES
from longtail.publish.job import UNKNOWN, PublishedJob
from longtail.publish.results import BATCH_NORM, FEATURES
from longtail.publish.tables.words import COMPLETE, HEADS, NOT_APPLICABLE
from longtail.settings.published import Table

# what the runs of a table should share, and its column of `longtail.publish.results` behind the stage's name
SAME_IN_A_TABLE = {
    "precision": "precision",
    "batch normalisation": BATCH_NORM,
    "device": "device",
    "torch version": "torch",
}
COMPUTED = ("stage_one", "features", "stage_two")  # the steps that are looked at
SAID = ("selected", "schedule", "augmentation", "device", "precision", "torch")  # of a method in words


def notes(job: PublishedJob, rows: pd.DataFrame, results: pd.DataFrame) -> list[str]:
    """The notes of a table, one a line.

    Args:
        job: the table.
        rows: of it, as `table_rows` gives them.
        results: of its runs, as `shown_results` gives them.
    """
    built = _built(rows)
    result = []
    if len(built):
        chosen = _by_value(built[built["selected"] != ""], "selected")
        result += [
            "Ours: top-1 accuracy on the test set in percent, after the last epoch; mean ± sample standard "
            "deviation over runs (number of runs). No ± where there is one run.",
            _runs(results),
            *_before(job, rows),
            *_intervals(rows),
            f"Selection split: {job.validation}; it chose {chosen}; nothing in the other rows."
            if chosen
            else "Selection split: none; no row chose anything by validation images.",
            *_whole(rows),
            *_trained_on_validation(rows),
            f"Schedule of stage one: {_by_value(built, 'schedule')}.",
            f"Augmentation: {_by_value(built, 'augmentation')}.",
            _groups(job),
            *_forgetting(job.settings),
            *_validation(job, chosen),
            f"Hardware: {_by_value(built, 'device')}; precision {_by_value(built, 'precision')}; "
            f"torch {_by_value(built, 'torch')}.",
            *_batch_norm(results),
        ]
    beside = rows[rows["sources"].notna()]
    if len(beside):
        sources = dict.fromkeys(chain.from_iterable(beside["sources"]))
        result.append(
            f"Printed, in italics: {'; '.join(sources)}; - where the paper gives no number. "
            "The difference (in the CSV) is ours - printed; it compares methods only at the same schedule "
            "and augmentation."
        )
        own = built["name"][~built["name"].isin(beside["name"])].unique()
        if len(own):
            result.append(f"Not in the paper's table: {', '.join(own)}.")
    absent = rows["name"][(rows["method"] == "") & (rows["linear"] == "")].unique()
    if len(absent):
        result.append(f"Not run by us: {', '.join(absent)}.")
    return [*result, *job.settings.notes]


def warnings(results: pd.DataFrame) -> list[str]:
    """One line for each of SAME_IN_A_TABLE in which runs of one step differ, and what went on elsewhere."""
    result = []
    for what, name in SAME_IN_A_TABLE.items():
        for step in COMPUTED:
            column = f"{step}_{name}"
            values = sorted(results[column].unique()) if column in results else []
            if step in FEATURES:
                values = [value for value in values if value != UNKNOWN]  # old records of these say nothing
            if len(values) > 1:
                where = step.replace("_", " ")
                result.append(f"The runs of this table differ in {what} ({where}): {', '.join(values)}.")
                break
    return [*result, *_went_on(results)]


def _went_on(results: pd.DataFrame) -> list[str]:
    """The trainings that an interruption took to another environment, a line for each way."""
    lines = []
    for environments, own in results.groupby("stage_one_environments", sort=False):
        if len(ways := str(environments).split("; ")) > 1:
            runs = dict.fromkeys(
                f"{row.recipe} at {row.imbalance}, subset {row.subset_seed}, seed {row.seed}"
                for row in own.itertuples()
            )
            said = "; ".join(runs)
            lines.append(f"Stage one went on in another environment ({said}): {', then '.join(ways)}.")
    return lines


def _built(rows: pd.DataFrame) -> pd.DataFrame:
    """name and SAID of every method that has runs, each row's second one behind its first."""
    own = rows[rows["built"]][["name", *SAID]]
    second = rows[rows["built_linear"]][["name", *(f"{name}_linear" for name in SAID)]]
    second.columns = own.columns
    return pd.concat([own, second]).sort_index(kind="stable")


def _by_value(built: pd.DataFrame, column: str) -> str:
    """`VALUE` where all rows share it, else `VALUE (NAME, NAME); VALUE (NAME)`; "" of nothing."""
    found = built.groupby(column, sort=False)["name"].unique()
    if len(found) == 1 and "," not in str(found.index[0]):
        return str(found.index[0])
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in found.items())


def _batch_norm(results: pd.DataFrame) -> list[str]:
    """Where an extension computed all batch normalisation; that runs differ in it is a warning."""
    column = f"stage_one_{BATCH_NORM}"
    names = list(results[column].unique()) if column in results else []
    if len(names) != 1:
        return []
    return [f"Batch normalisation of stage one: {names[0]} (by the compiled extension)."]


def _runs(results: pd.DataFrame) -> str:
    seeds, subsets = (sorted(results[name].unique()) for name in ("seed", "subset_seed"))
    where = "each of the subsets" if len(subsets) > 1 else "the subset"
    return f"Runs: training {_seeds_words(seeds)} on {where} of {_seeds_words(subsets)}."


def _seeds_words(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _before(job: PublishedJob, rows: pd.DataFrame) -> list[str]:
    """That differences are to the row before, and where this is not the one right before."""
    compared = rows[rows["against"].notna()]
    if not job.settings.against_previous or compared.empty:
        return []
    names = rows["name"].drop_duplicates()
    compared = compared.merge(pd.DataFrame({"name": names, "before": names.shift()}), on="name")
    over = compared[compared["against_name"] != compared["before"]]
    pairs = dict.fromkeys(f"{row.name} with {row.against_name}" for row in over.itertuples())
    passed = f"; rows that were not run are passed over: {', '.join(pairs)}" if pairs else ""
    return [f"Differences: each row is compared with the row before it, in whatever section{passed}."]


def _intervals(rows: pd.DataFrame) -> list[str]:
    over = rows["over"].dropna().unique()
    if not len(over):
        return []
    narrow = ", on the narrow side with few seeds" if any("seeds" in words for words in over) else ""
    return [
        f"Intervals: paired bootstrap over {'; '.join(over)} ({RESAMPLES} resamples, percentiles){narrow}."
    ]


def _whole(rows: pd.DataFrame) -> list[str]:
    """The rows, and the column, whose classifiers learnt from more than the long-tailed training set."""
    own = rows["name"][rows["whole"].eq(True)].unique()
    column = [f"the column {HEADS['linear']}"] * bool(rows["whole_linear"].eq(True).any())
    names = [*own, *column]
    if not names:
        return []
    return [
        f"Not a long-tailed result: {', '.join(names)} trained a classifier on the {COMPLETE}, "
        "images that the imbalance left out included; the features did not see these."
    ]


def _trained_on_validation(rows: pd.DataFrame) -> list[str]:
    names = rows["name"][rows["trained_on_validation"].eq(True)].unique()
    said = "trained on validation images too, which cannot judge what they trained"
    return [f"{', '.join(names)}: {said}."] if len(names) else []


def _groups(job: PublishedJob) -> str:
    numbers: dict[str, str] = {}
    for cell in job.cells:
        if cell.imbalance_words not in numbers:
            sizes = group_sizes(cell.class_counts(), **job.groups.resolved())
            numbers[cell.imbalance_words] = "/".join(str(sizes[name]) for name in GROUPS)
    listed = ", ".join(f"{imbalance}: {number}" for imbalance, number in numbers.items())
    return (
        f"Groups by training images a class: {', '.join(job.group_words().values())}; "
        f"number of classes in each: {listed}. {NOT_APPLICABLE}: no class in the group."
    )


def _forgetting(table: Table) -> list[str]:
    if "forgetting" not in (table.columns or []):
        return []
    return [
        "Forgetting: accuracy on test images of the data-rich classes, told apart among these alone, after "
        "the first phase of stage one minus after the last, in points; negative where it rose. What they "
        f"lose to data-poor classes shows in {GROUPS[0]}. {NOT_APPLICABLE}: no two phases that tell."
    ]


def _validation(job: PublishedJob, chosen: str) -> list[str]:
    if "validation" not in (job.settings.columns or []):
        return []
    twice = "; of rows that chose something by these images, with what they chose" if chosen else ""
    return [
        "Validation: mean accuracy of the classes in percent on the images by which rows may be chosen: "
        f"{job.validation}{twice}. {NOT_APPLICABLE}: no such image, or the classifier learnt from them."
    ]
