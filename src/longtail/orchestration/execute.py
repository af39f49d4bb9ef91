"""How a planned run is computed: looked up in the store, else computed there, then linked into results/.

longtail stage-one RUN    reads .longtail/plan/stage_one/RUN.json, and neither params.yaml nor a flag

A run that is in the store is linked without importing what computes it.
"""

import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail.device import threads
from longtail.errors import UserError
from longtail.orchestration.batching import SHARED_STEPS, budget, companions
from longtail.orchestration.gpu_memory import gpu_memory
from longtail.orchestration.step_errors import in_a_line
from longtail.runs import store
from longtail.runs.lookup import acquired, built_on_others, find, input_records, locate, pictures_root
from longtail.runs.record import recorded, same_code
from longtail.runs.steps import PUBLISHED, STEPS, module_of, settings_of_step, step_of
from longtail.runs.store import read_plan

if TYPE_CHECKING:
    from longtail.runs.job import Job

ANEW = "its files, lists or labels have changed since this was planned; type the command again"
USES_DEVICE = ("stage_one", "features", "stage_two")


def execute(step: str, name: str, into: str | None = None) -> None:
    """Compute one planned run, or give it back from the store.

    Args:
        step: of the run.
        name: of the run.
        into: the folder where it is to appear; settings files that share a run have folders of their own.

    Raises:
        UserError: for everything that is the user's to mend.
    """
    planned = read_plan(step, name)
    folder, seconds = Path(into or planned["folder"]), budget(step)
    if folder.resolve().name != name:  # what else it holds would be deleted
        raise UserError(f"--into {folder}: has to be a folder of the run alone, named {name}")
    with ExitStack() as device:
        with store.locked(step, name):
            finished = find(step, name, planned["identity"], input_records(planned))
            computed, leased = finished is None, None
            if finished is None:
                same_code(planned)
                at_once = 1
                if step in USES_DEVICE:
                    from longtail.runs import gpus, leases

                    devices = len(gpus.usable()) if step == "stage_one" else 1  # a lease hides others
                    count = planned.get("gpus", 1)  # an older plan does not say
                    leased = device.enter_context(leases.lease(count=count))
                    if leased:
                        leases.check(leased)
                    if leased and step == "stage_one" and _is_small(planned):
                        missing = 1 + sum(1 for _ in companions(step, name))
                        expected = gpu_memory(planned["settings"])
                        at_once = leases.runs_at_once(missing, leased, expected, devices)
                finished = compute(planned) if at_once == 1 else compute_together(planned, at_once)
            if finished.name != name:  # the same run under another entry's name
                finished = store.keep(_copy(finished, step, name), step, name)
            store.link(finished, folder)
            shutil.rmtree(store.scratch(step, name), ignore_errors=True)
        alone = step == "stage_one" and (leased or not _is_small(planned))
        if computed and seconds and not alone:
            until, last = time.monotonic() + seconds, store.record(finished)["seconds"]
            _share(planned, step, until, last)
            if not leased and threads() == 1:  # later steps compute on a core of the CPU
                for following in SHARED_STEPS[SHARED_STEPS.index(step) + 1 :]:
                    _share(planned, following, until, last)


def _is_small(planned: dict[str, Any]) -> bool:
    """Whether a training may share a device: pictures fill it, and memory that is not there twice."""
    return planned.get("gpus", 1) == 1 and not planned["settings"].get("images")


def _takes_as_long(planned: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two trainings see as many images with networks of one size."""
    one, two = (run["settings"]["recipe"] for run in (planned, other))
    if "schedule" not in one or "schedule" not in two:  # a trunk as it was published
        return False
    last, then = ((recipe["then"] or [recipe])[-1]["schedule"] for recipe in (one, two))
    same = all(one[key] == two[key] for key in ("network", "batch_size", "observers"))
    return same and last == then and planned["inputs"]["split"] == other["inputs"]["split"]


def _share(planned: dict[str, Any], step: str, until: float, last: float) -> None:
    """Compute other wanted runs of a step into the store, as long as one more like the last fits in.

    The step is that of the run, or a later one: features of what was just trained, classifiers over them.
    Never fails: what goes wrong here goes wrong in the run's own job, which says so.
    """
    run = planned["run"]
    done, other = 0, "another run"
    try:
        for found in companions(step, run):
            begun, other = time.monotonic(), found["run"]
            if begun + last > until:
                break
            if step == "stage_one" and not (_is_small(found) and _takes_as_long(planned, found)):
                continue
            with store.locked(step, other, wait=False) as held:
                if held and find(step, other, found["identity"]) is None:
                    compute(found)
                    shutil.rmtree(store.scratch(step, other), ignore_errors=True)
                    last, done = time.monotonic() - begun, done + 1
    except Exception as error:
        print(f"{other}: left to its own job ({error})", file=sys.stderr, flush=True)
    if done:
        said = f"{run}: {done} more of {step} computed beside it, for their jobs to link"
        print(said, file=sys.stderr, flush=True)


def _copy(finished: Path, step: str, name: str) -> Path:
    copy = store.scratch(step, name) / "finished"
    shutil.rmtree(copy, ignore_errors=True)
    store.link(finished, copy)
    return copy


def compute(planned: dict[str, Any]) -> Path:
    """Compute a run that this process has locked; where it stands in the store.

    Raises:
        UserError: for everything that is the user's to mend.
    """
    job = begin(planned)
    module = module_of(planned["step"])
    same_code(planned)
    same_files(planned)
    started = time.monotonic()
    try:
        module.compute(job)
    except Exception as error:
        if (said := in_a_line(error, planned, at_once=1)) is error:
            raise
        raise said from None
    return finish(planned, job, time.monotonic() - started)


def compute_together(planned: dict[str, Any], at_once: int) -> Path:
    """Compute a run that this process has locked, and up to at_once - 1 other wanted ones at the same time.

    Those go into the store; one that fails is left to its own job, which says why.

    Raises:
        UserError: for everything about the run itself that is the user's to mend.
    """
    step = planned["step"]
    with ExitStack() as locks:
        begun = [(planned, begin(planned))]
        for other in companions(step, planned["run"]):
            if len(begun) == at_once:
                break
            if not _is_small(other):
                continue
            try:
                with ExitStack() as lock:
                    held = lock.enter_context(store.locked(step, other["run"], wait=False))
                    if held and find(step, other["run"], other["identity"]) is None:
                        same_code(other)
                        begun.append((other, begin(other)))
                        locks.push(lock.pop_all())  # all else is free at once, not after hours
            except Exception as fault:
                print(f"{other['run']}: left to its own job ({fault})", file=sys.stderr, flush=True)
        module = module_of(step)
        same_code(planned)
        started = time.monotonic()
        errors = [
            error and in_a_line(error, other, at_once=len(begun))
            for (other, _), error in zip(
                begun, module.compute_together([job for _, job in begun]), strict=True
            )
        ]
        seconds = time.monotonic() - started
        for (other, job), error in list(zip(begun, errors, strict=True))[1:]:
            try:
                if error:
                    raise error
                finish(other, job, seconds)
                shutil.rmtree(store.scratch(step, other["run"]), ignore_errors=True)
            except Exception as fault:
                print(f"{other['run']}: left to its own job ({fault})", file=sys.stderr, flush=True)
        if error := errors[0]:
            raise error
        return finish(planned, begun[0][1], seconds)


def begin(planned: dict[str, Any]) -> "Job":
    """What the step is handed: verified inputs and an empty folder.

    Raises:
        UserError: if an input is damaged or missing.
        OSError: if the store cannot be written.
    """
    from longtail.runs.job import Job

    step, name = planned["step"], planned["run"]
    store.ready(step, name)
    inputs = {at: locate(step_of(at), reference) for at, reference in planned["inputs"].items()}
    pictures = checked_pictures(inputs["acquire"]) if "acquire" in inputs and step in USES_DEVICE else None
    if pictures is not None:  # looking at them may have taken minutes
        inputs["acquire"] = locate("acquire", planned["inputs"]["acquire"])
    scratch = store.scratch(step, name)
    outputs = scratch / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir(parents=True)
    return Job(
        step=step,
        run=name,
        settings=settings_of_step(step, planned["settings"]),
        inputs=inputs,
        built_on={at: store.outputs_digest(store.record(folder)) for at, folder in inputs.items()},
        folder=outputs,
        scratch=scratch,
        pictures=pictures,
    )


def same_files(planned: dict[str, Any]) -> None:
    """Refuse to acquire files under an identity that was given to other files, lists or labels.

    Raises:
        UserError: if they were edited or checked anew since this was planned.
    """
    if planned["step"] == "acquire" and planned["settings"]["files"] is not None:
        from longtail.data import catalogue

        settings = settings_of_step("acquire", planned["settings"])
        if catalogue.identity(settings.dataset, settings.files) != planned["identity"]:
            raise UserError(f"{planned['run']}: {ANEW}")


def checked_pictures(raw: Path) -> Path | None:
    """The folder of the pictures that a run is to see, once they are known to be those that it is built on.

    Where this machine has not read them yet, as in a new root or a new clone, all are hashed, once.

    Args:
        raw: the finished run of acquisition.

    Raises:
        UserError: if one is not what was checked, or the folder is not there.
    """
    root = pictures_root(raw)
    if root is not None:
        from longtail.data import catalogue

        settings = settings_of_step("acquire", acquired(raw))
        with store.locked("pictures", settings.dataset):
            if catalogue.identity(settings.dataset, settings.files) != store.record(raw)["identity"]:
                raise UserError(f"{settings.dataset}: {ANEW}")
            if changed := catalogue.changed(settings.dataset, settings.files):
                raise UserError(
                    f"{settings.dataset}: {root / changed[0]} is not the file that was checked; "
                    "`longtail check-data` reads all of them"
                )
    return root


def finish(planned: dict[str, Any], job: "Job", seconds: float) -> Path:
    """Record what the step wrote, and keep it; where it stands in the store.

    Raises:
        UserError: if the code, or the dataset, is not the planned one any more.
    """
    same_code(planned)
    same_files(planned)
    store.write_json(job.folder / "run.json", recorded(planned, job, seconds))
    return store.keep(job.folder, planned["step"], planned["run"])


def check(layer: str, plan: str) -> None:
    """Verify every run of a layer against identity and hashes, those of other settings beside them too.

    DVC takes the layer's folder as one: what nobody plans any more is committed with the rest.

    Raises:
        UserError: one line a file that is wrong.
    """
    listing = read_plan("layers", plan)
    wrong = []
    if layer not in STEPS:
        raise UserError(f"{layer}: no layer; there are {', '.join((*STEPS, *PUBLISHED))}")
    planned = {Path(reference["folder"]): reference["identity"] for reference in listing[layer]}
    names = {Path(reference["folder"]): reference["run"] for reference in listing[layer]}
    shelves = {folder.parent for folder in planned} if layer != "acquire" else set()
    beside = [file.parent for shelf in sorted(shelves) for file in sorted(shelf.glob("*/run.json"))]
    for folder in [*planned, *(folder for folder in beside if folder not in planned)]:
        try:
            found = store.verify(folder, planned.get(folder) or store.record(folder)["identity"])
            if folder in names:
                built_on = input_records(read_plan(layer, names[folder]))
                if wrongly := built_on_others(found, built_on):
                    raise UserError(f"{wrongly}; delete {folder} and type the command again")
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError(*wrong)
    print(f"{layer}: {len(listing[layer])} verified", file=sys.stderr)
