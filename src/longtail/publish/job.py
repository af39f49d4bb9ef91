"""What a table or a figure is handed when it is made: its settings and the finished runs that it reads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail.data.held_out import validation_words
from longtail.errors import UserError
from longtail.groups import group, group_words
from longtail.runs.lookup import locate, mixed
from longtail.runs.store import record
from longtail.settings.methods import settings_of
from longtail.settings.published import Groups
from longtail.settings.recipe import Recipe
from longtail.settings.split import Validation

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd


def imbalance_words(imbalance: str, ratio: float | None) -> str:
    """An imbalance as tables and figures say it: `ratio 100`, or the profile's label where it has none."""
    return imbalance if ratio is None else f"ratio {ratio:g}"


UNKNOWN = "unknown"  # what an old run did not record


def learns_from_validation(stage_one: Mapping[str, Any]) -> bool:
    """Whether a run of stage one, by its record, trained on validation images."""
    recipe = stage_one["settings"].get("recipe", {})
    steps = [dict(phase["step"]) for phase in (recipe, *recipe.get("then", ())) if phase.get("step")]
    options = [settings_of("steps", step.pop("name")).model_validate(step) for step in steps]
    return any(getattr(step, "learns_from_validation", False) for step in options)


def validation_can_judge(records: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether anything may be chosen by validation images: not the test images, nor any that were trained on.

    Args:
        records: run.json of split and stage_one.
    """
    of_test = records["split"]["settings"].get("validation", {}).get("source") == "test"
    return not of_test and not learns_from_validation(records["stage_one"])


@dataclass(frozen=True)
class Cell:
    """One method at one imbalance with one subset and one seed.

    Attributes:
        method: an entry of `methods`.
        imbalance: as in the names of runs, e.g. exp100.
        ratio: largest class / smallest class; None where the profile has no such setting.
        subset_seed: which images the imbalance left.
        seed: of training.
        runs: finished and verified folders by step.
        info: run.json of each, by step.
    """

    method: str
    imbalance: str
    ratio: float | None
    subset_seed: int
    seed: int
    runs: dict[str, Path]
    info: dict[str, dict[str, Any]]

    @property
    def imbalance_words(self) -> str:
        """The imbalance as tables and figures say it."""
        return imbalance_words(self.imbalance, self.ratio)

    def class_counts(self) -> list[int]:
        """Training images of each class, in label order."""
        return self.frame("split", "counts.csv")["train"].tolist()

    def metrics(self) -> dict[str, Any]:
        """metrics.json of stage two."""
        return dict(json.loads((self.runs["stage_two"] / "metrics.json").read_text("utf-8")))

    def rich(self) -> list[float]:
        """Share of right test images of data-rich classes, told apart among themselves, after each phase.

        Empty where stage one has no phase that is about some of the classes.
        """
        found = json.loads((self.runs["stage_one"] / "metrics.json").read_text("utf-8")).get("rich", {})
        return [parts["test"] for parts in found.values()]

    def validation(self) -> float | None:
        """Stage two's mean accuracy of the classes on validation images, a share.

        None without any, where these are the test images, and where the network has learnt from them.
        """
        found = self.metrics().get("validation", {}).get("selection_accuracy")
        return None if found is None or not validation_can_judge(self.info) else float(found)

    def predictions(self) -> "dict[str, npt.NDArray[Any]]":
        """predictions.safetensors of stage two: logits, labels and sample numbers of the test images.

        Mapped: with 8,142 classes the logits are 0.8 GB a run.
        """
        from safetensors.torch import load_file

        found = load_file(self.runs["stage_two"] / "predictions.safetensors")
        return {name: tensor.numpy() for name, tensor in found.items()}

    def frame(self, step: str, name: str) -> "pd.DataFrame":
        """A CSV file of a run: its history, or the counts of its classes."""
        from longtail.runs.frames import read_frame  # imports pandas

        return read_frame(self.runs[step] / name)

    def fact(self, step: str, key: str) -> str:
        """What a run's step recorded of itself (`device`, `precision`); "unknown" where it did not."""
        return str(self.info[step].get("facts", {}).get(key, UNKNOWN))

    def package(self, step: str, name: str) -> str:
        """Version of a package with which a run was computed."""
        return str(self.info[step].get("packages", {}).get(name) or UNKNOWN)


@dataclass(frozen=True)
class PublishedJob:
    """One table or figure.

    Attributes:
        name: what the files are called.
        kind: "table", or the figure's module in `longtail.publish.figures`.
        settings: `longtail.settings.published.Table`, or the figure's own Settings.
        groups: where many ends and few begins.
        validation: by which images anything was selected, in words.
        cells: methods in the order of the table, within each the imbalances, the subsets, the seeds.
        recipes: entries of `stage_one`.
        methods: entries of `methods`: {"stage_one": RECIPE, "stage_two": CLASSIFIER}.
        folder: where the files are written.
        files: SHA-256 of the other files that a figure reads; "" for one that was not at hand when planned.
        overview: the plan's runs and what they feed, for the figure that draws it
            (`longtail.orchestration.planned_overview`).
    """

    name: str
    kind: str
    settings: Any
    dataset: str
    groups: Groups
    validation: str
    cells: list[Cell]
    recipes: dict[str, Recipe]
    methods: dict[str, dict[str, str]]
    folder: Path
    files: dict[str, str] = field(default_factory=dict)
    overview: dict[str, Any] = field(default_factory=dict)

    def group(self, count: int) -> str:
        """Group of a class by its training images: many, medium or few."""
        return group(count, self.groups.many_above, self.groups.few_below)

    def group_words(self) -> dict[str, str]:
        """The groups as a reader is told them, e.g. `many (> 100)`."""
        return group_words(self.groups.many_above, self.groups.few_below)


def cells_of(planned: dict[str, Any]) -> list[Cell]:
    """The cells that something published reads, with the verified folders and records of their runs.

    Raises:
        UserError: if a run is damaged or missing, or was computed from others than those that are here.
    """
    folders = {
        step: {name: locate(step, {"run": name, **run}) for name, run in runs.items()}
        for step, runs in planned["runs"].items()
    }
    records = {step: {name: record(path) for name, path in found.items()} for step, found in folders.items()}
    for cell in planned["cells"]:
        if wrongly := mixed({step: records[step][name] for step, name in cell["runs"].items()}):
            raise UserError(f"{wrongly}; delete its folder and type the command again")
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


def job_of(planned: dict[str, Any], settings: Any, folder: Path) -> PublishedJob:
    """What is handed to a table or a figure, of what the plan says of it.

    Args:
        planned: the plan's JSON.
        settings: of the table or figure, read.
        folder: where the files are to be written.
    """
    context = planned["context"]
    return PublishedJob(
        name=planned["name"],
        kind=planned["settings"].get("name", "table"),
        settings=settings,
        dataset=context["dataset"],
        groups=Groups.model_validate(context["groups"]),
        validation=validation_words(Validation.model_validate(context["validation"])),
        cells=cells_of(planned),
        recipes={name: Recipe.model_validate(recipe) for name, recipe in context["recipes"].items()},
        methods=context["methods"],
        folder=folder,
        files=context.get("files", {}),
        overview=context.get("overview", {}),
    )
