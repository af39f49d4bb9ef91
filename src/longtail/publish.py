"""What is published under stable names: tables, figures, models, the report; made again when not the plan's.

Beside each stands its identity (NAME.identity.json). While the Snakefile is read, `stamp` makes the time
stamps tell the truth: later than its inputs where the record is the plan's, the epoch where it is not.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail import store
from longtail.errors import UserError
from longtail.identity import file_digest
from longtail.params import Groups, Recipe, Table, Validation
from longtail.plan import Plan, Published
from longtail.run import locate, same_code
from longtail.settings import settings_of
from longtail.store import read_plan

if TYPE_CHECKING:
    from longtail.published_job import Cell

STALE = 1.0  # a second after the epoch: Snakemake takes a time of 0 for no time at all


def is_current(record: str, identity: str, outputs: list[str]) -> bool:
    """Whether the published files are those of this identity, untouched."""
    try:
        found = _read(record)
        hashes = {Path(name).name: file_digest(Path(name)) for name in outputs}
        return bool(found.get("identity") == identity and found.get("outputs") == hashes)
    except OSError:
        return False


def _read(record: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(record).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def stamp(plan: Plan) -> None:
    """Give every published file a time by which Snakemake judges rightly; see the module's docstring.

    A file whose time tells the truth already keeps it, so that a second Snakemake disturbs no first.
    """
    _forget_other_data(plan)
    times: dict[str, float] = {}  # of run records, which many read
    for item in plan.published():
        current = is_current(item.record, item.identity, item.outputs)
        if not current:
            _clear_edited(item)
        files = [path for path in map(Path, [*item.outputs, item.record, item.benchmark]) if path.is_file()]
        for name in item.inputs:
            if name not in times:
                times[name] = _time(name)
        newest = max((times[name] for name in item.inputs), default=0.0)
        if not current and files:
            _ask_again(item)
        for path in files:
            if not current:
                _set_time(path, STALE)
            elif _time(str(path)) <= newest:
                _set_time(path, newest + 0.01)


def _forget_other_data(plan: Plan) -> None:
    """Let a dataset of picture files be acquired anew where its files are not those of the plan any more.

    Its folder has the dataset's name alone, so that dvc.yaml can name it.
    """
    for run in plan.acquire.values():
        found = _read(run.record)
        if found.get("identity") not in (None, run.identity):
            # Nothing else goes: the pictures themselves may lie there.
            for name in ("run.json", *found.get("outputs", {})):
                if Path(name).name == name:
                    (Path(run.folder) / name).unlink(missing_ok=True)


def _ask_again(item: Published) -> None:
    """Write what the command is told anew, with a field that nothing reads.

    Snakemake forgives every input whose checksum it saw when it last ran the job, though another table
    may have been put in place of that job's since (by git or DVC).
    """
    told = {**item.planned, "identity": item.identity, "asked": time.time_ns()}
    store.write_json(Path(item.inputs[0]), told, indent=None)


def _time(path: str) -> float:
    """Of a file; 0 where there is none."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _clear_edited(item: Published) -> None:
    """Where the record is the plan's but a file was edited or deleted, no input is new: make room for all.

    An edited file is kept beside its place.
    """
    found = _read(item.record)
    if found.get("identity") != item.identity:
        return
    for path in map(Path, item.outputs):
        if path.is_file() and file_digest(path) == found.get("outputs", {}).get(path.name):
            path.unlink()
        elif path.is_file():
            edited = path.with_name(f"{path.name}.edited")
            path.replace(edited)
            print(f"{path}: was edited by hand; kept as {edited}, made anew", file=sys.stderr)
    Path(item.record).unlink()


def _set_time(path: Path, when: float) -> None:
    if path.is_symlink() or path.stat().st_nlink > 1:  # a link into DVC's cache, whose times are its own
        copy = path.with_name(f".{path.name}.{os.getpid()}")
        shutil.copyfile(path, copy)
        copy.replace(path)
    os.utime(path, (when, when))


def execute(kind: str, name: str, identity: str) -> None:
    """Make one table, figure or report as planned, and record what it is.

    Raises:
        UserError: if a run that it reads is missing or damaged, or the code is not the planned code.
    """
    planned = read_plan(kind, f"{name}-{identity}")
    same_code(planned)
    outputs = [Path(output) for output in planned["outputs"]]
    target = outputs[0].parent
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=f".{outputs[0].stem}.") as temporary:
        folder = Path(temporary)
        if kind == "report":
            _report(planned, folder / outputs[0].name)
        elif kind == "models":
            from longtail import models

            models.compute(name, planned["context"]["among"], _cells(planned), folder)
        else:
            _draw(kind, planned, folder)
        same_code(planned)
        hashes = {output.name: file_digest(folder / output.name) for output in outputs}
        record = target / f"{outputs[0].stem}.identity.json"
        record.unlink(missing_ok=True)
        for output in outputs:
            (folder / output.name).replace(output)
    store.write_json(record, {"identity": planned["identity"], "outputs": hashes})


def _cells(planned: dict[str, Any]) -> "list[Cell]":
    """The cells that it reads, with the verified folders and records of their runs."""
    from longtail.published_job import Cell

    folders = {
        step: {name: locate(step, {"run": name, **run}) for name, run in runs.items()}
        for step, runs in planned["runs"].items()
    }
    records = {
        step: {name: store.record(path) for name, path in found.items()} for step, found in folders.items()
    }
    return [
        Cell(
            method=cell["method"],
            imbalance=cell["imbalance"],
            ratio=cell["ratio"],
            subset_seed=cell["subset_seed"],
            seed=cell["seed"],
            runs={step: folders[step][name] for step, name in cell["runs"].items()},
            info={step: records[step][name] for step, name in cell["runs"].items()},
        )
        for cell in planned["cells"]
    ]


def _draw(kind: str, planned: dict[str, Any], folder: Path) -> None:
    from longtail.published_job import PublishedJob

    context = planned["context"]
    settings: Any
    if kind == "tables":
        from longtail import tables as module

        settings = Table.model_validate(planned["settings"])
    else:
        from longtail import figures as module  # type: ignore[no-redef]

        options = {key: value for key, value in planned["settings"].items() if key != "name"}
        settings = settings_of("figures", planned["settings"]["name"]).model_validate(options)
    job = PublishedJob(
        name=planned["name"],
        kind=planned["settings"].get("name", "table"),
        settings=settings,
        dataset=context["dataset"],
        groups=Groups.model_validate(context["groups"]),
        validation=Validation.model_validate(context["validation"]).words,
        cells=_cells(planned),
        recipes={name: Recipe.model_validate(recipe) for name, recipe in context["recipes"].items()},
        methods=context["methods"],
        folder=folder,
    )
    module.compute(job)


def _report(planned: dict[str, Any], output: Path) -> None:
    """`snakemake --report`: the figures and tables with captions, and the code of every rule, in one page."""

    def check_inputs() -> None:
        if wrong := [item["outputs"][0] for item in planned["built_on"] if not is_current(**item)]:
            raise UserError(f"{', '.join(wrong)}: changed since this was planned; type the command again")

    check_inputs()
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nolock", "--quiet"]
    command += ["--config", f"params={planned['settings']['source']}", "--report", str(output)]
    done = subprocess.run(
        [*command, "--", *planned["context"]["targets"]], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not output.is_file():
        raise UserError(f"snakemake --report failed: {' '.join(done.stderr.split())[-2000:]}")
    check_inputs()


def check(layer: str, plan: str) -> None:
    """Verify published tables or figures against the record beside them.

    Raises:
        UserError: naming the files that are wrong.
    """
    items = read_plan("layers", plan)[layer]
    wrong = [item["outputs"][0] for item in items if not is_current(**item)]
    if wrong:
        raise UserError("\n".join(f"{name}: is not the plan's; type the command again" for name in wrong))
    print(f"{layer}: {len(items)} verified", file=sys.stderr)
