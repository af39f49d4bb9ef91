"""Finished runs of other recipes that a run of stage one is built on: teachers, generators."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from longtail.errors import shown
from longtail.settings.base import Settings
from longtail.settings.names import EntryName

MOST = 1000  # teachers of one student


def _seeds(value: Any) -> Any:
    """Seeds as they may be said; one line for whatever else, as of two kinds of value each had its own."""
    example = "same, all or a list of seeds, e.g. [0, 1, 2]"
    if not isinstance(value, list):
        if value not in ("same", "all"):
            raise ValueError(f"{shown(value)} should be {example}")
        return value
    if not 1 <= len(value) <= MOST:
        raise ValueError(f"{len(value)} seeds; should be 1 to {MOST:,}, or same or all")
    for seed in value:
        if type(seed) is not int or seed < 0:
            raise ValueError(f"{shown(seed)} is no seed; seeds are whole numbers from 0, e.g. [0, 1, 2]")
    if len(set(value)) < len(value):
        raise ValueError(f"{shown(value)} names a seed twice")
    return value


class FinishedRuns(Settings):
    """Runs of another recipe at the same dataset, imbalance and subset; the recipe's name alone says it too.

    Which runs these are stands in the identity of a run among what it is built on, so names do not count.
    """

    stage_one: EntryName  # an entry of stage_one: its network
    stage_two: EntryName | None = None  # an entry of stage_two: its classifier in place of the network's own
    # same: the run of the same seed; all: one for each of `seeds`; a list: one for each of these, whatever
    # `seeds` of the file are
    seeds: Annotated[Literal["same", "all"] | list[int], BeforeValidator(_seeds)] = "same"

    def of(self, seed: int, seeds: Sequence[int]) -> list[int]:
        """The seeds of the runs that a run of a seed is built on.

        Args:
            seed: of the run.
            seeds: of the settings file.
        """
        if isinstance(self.seeds, list):
            return self.seeds
        return [seed] if self.seeds == "same" else list(seeds)

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """Nothing in the identity, which has the runs themselves."""
        return {} if hashed else super().kept()


def _named(value: Any) -> Any:
    return {"stage_one": value} if isinstance(value, str) else value


RunsOf = Annotated[FinishedRuns, BeforeValidator(_named)]


def _one(runs: FinishedRuns) -> FinishedRuns:
    if runs.seeds == "all" or (runs.seeds != "same" and len(runs.seeds) > 1):
        raise ValueError("several runs, but one is used; take seeds: same, or one seed, e.g. [0]")
    return runs


RunOf = Annotated[RunsOf, AfterValidator(_one)]  # one run
