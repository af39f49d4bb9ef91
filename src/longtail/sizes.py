"""Training pictures of a class, once those for testing and for selection are set aside."""

from longtail.params import Groups, Validation
from longtail.sources import HeldOut


def tested(pictures: int, held: HeldOut | None) -> int:
    """Pictures of a class that are held out as test images; with None the dataset names its own."""
    if held is None:
        return 0
    return held.per_class if held.per_class is not None else max(1, round(pictures * (held.share or 0)))


def trained(pictures: int, held: HeldOut | None, validation: Validation) -> int:
    """Pictures of a class that are left to train on, at least 0, as `acquire` and `split` leave them.

    A holdout for validation is at least one picture, and leaves at least one.
    """
    left = max(0, pictures - tested(pictures, held))
    if validation.source == "holdout":
        left -= min(max(1, round(left * validation.share)), max(0, left - 1))
    return left


def group(pictures: int, groups: Groups) -> str:
    """Group of a class by its training pictures: many, medium or few."""
    if pictures > groups.many_above:
        return "many"
    return "few" if pictures < groups.few_below else "medium"


def group_words(groups: Groups) -> dict[str, str]:
    """The groups as a reader is told them, e.g. `many (> 100)`."""
    many, few = groups.many_above, groups.few_below
    return {"many": f"many (> {many})", "medium": f"medium ({few} to {many})", "few": f"few (< {few})"}
