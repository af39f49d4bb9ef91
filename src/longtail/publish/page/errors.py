"""Where a model errs: classes that are taken for others, groups that lose, and the most confident errors."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from longtail.groups import GROUPS
from longtail.publish.job import PublishedJob
from longtail.publish.page.choice import ChosenMethod
from longtail.publish.page.shown import count, named_rows, share

CONFUSIONS = 25  # pairs of classes
CLASSES = 40  # classes, the least accurate ones
WORST = 24  # images


def errors(job: PublishedJob, chosen: ChosenMethod, found: pd.DataFrame) -> dict[str, Any]:
    """What the page says of the errors of a method, over all its runs at one imbalance and subset.

    Args:
        job: whose groups count.
        chosen: the method, with its runs.
        found: their answers, as `pooled` gives them.
    """
    counts = chosen.cells[0].frame("split", "counts.csv")
    names, train = counts["name"].tolist(), counts["train"].tolist()
    groups = [job.group(number) for number in train]
    pairs = confusions(found)
    classes = least_accurate(found)
    return {
        "runs": len(chosen.cells),
        "images": found["sample"].nunique(),
        "answers": len(found),
        "wrong": int((found["label"] != found["predicted"]).sum()),
        "wrong_images": found.loc[found["label"] != found["predicted"], "sample"].nunique(),
        "groups": _groups(job, found, groups),
        "confusions": [
            {
                "given": names[row.label],
                "taken": names[row.predicted],
                "cells": [
                    count(row.number),
                    share(row.share),
                    count(train[row.label]),
                    count(train[row.predicted]),
                ],
            }
            for row in named_rows(pairs.head(CONFUSIONS))
        ],
        "confusions_left": max(0, len(pairs) - CONFUSIONS),
        "classes": [
            {
                "name": names[row.label],
                "group": groups[row.label],
                "cells": [count(train[row.label]), count(row.images), share(row.accuracy)],
                "taken": _taken(pairs, int(row.label), names),
            }
            for row in named_rows(classes.head(CLASSES))
        ],
        "classes_left": max(0, len(classes) - CLASSES),
        "names": names,
    }


def confusions(found: pd.DataFrame) -> pd.DataFrame:
    """Pairs of a class and another one that it is taken for, the most frequent first.

    Args:
        found: answers, as `pooled` gives them.

    Returns:
        label, predicted; number: of such answers; share: of all answers to images of the class.
    """
    wrong = found[found["label"] != found["predicted"]]
    pairs = wrong.groupby(["label", "predicted"]).size().rename("number").reset_index()
    totals = found.groupby("label").size()
    pairs["share"] = pairs["number"] / pairs["label"].map(totals)
    order = ["number", "share", "label", "predicted"]
    return pairs.sort_values(order, ascending=[False, False, True, True], ignore_index=True)


def least_accurate(found: pd.DataFrame) -> pd.DataFrame:
    """Classes that have test images, the least accurate first: label, images, accuracy over all runs."""
    right = found.assign(right=found["label"] == found["predicted"]).groupby("label")
    classes = pd.DataFrame({"images": right["sample"].nunique(), "accuracy": right["right"].mean()})
    return classes.reset_index().sort_values(["accuracy", "label"], ignore_index=True)


def worst(found: pd.DataFrame) -> pd.DataFrame:
    """The images that a run gets wrong, those of the most confident wrong answers first.

    An image's score is the mean over runs of the confidence in the wrong answer, 0 where a run is right; so
    what every run gets wrong comes first.

    Returns:
        sample, label; predicted: the wrong answer with the most confidence in all; confidence: the mean over
        the runs that give it; wrong, runs: how many runs are wrong, of how many.
    """
    runs = found.groupby("sample").size()
    wrong = found[found["label"] != found["predicted"]]
    told = wrong.groupby(["sample", "label", "predicted"])["confidence"].agg(["sum", "mean"]).reset_index()
    told = told.sort_values(["sample", "sum", "predicted"], ascending=[True, False, True])
    first = told.drop_duplicates("sample").set_index("sample")
    of_image = wrong.groupby("sample")["confidence"]
    images = pd.DataFrame(
        {
            "label": first["label"],
            "predicted": first["predicted"],
            "confidence": first["mean"],
            "wrong": of_image.size(),
            "runs": runs.reindex(first.index),
            "score": of_image.sum() / runs.reindex(first.index),
        }
    ).rename_axis("sample")
    ordered = images.reset_index().sort_values(["score", "sample"], ascending=[False, True])
    return ordered.drop(columns="score").reset_index(drop=True)


def _groups(job: PublishedJob, found: pd.DataFrame, groups: Sequence[str]) -> list[dict[str, Any]]:
    """Of the answers to images of each group: how many are right, and of which group the wrong ones are."""
    named = pd.Series(groups)
    of_label, of_answer = found["label"].map(named), found["predicted"].map(named)
    right = found["label"] == found["predicted"]
    rows = []
    for group, words in job.group_words().items():
        own = of_label == group
        if not own.any():
            continue
        wrong = [share(float((own & ~right & (of_answer == other)).sum() / own.sum())) for other in GROUPS]
        cells = [count(int(own.sum())), share(float((own & right).sum() / own.sum())), *wrong]
        rows.append({"words": words, "cells": cells})
    return rows


def _taken(pairs: pd.DataFrame, label: int, names: Sequence[str]) -> str:
    """What a class is taken for most often, with how often; "" for a class without an error."""
    own = pairs[pairs["label"] == label]
    return "" if own.empty else f"{names[int(own['predicted'].iloc[0])]} ({int(own['number'].iloc[0])})"
