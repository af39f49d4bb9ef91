"""Finished runs of other recipes that a run of stage one is built on: teachers, generators."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from longtail.settings.base import Settings
from longtail.settings.names import EntryName


class FinishedRuns(Settings):
    """Runs of another recipe at the same dataset, imbalance and subset; the recipe's name alone says it too.

    Which runs these are stands in the identity of a run among what it is built on, so names do not count.
    """

    stage_one: EntryName  # an entry of stage_one: its network
    stage_two: EntryName | None = None  # an entry of stage_two: its classifier in place of the network's own
    seeds: Literal["same", "all"] = "same"  # the run of the same seed, or one for each of `seeds`

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """Nothing in the identity, which has the runs themselves."""
        return {} if hashed else super().kept()


def _named(value: Any) -> Any:
    return {"stage_one": value} if isinstance(value, str) else value


RunsOf = Annotated[FinishedRuns, BeforeValidator(_named)]
