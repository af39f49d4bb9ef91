"""A setting chosen by the validation images: every value of a grid is tried, the best one stays."""

from collections.abc import Callable, Sequence

from longtail.stage_two.classifier import FeatureData, Fitted, selection_score


def chosen(
    key: str, grid: Sequence[float], classifier: Callable[[float], Fitted], data: FeatureData
) -> tuple[float, list[dict[str, float]]]:
    """The value with the highest selection score (the smallest of several), and the whole curve.

    The score is the mean accuracy of the classes with a full number of validation images; no other image
    is looked at.

    Args:
        key: the setting's name, for the curve and for the error.
        grid: values to try.
        classifier: the classifier that a value makes.
        data: has the validation images.

    Returns:
        The value, and a row `{key: value, "validation": score}` a value, in ascending order.

    Raises:
        ValueError: if there is no validation image to choose by.
    """
    if not len(data.validation_labels):
        raise ValueError(f"no validation image to choose {key} by: fix {key}, e.g. {key}: 1.0")
    classes = len(data.class_counts)
    curve = [
        {
            key: value,
            "validation": selection_score(
                classifier(value).logits(data.validation), data.validation_labels, classes
            ),
        }
        for value in sorted(grid)
    ]
    best = max(curve, key=lambda row: row["validation"])  # the first of equals
    return best[key], curve
