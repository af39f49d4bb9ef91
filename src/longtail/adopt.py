"""`longtail adopt`: record, in a tracked line with a reason, that new code gives the results of old code."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from longtail.errors import UserError
from longtail.identity import ADOPTED
from longtail.params import Params
from longtail.plan import STEPS, Run, identity_of, plan
from longtail.settings import Texts
from longtail.store import stored


def adopt(params: str, reason: str, steps: Sequence[str] = ()) -> None:
    """Let planned runs stand for finished ones that differ from them in nothing but the code.

    Goes down the steps in order, planning again after each: what is built on an adopted run changes its
    identity with it.

    Raises:
        UserError: if there is no such run, or no reason.
    """
    if not reason.strip():
        raise UserError("--reason: say why the results are the same, e.g. 'renamed variables'")
    if unknown := set(steps) - set(STEPS):
        raise UserError(f"{', '.join(sorted(unknown))}: not a step; there are {', '.join(STEPS)}")
    lines: dict[str, dict[str, str]] = {}
    for step in steps or STEPS:
        while new := _adoptable(step, params, lines):
            for code, old in new.items():
                lines[code] = {"step": step, "code": code, "as": old, "reason": reason.strip()}
            _append([lines[code] for code in new])
    if not lines:
        raise UserError("nothing to adopt: every planned run is finished, or never was with other code")
    for line in lines.values():
        print(f"{line['step']}: code {line['code'][:8]} stands for {line['as'][:8]}")


def _adoptable(step: str, params: str, known: Iterable[str]) -> dict[str, str]:
    """Digests of code of planned runs by which they differ from finished ones, with those of the latter.

    A phase of stage one is built on another: it is found once that one is adopted and all is planned anew.
    """
    return {
        run.code: old
        for run in plan(Params.load(params), params).runs(step).values()
        if run.code not in known and (old := _finished_with_other_code(run)) is not None
    }


def _finished_with_other_code(run: Run) -> str | None:
    """The code digest of a finished run that equals this one but for its code."""
    if run.step == "acquire" or (stored(run.step, run.name) / "run.json").is_file():
        return None
    label = run.name.removesuffix(run.identity[:8])
    for shelf in (stored(run.step, run.name).parent, Path(run.folder).parent):
        newest_first = sorted(shelf.glob(f"{label}*/run.json"), key=lambda file: -file.stat().st_mtime)
        for file in newest_first:
            found: dict[str, Any] = json.loads(file.read_text("utf-8"))
            code = str(found["code"]["digest"])
            if identity_of(run.step, run.settings, run.inputs, code, Texts(hashed=True)) == found["identity"]:
                return code
    return None


def _append(lines: Sequence[dict[str, str]]) -> None:
    if not lines:
        return
    new = not ADOPTED.exists()
    with ADOPTED.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", "code", "as", "reason"], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(lines)
