"""Training pictures of a class, once those for testing and for selection are set aside."""

from longtail.settings.data import HeldOut
from longtail.settings.split import Validation


def tested(pictures: int, held: HeldOut | None) -> int:
    """Pictures of a class that are held out as test images; with None the dataset names its own."""
    if held is None:
        return 0
    wanted = held.per_class if held.per_class is not None else max(1, round(pictures * (held.share or 0)))
    return 0 if held.untested and wanted >= pictures else wanted


def trained(pictures: int, held: HeldOut | None, validation: Validation) -> int:
    """Pictures of a class that are left to train on, at least 0, as `acquire` and `split` leave them.

    A holdout for validation is at least one picture, and leaves at least one.
    """
    left = max(0, pictures - tested(pictures, held))
    if validation.source == "holdout":
        left -= min(max(1, round(left * validation.share)), max(0, left - 1))
    return left


def validation_words(validation: Validation) -> str:
    """Where the images come from by which anything was selected, as a table says it."""
    return {
        "unused": f"unused training images (+{validation.per_class} a class for selection)",
        "holdout": f"holdout ({100 * validation.share:.4g}% of the training set)",
        "official": "the dataset's own validation images",
        "test": "test set (the literature's habit)",
    }[validation.source]
