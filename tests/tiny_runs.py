"""Every recipe and classifier of params.yaml, made so small that a run takes a second.

`python -m tests.tiny_runs` prints a digest of everything that they make: the same before and after a change
of code that is to change no result.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from longtail.features import extract
from longtail.runs.job import Job
from longtail.settings.classifier import FeaturesSettings, StageTwoSettings
from longtail.settings.finished_runs import FinishedRuns
from longtail.settings.method_blocks import blocks_in
from longtail.settings.params import Params
from longtail.settings.recipe import StageOneSettings
from longtail.settings.schedules import Length, StepDecay
from longtail.stage_one import training
from longtail.stage_two import fitting

ROOT = Path(__file__).parents[1]
COUNTS = [30, 16, 8, 5, 3]  # with 16 a batch and two phases: whole batches and rests


def params() -> Params:
    """The settings of the project."""
    return Params.load(ROOT / "params.yaml")


def write_inputs(folder: Path, counts: Sequence[int] = COUNTS) -> dict[str, Path]:
    """Raw images and a split of five classes that differ in brightness, two validation images of each."""
    raw, split = folder / "raw", folder / "split"
    raw.mkdir(parents=True)
    split.mkdir()
    random = torch.Generator().manual_seed(0)
    labels = {
        "train": torch.arange(5).repeat_interleave(torch.tensor(counts) + 2),
        "test": torch.arange(5).repeat(5),
    }
    for part, values in labels.items():
        noise = torch.randint(0, 60, (len(values), 3, 8, 8), generator=random)
        images = (noise + 45 * values[:, None, None, None]).to(torch.uint8)
        save_file({"images": images, "labels": values}, raw / f"{part}.safetensors")
    held = torch.zeros(len(labels["train"]), dtype=torch.bool)
    for label in range(5):
        held[(labels["train"] == label).nonzero().flatten()[:2]] = True
    chosen = {
        "train": (~held).nonzero().flatten(),
        "validation": held.nonzero().flatten(),
        "test": torch.arange(25),
    }
    for part, samples in chosen.items():
        source = labels["test" if part == "test" else "train"]
        rows = [f"{sample},{source[sample]}" for sample in samples.tolist()]
        (split / f"{part}.csv").write_text("\n".join(["sample,label", *rows, ""]))
    rows = [f"{label},c{label},{n},2,5" for label, n in enumerate(counts)]
    (split / "counts.csv").write_text("\n".join(["label,name,train,validation,test", *rows, ""]))
    return {"acquire": raw, "split": split}


def small(recipe: Any, epochs: int = 2) -> Any:
    """A recipe with a small network, few epochs, small batches; everything else as it is."""
    options = recipe.network.options.model_copy(update={"depth": 8, "width": 4})
    length = Length(epochs=epochs)

    def rate(learning_rate: Any) -> Any:
        decay = learning_rate.decay
        if isinstance(decay, StepDecay):
            at = [1 + place / len(decay.at) for place in range(len(decay.at))]  # before the end of two epochs
            decay = decay.model_copy(update={"at": at})
        return learning_rate.model_copy(update={"peak": 0.05, "warmup": 1, "decay": decay})

    step = recipe.step
    if hasattr(step.options, "start"):  # what begins late is to begin
        step = step.model_copy(update={"options": step.options.model_copy(update={"start": 0.5})})

    def bank(phase: Any) -> Any:
        return phase.bank and phase.bank.model_copy(update={"per_class": 3})

    then = [
        phase.model_copy(
            update={"schedule": length, "learning_rate": rate(phase.learning_rate), "bank": bank(phase)}
        )
        for phase in recipe.then
    ]
    return recipe.model_copy(
        update={
            "network": recipe.network.model_copy(update={"options": options}),
            "batch_size": 16,
            "schedule": length,
            "learning_rate": rate(recipe.learning_rate),
            "augmentation": recipe.augmentation.model_copy(
                update={"crop": 1, "cutout": min(3, recipe.augmentation.cutout)}
            ),
            "evaluate_every": 1,
            "rich": recipe.rich.model_copy(update={"above": 10}),
            "step": step,
            "then": then,
        }
    )


def job(recipe: Any, inputs: dict[str, Path], place: Path, precision: str = "float32") -> Job:
    """The job of a recipe's last phase."""
    settings = StageOneSettings(dataset="cifar10", recipe=recipe, seed=0, precision=precision)
    number = len(recipe.then)
    made = Job("stage_one", "run", settings, inputs, place / f"phase{number}", place / f"scratch{number}")
    made.folder.mkdir(parents=True)
    made.scratch.mkdir()
    return made


def trained(recipe: Any, inputs: dict[str, Path], place: Path, precision: str = "float32") -> Path:
    """Train all phases of a recipe, and first what it is built on; the folder of the last."""
    inputs = with_finished_runs(recipe, inputs, place)
    for number in range(len(recipe.then) + 1):
        own = job(recipe.until(number), inputs, place, precision)
        training.compute(own)
        inputs = {**inputs, "stage_one": own.folder}
    return own.folder


def with_finished_runs(recipe: Any, inputs: dict[str, Path], place: Path) -> dict[str, Path]:
    """Inputs, and small runs of the recipes and classifiers that a step names and that are not among them."""
    found = dict(inputs)
    for key, block in blocks_in(recipe.step, FinishedRuns):
        if f"{key}.0.stage_one" in inputs:
            continue
        other = small(params().stage_one[block.stage_one])
        folder = trained(other, inputs, place / key)
        settings = {"recipe": {"network": other.network.resolved()}}
        written = json.dumps({"identity": "", "outputs": {}, "settings": settings})
        (folder / "run.json").write_text(written, "utf-8")
        found[f"{key}.0.stage_one"] = folder
        if block.stage_two:
            classifier = params().stage_two[block.stage_two]
            features = extracted(other, folder, inputs, place / f"{key}-features", classifier.batchnorm)
            made = place / f"{key}-classifier"
            found[f"{key}.0.stage_two"] = fitted(classifier.method, features, inputs["split"], made)
    return found


def taught(
    recipe: Any, teachers: list[Path], inputs: dict[str, Path], place: Path, classifier: Path | None = None
) -> Path:
    """Train a small recipe of one phase that has finished runs of a network like its own as teachers."""
    settings = {"recipe": {"network": recipe.network.resolved()}}
    block = {"identity": "", "outputs": {}, "settings": settings}
    told = dict(inputs)
    for number, folder in enumerate(teachers):
        copy = place / f"teacher{number}"
        shutil.copytree(folder, copy)
        (copy / "run.json").write_text(json.dumps(block), "utf-8")
        told[f"teacher.{number}.stage_one"] = copy
        if classifier:
            told[f"teacher.{number}.stage_two"] = classifier
    return trained(recipe, told, place)


def distilled(**changes: Any) -> Any:
    """A small recipe that learns from teachers too."""
    recipe = small(params().stage_one["graloss"]).model_copy(update={"observers": []})
    block = {"name": "distillation", "teacher": "graloss", **changes}
    return type(recipe).model_validate({**recipe.resolved(), "step": block})


def extracted(
    recipe: Any, model: Path, inputs: dict[str, Path], folder: Path, batchnorm: str = "eval"
) -> Path:
    """Features of a trained recipe, all training images included."""
    settings = FeaturesSettings.model_validate(
        {
            "dataset": "cifar10",
            "views": 2,
            "batchnorm": batchnorm,
            "whole": True,
            "network": recipe.network,
            "augmentation": recipe.augmentation,
            "batch_size": recipe.batch_size,
            "seed": 0,
            "precision": "float32",
        }
    )
    folder.mkdir(parents=True)
    extract.compute(Job("features", "run", settings, {**inputs, "stage_one": model}, folder, folder))
    return folder


def fitted(method: Any, features: Path, split: Path, folder: Path) -> Path:
    """A classifier on features, with two epochs where it has any."""
    options = method.options
    short = {"epochs": 2, "generation_epochs": 2, "iterations": 20, "batch_size": 16}
    changes = {name: value for name, value in short.items() if hasattr(options, name)}
    method = method.model_copy(update={"options": options.model_copy(update=changes)})
    folder.mkdir(parents=True)
    inputs = {"features": features, "split": split}
    fitting.compute(Job("stage_two", "run", StageTwoSettings(method=method, seed=0), inputs, folder, folder))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """What a run has written, by file."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


def main() -> None:
    """Print a digest of every run."""

    def show(name: str, folder: Path) -> None:
        found = sha256(b"".join(name.encode() + data for name, data in contents(folder).items()))
        print(f"{found.hexdigest()[:16]}  {name}", flush=True)

    os.environ["LONGTAIL_EXTENSION"] = "off"
    settings = params()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        inputs = write_inputs(place / "inputs")
        for name, recipe in settings.stage_one.items():
            folder = trained(small(recipe), inputs, place / name)
            for number in range(len(recipe.then) + 1):
                show(f"{name} phase {number}", place / name / f"phase{number}")
        sharded = small(settings.stage_one["mixup"]).model_copy(update={"shards": 2})
        show("mixup in shards", trained(sharded, inputs, place / "sharded"))
        show("bf16", trained(small(settings.stage_one["graloss"]), inputs, place / "bf16", "bf16"))
        folder = place / "graloss" / "phase0"
        for batchnorm in ("eval", "train"):
            made = place / f"features-{batchnorm}"
            recipe = small(settings.stage_one["graloss"])
            show(made.name, extracted(recipe, folder, inputs, made, batchnorm))
        for name, classifier in settings.stage_two.items():
            made = place / f"features-{classifier.batchnorm}"
            show(name, fitted(classifier.method, made, inputs["split"], place / f"two-{name}"))
        bbn = small(settings.stage_one["bbn"])
        show("bbn in shards", trained(bbn.model_copy(update={"shards": 2}), inputs, place / "bbn-sharded"))
        show("features of bbn", extracted(bbn, place / "bbn" / "phase0", inputs, place / "bbn-features"))
        show("distilled", taught(distilled(), [folder], inputs, place / "distilled"))
        several = [folder, place / "la_tau0.5" / "phase0"]
        averaged = distilled(heads="one", power=0.5, labels=0.5, answers=0.5)
        show("distilled from two", taught(averaged, several, inputs, place / "averaged"))
        classified = place / "two-crt"
        show("distilled from crt", taught(distilled(), [folder], inputs, place / "from-crt", classified))


if __name__ == "__main__":
    sys.exit(main())
