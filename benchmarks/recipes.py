"""What the recipes of table 2 cost beside cross-entropy: processor seconds of their schedules, one thread.

Each recipe of workflow/settings/table2-60-epochs.yaml is trained by the project's own stage one, on class
sizes like CIFAR-100-LT's. Images and epochs are fewer, all phases alike, so that what begins late begins at
the same share of the training. The runs that a recipe is built on (teachers, generators) are made up: what
they cost stands in their own rows.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks import data
from benchmarks.rows import Row, compared
from benchmarks.side import OURS, ROOT, Sample, Side, interleaved
from benchmarks.training import not_fused
from longtail.device import set_up
from longtail.runs.job import Job
from longtail.settings.finished_runs import FinishedRuns
from longtail.settings.method_blocks import blocks_in
from longtail.settings.params import Params
from longtail.settings.phase import PhaseSettings
from longtail.settings.phases import phases
from longtail.settings.recipe import Recipe, StageOneSettings
from longtail.settings.schedules import LearningRate, Length
from longtail.stage_one.assembly import make_network
from longtail.stage_one.networks.extension import VARIABLE
from longtail.stage_one.training import TrainingRun

PART = "recipes"
SETTINGS = ROOT / "workflow" / "settings" / "table2-60-epochs.yaml"
PLAIN = "ce_plain"
FEWER_IMAGES, FEWER_EPOCHS = 16, 12  # than the table's
EVALUATED = 100  # test images, after the last epoch


def recipes() -> dict[str, Recipe]:
    """The recipes of stage one that the rows train, in their order, after those that they are built on."""
    params = Params.load(SETTINGS)
    found: dict[str, Recipe] = {}

    def add(name: str) -> None:
        recipe = params.stage_one[name]
        assert isinstance(recipe, Recipe)
        for _, block in blocks_in(recipe.step, FinishedRuns):
            add(block.stage_one)
        found.setdefault(name, recipe)

    for row in params.tables["table2"].rows:
        assert row.method
        add(params.methods[row.method].stage_one)
    return found


def shorter(recipe: Recipe, epochs: int) -> Recipe:
    """A recipe whose phases all have so many times fewer epochs, at a constant rate."""

    def changed(phase: PhaseSettings) -> dict[str, Any]:
        length = Length(epochs=max(1, round(_epochs(phase) / epochs)))
        return {"schedule": length, "learning_rate": LearningRate(peak=0.01)}

    first, *later = phases(recipe)
    then = [own.model_copy(update=changed(phase)) for own, phase in zip(recipe.then, later, strict=True)]
    return recipe.model_copy(update={**changed(first), "then": then, "evaluate_every": 10**6})


def _epochs(phase: PhaseSettings) -> int:
    assert phase.schedule.epochs  # the table's settings count in epochs
    return phase.schedule.epochs


def training(recipe: str, images: int, epochs: int) -> Callable[[], dict[str, Any]]:
    """Processor seconds of a recipe's whole schedule, from one with so many times fewer images and epochs."""
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_up(where)
    params = Params.load(SETTINGS)
    whole = params.stage_one[recipe]
    assert isinstance(whole, Recipe)
    chosen = shorter(whole, epochs)
    counts = (data.cifar_counts() // images).clamp_min(1)

    def measure() -> dict[str, Any]:
        found = []
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            inputs = write_inputs(place, counts) | dict(_finished_runs(params, chosen, place))
            for number, phase in enumerate(phases(chosen)):
                settings = StageOneSettings(dataset="cifar100", recipe=chosen.until(number), seed=0)
                made, scratch = place / f"{number}", place / f"{number}.scratch"
                job = Job("stage_one", recipe, settings, inputs, made, scratch)
                job.folder.mkdir()
                job.scratch.mkdir()
                run = TrainingRun(job)
                started = time.process_time()
                run.run()
                seconds = time.process_time() - started
                run.write()
                inputs = inputs | {"stage_one": job.folder}
                found.append(seconds * _epochs(phases(whole)[number]) / _epochs(phase))
        return {"seconds": sum(found) * int(data.cifar_counts().sum()) / int(counts.sum())}

    return measure


def write_inputs(place: Path, counts: torch.Tensor) -> dict[str, Path]:
    """Noise as raw images, and a split of classes of these sizes with two validation images each."""
    raw, split = place / "raw", place / "split"
    raw.mkdir()
    split.mkdir()
    sizes = {"train": counts, "validation": torch.full_like(counts, 2)}
    labels = {"train": torch.cat([data.labels_of(own) for own in sizes.values()])}
    labels["test"] = torch.arange(EVALUATED) % len(counts)
    for part, own in labels.items():
        save_file({"images": data.images(len(own)), "labels": own}, raw / f"{part}.safetensors")
    number = int(counts.sum())
    samples = {
        "train": range(number),
        "validation": range(number, len(labels["train"])),
        "test": range(EVALUATED),
    }
    for part, chosen in samples.items():
        of = labels["test" if part == "test" else "train"].tolist()
        lines = ["sample,label", *(f"{sample},{of[sample]}" for sample in chosen), ""]
        (split / f"{part}.csv").write_text("\n".join(lines), "utf-8")
    lines = [f"{label},class {label},{count},2,1" for label, count in enumerate(counts.tolist())]
    text = "\n".join(["label,name,train,validation,test", *lines, ""])
    (split / "counts.csv").write_text(text, "utf-8")
    return {"acquire": raw, "split": split}


def _finished_runs(params: Params, recipe: Recipe, place: Path) -> Iterator[tuple[str, Path]]:
    """What a recipe's step is built on, with weights that nothing has learned."""
    for key, block in blocks_in(recipe.step, FinishedRuns):
        other = params.stage_one[block.stage_one]
        network = make_network(other, 3, data.CLASSES, "benchmark")
        folder = place / f"{key}.stage_one"
        folder.mkdir()
        save_file(network.state_dict(), folder / "model.safetensors")
        said = {"identity": "", "outputs": {}, "settings": {"recipe": {"network": other.network.resolved()}}}
        (folder / "run.json").write_text(json.dumps(said), "utf-8")
        yield f"{key}.0.stage_one", folder
        if block.stage_two:
            made = place / f"{key}.stage_two"
            made.mkdir()
            weights = {"weight": torch.zeros(data.CLASSES, 64), "bias": torch.zeros(data.CLASSES)}
            save_file(weights | {"tukey": torch.ones(())}, made / "classifier.safetensors")
            yield f"{key}.0.stage_two", made


def rows(quick: bool) -> list[Row]:
    """The part's figures: one recipe after the other beside cross-entropy; a process holds a gigabyte."""
    fewer = {"images": 200, "epochs": 60} if quick else {"images": FEWER_IMAGES, "epochs": FEWER_EPOCHS}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        why_not = not_fused(folder)
        environment = OURS if why_not else {**OURS, VARIABLE: folder}
        with Side("benchmarks.recipes:training", environment, {"recipe": PLAIN, **fewer}) as plain:
            for name in recipes():
                if name == PLAIN:
                    continue
                with Side("benchmarks.recipes:training", environment, {"recipe": name, **fewer}) as side:
                    measured = interleaved({"plain": plain, "recipe": side}, 1 if quick else 2)
                found.append(figure(name, measured["plain"], measured["recipe"], fused=not why_not))
    return found


def figure(name: str, plain: list[Sample], recipe: list[Sample], fused: bool) -> Row:
    """The row of interleaved samples."""
    row = Row(
        PART,
        f"{name}: its schedule beside cross-entropy's",
        "x",
        note=f"processor time; batch normalisation {'fused' if fused else 'not fused'}",
        load=median(sample.load for sample in recipe),
        peak_mb=max(sample.peak_mb for sample in recipe),
    )
    pairs = zip(plain, recipe, strict=True)
    return compared(row, [b.found["seconds"] / a.found["seconds"] for a, b in pairs])
