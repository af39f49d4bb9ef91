"""Many, medium and few-shot classes by their number of training images: the one place that knows them."""

from collections.abc import Iterable

GROUPS = ("many", "medium", "few")
MANY_ABOVE = 100  # many-shot classes have more training images than this (Kang et al. 2020)
FEW_BELOW = 20  # few-shot classes have fewer


def group(count: int, many_above: int = MANY_ABOVE, few_below: int = FEW_BELOW) -> str:
    """Group of a class by its training images: many, medium or few."""
    if count > many_above:
        return "many"
    return "few" if count < few_below else "medium"


def group_words(many_above: int = MANY_ABOVE, few_below: int = FEW_BELOW) -> dict[str, str]:
    """The groups as a reader is told them, e.g. `many (> 100)`."""
    return {
        "many": f"many (> {many_above})",
        "medium": f"medium ({few_below} to {many_above})",
        "few": f"few (< {few_below})",
    }


def group_sizes(
    class_counts: Iterable[int], many_above: int = MANY_ABOVE, few_below: int = FEW_BELOW
) -> dict[str, int]:
    """How many classes are in each group."""
    found = [group(count, many_above, few_below) for count in class_counts]
    return {name: found.count(name) for name in GROUPS}
