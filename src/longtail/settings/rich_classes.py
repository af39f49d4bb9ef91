"""Which classes are data-rich: the border that Asynchronous modelling draws, the rest being data-poor."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from longtail.settings.base import Settings

COMPUTES = True  # hashed with the runs that it computes (longtail.runs.code_identity)


class Rich(Settings):
    """Data-rich classes by a number of training images, or by the share of all images that they hold."""

    above: int | None = Field(None, ge=0)  # classes with more training images than this
    share: float | None = Field(None, gt=0, lt=1)  # the largest classes that together hold so much of all

    def model_post_init(self, _: Any) -> None:
        """Exactly one of the two is given."""
        if (self.above is None) == (self.share is None):
            raise ValueError("give above or share, one of the two, e.g. {above: 100} or {share: 0.8}")

    @property
    def words(self) -> str:
        """The border as a reader is told it."""
        if self.above is not None:
            return f"more than {self.above} training images"
        return f"the largest classes that hold {100 * (self.share or 0):.4g}% of the training images"


def rich_classes(rich: Rich, class_counts: Sequence[int]) -> list[bool]:
    """Whether each class is data-rich.

    With a share these are the fewest classes, largest first, equal ones in label order, that hold at least
    that share of all images.

    Args:
        rich: the border.
        class_counts: training images of each class, C of them.
    """
    if rich.above is not None:
        return [count > rich.above for count in class_counts]
    assert rich.share is not None
    result, held = [False] * len(class_counts), 0
    for label in sorted(range(len(class_counts)), key=lambda label: -class_counts[label]):
        if held >= rich.share * sum(class_counts):
            break
        result[label], held = True, held + class_counts[label]
    return result
