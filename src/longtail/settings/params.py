"""params.yaml as typed settings: read, checked, and every default filled in.

Nothing here is hashed as code: a run's identity holds the resolved settings, not how they were read.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from longtail.errors import UserError, exact, shown
from longtail.settings.base import Settings
from longtail.settings.classifier import Classifier, Features
from longtail.settings.data import Data, PublishedData
from longtail.settings.datasets import DATASETS
from longtail.settings.messages import error_lines, joined
from longtail.settings.method_blocks import Figure
from longtail.settings.names import NAME, EntryName, Line
from longtail.settings.published import Groups, LabelIssuesBlock, MethodRow, Model, Sweep, Table
from longtail.settings.reading import read_file
from longtail.settings.recipe import Recipe, Training
from longtail.settings.references import wrong_reference
from longtail.settings.row_shorthand import rows_in_full
from longtail.settings.shorthand import MisplacedError, entries_in_full
from longtail.settings.split import ImbalanceBlock, Validation


def _source(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=1000)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, int) else value


def _data_kind(value: Any) -> Any:
    return {"kind": "published", **value} if isinstance(value, dict) else value


class Params(Settings):
    """The whole of params.yaml."""

    dataset: str  # cifar100, cifar10, fashion_mnist, digits; or a name of your own for pictures in files
    data: Annotated[Data, BeforeValidator(_data_kind)] = PublishedData()  # where the images come from
    imbalance: ImbalanceBlock
    validation: Annotated[Validation, BeforeValidator(_source)] = Validation()
    subset_seed: Annotated[Seeds, BeforeValidator(_listed)] = Field([0])  # one, or several to average over
    seeds: Seeds = Field([0])  # one training for each
    precision: Literal["auto", "bf16", "float32"] = "auto"  # auto: bf16 where the hardware has it
    groups: Groups = Groups()
    training: Training = Training()
    stage_one: dict[EntryName, Recipe]
    features: Features = Features()
    stage_two: dict[EntryName, Classifier]
    methods: dict[Line, MethodRow] = Field({})  # with those that rows of tables name by recipe and classifier
    tables: dict[EntryName, Table] = Field({})
    # results: tables of a settings file other than params.yaml stand beside those of params.yaml
    tables_in: Literal["results"] | None = None
    figures: dict[EntryName, Figure] = Field({})  # what is drawn, each by the name of its file
    sweeps: dict[EntryName, Sweep] = Field({})
    models: dict[EntryName, Model] = Field({})
    # pictures whose label is likely wrong, by the features of a method; null: none are looked for
    label_issues: LabelIssuesBlock | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete_entries(cls, value: Any) -> Any:
        """A recipe is `training` with its own blocks in place; `stage_two: {afg: ...}` is the method afg."""
        if isinstance(value, dict):
            value = rows_in_full(entries_in_full(value))
            shared = value.get("training")
            if isinstance(shared, dict) and isinstance(value.get("stage_one"), dict):
                known = {key: item for key, item in shared.items() if key in Training.model_fields}
                value["stage_one"] = {
                    name: {**known, **entry} if isinstance(entry, dict) else entry
                    for name, entry in value["stage_one"].items()
                }
            for kind, read in (("stage_two", _classifier), ("figures", _figure)):
                if isinstance(value.get(kind), dict):
                    value[kind] = {name: read(name, entry) for name, entry in value[kind].items()}
        return value

    @model_validator(mode="after")
    def _names_exist(self) -> "Params":
        if isinstance(self.data, PublishedData):
            if self.dataset not in DATASETS:
                there = (
                    f"there are {', '.join(DATASETS)}; data.kind: folder, list or csv is for your own files"
                )
                raise MisplacedError("dataset", f"{shown(self.dataset)} is unknown; {there}")
        elif self.dataset in DATASETS or not NAME.fullmatch(self.dataset):
            allowed = "small letters, digits, '_', '.', '-', 80 at most, and no name of a published dataset"
            raise MisplacedError("dataset", f"{shown(self.dataset)} names files of your own; {allowed}")
        for key, seeds in (("seeds", self.seeds), ("subset_seed", self.subset_seed)):
            if len(set(seeds)) != len(seeds):
                raise MisplacedError(key, f"{seeds} names a seed twice")
        for name, recipe in self.stage_one.items():
            if wrong := recipe.out_of_scope() or recipe.in_vain():
                raise MisplacedError(f"stage_one.{name}", wrong)
            made = next((phase for phase in recipe.then if phase.companions), None)
            if made and not isinstance(self.data, PublishedData):
                raise MisplacedError(
                    f"stage_one.{name}",
                    f"companions (phase {made.name}) are made in memory, of the small images of a published "
                    "dataset; of picture files leave them out",
                )
        if misplaced := wrong_reference(self.stage_one, self.stage_two):
            raise MisplacedError(*misplaced)
        for name, method in self.methods.items():
            for kind, entries in (("stage_one", self.stage_one), ("stage_two", self.stage_two)):
                if (entry := getattr(method, kind)) not in entries:
                    raise MisplacedError(
                        f"methods.{name}.{kind}",
                        f"{shown(entry)} is not an entry of {kind}: {', '.join(entries)}",
                    )
        for name, table in self.tables.items():
            for index, row in enumerate(table.rows):
                for key, wanted in (("method", row.method), ("linear", row.linear)):
                    if wanted is not None and wanted not in self.methods:
                        raise MisplacedError(
                            f"tables.{name}.rows[{index}].{key}",
                            f"{shown(wanted)} is not an entry of methods: {', '.join(self.methods)}",
                        )
            known = self.imbalance.ratios or []
            if unknown := [ratio for ratio in table.ratios or [] if ratio not in known]:
                raise MisplacedError(
                    f"tables.{name}.ratios",
                    f"{exact(unknown[0])} is not one of imbalance.ratios: {', '.join(map(exact, known))}",
                )
        for name, sweep in self.sweeps.items():
            if sweep.method not in self.methods:
                raise MisplacedError(
                    f"sweeps.{name}.method",
                    f"{shown(sweep.method)} is not an entry of methods: {', '.join(self.methods)}",
                )
        for name, model in self.models.items():
            if model.table is not None and model.table not in self.tables:
                allowed = ", ".join(self.tables)
                raise MisplacedError(f"models.{name}.table", f"{shown(model.table)} is not one of {allowed}")
            if model.table is not None and not self.tables[model.table].methods:
                raise MisplacedError(
                    f"models.{name}.table", f"{shown(model.table)} has no method of ours, only printed rows"
                )
            if model.method is not None and model.method not in self.methods:
                allowed = ", ".join(self.methods)
                raise MisplacedError(
                    f"models.{name}.method", f"{shown(model.method)} is not one of {allowed}"
                )
            if model.method is not None and not any(model.method in t.methods for t in self.tables.values()):
                raise MisplacedError(f"models.{name}.method", f"{shown(model.method)} stands in no table")
            if model.table is not None and self.validation.source == "test":
                raise MisplacedError(
                    f"models.{name}.table",
                    "with validation: test the best method would be chosen by test images; name a method",
                )
        if (issues := self.label_issues) is not None:
            if issues.method not in self.methods:
                allowed = ", ".join(self.methods)
                raise MisplacedError("label_issues.method", f"{shown(issues.method)} is not one of {allowed}")
            if not any(issues.method in table.methods for table in self.tables.values()):
                raise MisplacedError("label_issues.method", f"{shown(issues.method)} stands in no table")
        for name, figure in self.figures.items():
            table_name = getattr(figure.options, "table", None)
            if table_name is not None and table_name not in self.tables:
                raise MisplacedError(
                    f"figures.{name}.table", f"{shown(table_name)} is not one of {', '.join(self.tables)}"
                )
            if table_name is not None and (absent := self._absent(figure, table_name)):
                raise MisplacedError(f"figures.{name}.{absent[0]}", absent[1])
        return self

    def _absent(self, figure: Figure, name: str) -> tuple[str, str] | None:
        """What a figure asks for that its table does not have: the key, and what is wrong."""
        table = self.tables[name]
        ratio, methods, classes = (
            getattr(figure.options, key, None) for key in ("ratio", "methods", "classes")
        )
        known = [one for one in self.imbalance.ratios or [] if table.shows(one)]
        if ratio is not None and ratio not in known:
            listed = ", ".join(map(exact, known)) or "none"
            return "ratio", f"{exact(ratio)} is not among the ratios of {name}: {listed}"
        if unknown := [method for method in methods or [] if method not in table.methods]:
            return "methods", f"{shown(unknown[0])} is not in {name}, which has {', '.join(table.methods)}"
        if classes and len(set(classes)) < 2:
            return "classes", "needs two classes or more, to tell them apart"
        if classes and isinstance(self.data, PublishedData):
            number = DATASETS[self.dataset].classes
            if wrong := [label for label in classes if not 0 <= label < number]:
                return "classes", f"there is no class {wrong[0]}; 0 to {number - 1}"
        return None

    @classmethod
    def load(cls, path: str | Path) -> "Params":
        """Read a settings file.

        `like: FILE` (from the file's own folder) takes another file's settings and puts this one's in place,
        block by block; a list replaces a list, and a block of another name or form replaces the block.
        `without: [KEY, ...]` names blocks of the other file that are not taken.

        Raises:
            UserError: one line with the key's path, what is wrong and what is allowed.
        """
        return cls.read(read_file(Path(path)), str(path))

    @classmethod
    def read(cls, data: Any, source: str = "params.yaml") -> "Params":
        """Check settings that are already parsed; `source` is what an error line begins with."""
        if not isinstance(data, dict):
            raise UserError(f"{source}: needs keys and values, e.g. dataset: cifar100")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise UserError(f"{source}: {joined(error_lines(error))}") from None


def _classifier(name: str, entry: Any) -> Any:
    if not isinstance(entry, dict | None):
        return entry
    options = dict(entry or {})
    common = {key: options.pop(key) for key in ("batchnorm",) if key in options}
    return {**common, "method": {"name": name, **options}}


def _figure(name: str, entry: Any) -> Any:
    return {"name": name, **(entry or {})} if isinstance(entry, dict | None) else entry
