"""What is finished already, so that Snakemake need not ask.

Snakemake spends milliseconds on every job that it thinks of, also where nothing is to do. What a plan needs
and what is there already is therefore left out of its rules: to Snakemake it is a file like any other, and
the cost of an invocation grows with what is to be made. Whatever shows or changes the whole graph (a
report, a picture of the graph, forced jobs) sees all of it.
"""

import os
import re
from collections.abc import Collection, Iterable, Sequence
from os.path import isfile

from longtail.orchestration.plan import Plan
from longtail.orchestration.published import Published
from longtail.orchestration.run import Run
from longtail.publish.published_record import read_record

# Options of Snakemake that show or change more than what is missing.
WHOLE = (
    *("--report", "--lint", "--dag", "--rulegraph", "--filegraph", "--d3dag", "--summary", "-S"),
    *(
        "--detailed-summary",
        "-D",
        "--archive",
        "--delete-all-output",
        "--delete-temp-output",
        "--touch",
        "-t",
    ),
    *("--force", "-f", "--forceall", "-F", "--forcerun", "-R", "--until", "-U", "--omit-from", "-O"),
    *("--list-input-changes", "--li", "--list-params-changes", "--lp", "--list-code-changes", "--lc"),
    *("--cleanup-metadata", "--cm", "--generate-unit-tests", "--list-target-rules", "--export-cwl"),
    *("--rerun-triggers", "--consider-ancient", "--batch", "--draft-notebook", "--edit-notebook"),
)


class Missing:
    """What of a plan is to be made: all that a rule has to match.

    Args:
        plan: of all runs.
        current: what is published and current, as `stamp` found it; None: nothing is left out.
        arguments: Snakemake's command line. What it names is not left out, so that it can be asked for.
    """

    def __init__(self, plan: Plan, current: Collection[Published] | None, arguments: Sequence[str]) -> None:
        if current is None or any(_shows_all(word) for word in arguments):
            current = ()
            finished: set[Run] = set()
        else:
            finished = {run for run in plan.everything() if is_finished(run)}
        asked = [_from_here(word) for word in arguments]

        def is_asked(run: Run) -> bool:
            return any(word.startswith(f"{run.folder}/") for word in asked)

        to_do = [run for run in plan.everything() if run not in finished or is_asked(run)]
        self.runs = pattern(run.name for run in to_do) if finished else ANY
        self._finished = {run.record for run in finished.difference(to_do)}
        self._left_out: set[Published] = set()
        for item in plan.published() if finished else []:
            if (
                item in current
                and all(other in self._left_out for other in item.built_on)
                and all(run in finished for of_step in item.runs.values() for run in of_step.values())
                and not any(name in asked for name in item.outputs)
            ):
                self._left_out.add(item)

    def published(self, items: Iterable[Published]) -> str:
        """The names of tables, figures or models that are to be made, as a regular expression."""
        return "|".join(re.escape(item.name) for item in items if item not in self._left_out) or NOTHING

    def inputs(self, item: Published) -> list[str]:
        """What Snakemake has to make before it makes something published; nothing where it is current.

        Records of finished runs are not named: `stamp` has judged by them already.
        """
        return [] if item in self._left_out else [name for name in item.inputs if name not in self._finished]


NOTHING = "(?!)"  # matches no name
ANY = r"[a-z0-9][a-z0-9_.-]*"


def is_finished(run: Run) -> bool:
    """Whether a run stands in its folder, whole and with the plan's identity; its outputs are not read."""
    record = read_record(run.record)
    outputs = record.get("outputs")
    if record.get("identity") != run.identity or not isinstance(outputs, dict):
        return False
    return all(isfile(f"{run.folder}/{name}") for name in outputs)


def pattern(names: Iterable[str]) -> str:
    """A regular expression of these names, quick to match however many there are.

    A run is told by the end of its name, eight digits of its identity; these are tried by their first two.
    """
    ends: dict[str, list[str]] = {}
    others = []
    for name in names:
        if found := re.search(r"-([0-9a-f]{2})([0-9a-f]{6})$", name):
            ends.setdefault(found[1], []).append(found[2])
        else:
            others.append(re.escape(name))
    if ends:
        tried = "|".join(f"{first}(?:{'|'.join(sorted(ends[first]))})" for first in sorted(ends))
        others.append(f"{ANY}-(?:{tried})")
    return "|".join(others) or NOTHING


def _from_here(word: str) -> str:
    """A path of the command line as the plan has its paths: relative to the project's folder."""
    path = os.path.normpath(word)
    here = os.getcwd() + os.sep
    return path.removeprefix(here)


def _shows_all(word: str) -> bool:
    """Whether a word of Snakemake's command line is an option of `WHOLE`, or may be short for one."""
    if not word.startswith("-") or word == "-":
        return False
    if not word.startswith("--"):
        return any(f"-{letter}" in WHOLE for letter in word[1:])
    name = word.partition("=")[0]
    return len(name) > 2 and any(option.startswith(name) for option in WHOLE)
