"""params.yaml as typed settings: read, checked, and every default filled in.

Nothing here is hashed as code: a run's identity holds the resolved settings, not how they were read.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from longtail.data_rich import Rich
from longtail.datasets import DATASETS
from longtail.errors import UserError
from longtail.identity import PACKAGE
from longtail.row_shorthand import rows_in_full
from longtail.schedules import LearningRate, Length
from longtail.settings import Neutral, Settings, method_names, settings_of
from longtail.shorthand import MisplacedError, entries_in_full, over, without
from longtail.sources import Data, Files, Pictures, PublishedData

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


class Method(Settings):
    """A method by its module's name, with that module's own settings."""

    name: str
    options: SerializeAsAny[Settings]

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """The name and the options in one flat block, as params.yaml has them."""
        return {"name": self.name, **self.options.kept(hashed)}


def method_of(kind: str) -> Any:
    """The type of a block `{name: METHOD, ...its settings}` whose methods are the modules of a package."""

    def read(value: Any) -> Any:
        if isinstance(value, Method):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError(f"needs a name, one of {', '.join(method_names(kind))}")
        options = {key: item for key, item in value.items() if key != "name"}
        return Method(name=value["name"], options=settings_of(kind, value["name"]).model_validate(options))

    return Annotated[Method, BeforeValidator(read)]


if TYPE_CHECKING:
    Network = Method
    Loss = Method
    Sampler = Method
    Transform = Method
    Observer = Method
    Exemplars = Method
    Retention = Method
    ClassifierMethod = Method
    Figure = Method
else:
    Network = method_of("networks")
    Loss = method_of("losses")
    Sampler = method_of("samplers")
    Transform = method_of("transforms")
    Observer = method_of("observers")
    Exemplars = method_of("exemplars")
    Retention = method_of("retention")
    ClassifierMethod = method_of("stage_two")
    Figure = method_of("figures")


def _entry_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(
            "a name is made of small letters, digits, '_', '.', '-' and begins with a letter or digit"
        )
    return value


EntryName = Annotated[str, BeforeValidator(_entry_name)]


class ExponentialImbalance(Settings):
    """n_c = int(n_max (1 / ratio)^(c / (C - 1))) in label order (Cui et al. 2019, Cao et al. 2019)."""

    profile: Literal["exponential"] = "exponential"
    ratio: float = Field(ge=1)

    @property
    def label(self) -> str:
        """As it stands in the name of a run."""
        return f"exp{self.ratio:g}"


class ParetoImbalance(Settings):
    """A Pareto tail between the largest and the smallest class (methods.md, section 4; Liu et al. 2019)."""

    profile: Literal["pareto"] = "pareto"
    alpha: float = Field(6.0, gt=0)
    largest: int | None = Field(None, ge=1)
    smallest: int = Field(5, ge=1)

    @property
    def label(self) -> str:
        """As it stands in the name of a run."""
        return f"pareto{self.alpha:g}"


class CountsImbalance(Settings):
    """The published number of training images of each class, in label order; a built-in list."""

    profile: Literal["counts"] = "counts"
    counts: str  # a file of src/longtail/counts

    @property
    def label(self) -> str:
        """As it stands in the name of a run."""
        return self.counts


class NaturalImbalance(Settings):
    """The training images as they are."""

    profile: Literal["natural"] = "natural"

    @property
    def label(self) -> str:
        """As it stands in the name of a run."""
        return "natural"


Imbalance = Annotated[
    ExponentialImbalance | ParetoImbalance | CountsImbalance | NaturalImbalance,
    Field(discriminator="profile"),
]


def published_counts() -> list[str]:
    """The lists of counts that are built in."""
    return sorted(file.stem for file in (PACKAGE / "counts").glob("*.csv"))


class ImbalanceBlock(Settings):
    """`imbalance:` of params.yaml: one profile; the exponential one at any number of ratios."""

    profile: Literal["exponential", "pareto", "counts", "natural"] = "exponential"
    ratios: list[Annotated[float, Field(ge=1, lt=1e6)]] | None = Field(None, min_length=1)
    alpha: float = Field(6.0, gt=0)
    largest: int | None = Field(None, ge=1)
    smallest: int = Field(5, ge=1)
    counts: str | None = None

    @model_validator(mode="after")
    def _keys_fit_the_profile(self) -> "ImbalanceBlock":
        allowed = {
            "exponential": {"ratios"},
            "pareto": {"alpha", "largest", "smallest"},
            "counts": {"counts"},
            "natural": set(),
        }
        extra = self.model_fields_set - {"profile"} - allowed[self.profile]
        if extra:
            raise ValueError(
                f"{', '.join(sorted(extra))} does not go with profile {self.profile}, "
                f"which takes {', '.join(sorted(allowed[self.profile])) or 'no other key'}"
            )
        if self.profile == "exponential" and self.ratios is None:
            raise ValueError("profile exponential needs ratios, e.g. [200, 100, 50, 10]")
        if self.profile == "counts" and self.counts not in published_counts():
            known = ", ".join(published_counts())
            raise ValueError(f"profile counts needs counts, one of {known}, not {self.counts!r}")
        names = [f"{ratio:g}" for ratio in self.ratios or []]
        if len(set(names)) != len(names):
            raise ValueError(f"ratios {', '.join(names)} name a ratio twice")
        return self

    def profiles(self) -> list[Imbalance]:
        """One imbalance a split."""
        if self.profile == "exponential":
            return [ExponentialImbalance(ratio=ratio) for ratio in self.ratios or []]
        if self.profile == "pareto":
            return [ParetoImbalance(alpha=self.alpha, largest=self.largest, smallest=self.smallest)]
        if self.counts is not None:
            return [CountsImbalance(counts=self.counts)]
        return [NaturalImbalance()]


class Validation(Settings):
    """Where the images come from by which anything is selected (methods.md, section 1)."""

    source: Literal["unused", "holdout", "official", "test"] = "unused"
    per_class: int = Field(20, ge=1)  # of `unused`, as ImageNet-LT's official list has 20
    share: float = Field(0.1, gt=0, lt=1)  # of `holdout`

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """Only the keys that the source reads."""
        read = {"unused": {"source", "per_class"}, "holdout": {"source", "share"}}
        own = read.get(self.source, {"source"})
        return {key: value for key, value in super().kept(hashed).items() if key in own}

    @property
    def words(self) -> str:
        """The source as a table says it."""
        return {
            "unused": f"unused training images (+{self.per_class} a class for selection)",
            "holdout": f"holdout ({self.share:.0%} of the training set)",
            "official": "the dataset's own validation images",
            "test": "test set (the literature's habit)",
        }[self.source]


def _source(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


class AcquireSettings(Settings):
    """Everything that acquisition reads."""

    dataset: str
    root: str | None = None
    download: bool = True
    files: Files | None = None  # where the dataset is none of the published ones


class SplitSettings(Settings):
    """Everything that a split reads."""

    dataset: str
    imbalance: Imbalance
    subset_seed: int = Field(0, ge=0)
    validation: Validation = Validation()


Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class ResizedCrop(Settings):
    """A random part of a picture (Szegedy et al. 2015), as torchvision's RandomResizedCrop chooses it."""

    scale: Range = (0.08, 1.0)  # share of the picture's area
    ratio: Range = (3 / 4, 4 / 3)  # width / height of the part

    @model_validator(mode="after")
    def _in_order(self) -> "ResizedCrop":
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} should be [lowest, highest], not [{low:g}, {high:g}]")
        if self.scale[1] > 1:
            raise ValueError(f"scale is a share of the picture's area: {self.scale[1]:g} is above 1")
        return self


Strength = Annotated[float, Field(ge=0, le=1)]


class Jitter(Settings):
    """Random colours: every factor is uniform in [1 - strength, 1 + strength], in this order [ours]."""

    brightness: Strength = 0.4  # Decoupling's code: 0.4 each
    contrast: Strength = 0.4
    saturation: Strength = 0.4


class RandAugment(Settings):
    """Operations of one magnitude, chosen at random (Cubuk et al. 2020), as torchvision's RandAugment."""

    operations: int = Field(2, ge=1)
    magnitude: int = Field(9, ge=0, le=30)


class Augmentation(Settings):
    """Batched augmentation of uint8 images, in the order of these keys, after `resized_crop`."""

    crop: int = Field(4, ge=0)  # padding in pixels; 0: no crop
    flip: bool = True
    jitter: Annotated[Jitter | None, Neutral(None)] = None
    randaugment: Annotated[RandAugment | None, Neutral(None)] = None
    autoaugment: Literal["none", "cifar10"] = "cifar10"
    fill: int = Field(128, ge=0, le=255)  # AutoAugment's fill
    cutout: int = Field(16, ge=0)  # side of the hole in pixels; 0: none
    resized_crop: Annotated[ResizedCrop | None, Neutral(None)] = None  # of picture files, in place of crop

    @model_validator(mode="after")
    def _one_crop(self) -> "Augmentation":
        if self.resized_crop and self.crop:
            raise ValueError("resized_crop and crop exclude each other; give it crop: 0")
        return self


class Optimiser(Settings):
    """Stochastic gradient descent."""

    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    nesterov: bool = False
    # on the rate of everything but the head; Decoupling on Places-LT: 0.1
    trunk_rate: Annotated[float, Neutral(1.0)] = Field(1.0, gt=0)


Transforms = Annotated[list[Transform], Neutral([]), Field(max_length=1)]  # a batch is mixed once


class Training(Settings):
    """What the recipes of stage one share. The defaults are GLAG's for CIFAR-100-LT."""

    network: Network = Field({"name": "resnet_cifar"}, validate_default=True)
    sampler: Sampler = Field({"name": "instance"}, validate_default=True)
    augmentation: Augmentation = Augmentation()
    transforms: Transforms = Field([])  # of batches: mixup, remix
    batch_size: int = Field(128, ge=2)
    # parts of a batch, each normalised by its own statistics: on so many devices, or one after the other
    # where memory holds no whole batch (gradient accumulation)
    shards: Annotated[int, Neutral(1)] = Field(1, ge=1)
    devices: int = Field(1, ge=1)  # at most, for one run; they share the shards, and change no result
    schedule: Length = Length(epochs=200)
    learning_rate: LearningRate = LearningRate(peak=0.1, warmup=5)
    optimiser: Optimiser = Optimiser()
    progress: Literal["epoch", "step"] = "epoch"  # how often the t of gamma(t) moves
    evaluate_every: int = Field(20, ge=0)  # epochs; 0: after the last one only
    observers: Annotated[list[Observer], Neutral([])] = Field([])  # what is measured on the way: gradients

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """All keys but, in the identity, where a run is computed."""
        found = super().kept(hashed)
        if hashed:
            del found["devices"]
        return found

    @model_validator(mode="after")
    def _devices_share_the_shards(self) -> "Training":
        if self.shards % self.devices:
            raise ValueError(
                f"devices {self.devices} cannot share {self.shards} shards; e.g. shards: {self.devices}"
            )
        if self.batch_size < 2 * self.shards:
            raise ValueError(f"shards {self.shards} of a batch of {self.batch_size} leave one image to some")
        if self.observers and self.shards > 1:
            raise ValueError("observers measure the loss of a whole batch; they need shards: 1")
        return self

    @model_validator(mode="after")
    def _observers_are_told_apart(self) -> "Training":
        names = [observer.name for observer in self.observers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"observers name {', '.join(twice)} twice")
        return self


class Bank(Settings):
    """Exemplars of the classes that a phase leaves out (Asynchronous modelling); their number is ours."""

    per_class: int = Field(20, ge=1)  # iCaRL: 2,000 in all, 20 a class of CIFAR-100
    choice: Exemplars = Field({"name": "herding"}, validate_default=True)


Classes = Annotated[Literal["all", "rich", "poor"], Neutral("all")]
# What keeps its weights: the network but for its head; or but for its head and its last residual block, or
# the last stage of blocks (Decoupling's "last block" on Places-LT may mean either).
Freeze = Literal["none", "trunk", "all_but_last_block", "all_but_last_stage"]
# Of what is frozen: train, as in Decoupling's code, takes each batch's statistics and moves the running ones.
FrozenBatchnorm = Annotated[Literal["eval", "train"], Neutral("eval")]


class PhaseSettings(Settings):
    """One stretch of stage one; what is null is the recipe's."""

    name: EntryName
    sampler: Sampler
    schedule: Length
    learning_rate: LearningRate
    loss: Loss | None = None
    transforms: Annotated[list[Transform], Field(max_length=1)] | None = None
    reset_head: bool = False  # begin with a new classifier
    freeze: Freeze = "none"
    frozen_batchnorm: FrozenBatchnorm = "eval"
    classes: Classes = "all"  # whose images it sees; rich and poor by the recipe's `rich`
    bank: Annotated[Bank | None, Neutral(None)] = None  # of the classes that it leaves out
    retention: Annotated[Retention | None, Neutral(None)] = None  # of the bank's features

    @model_validator(mode="after")
    def _something_is_frozen(self) -> "PhaseSettings":
        if self.frozen_batchnorm != "eval" and self.freeze == "none":
            raise ValueError(
                "frozen_batchnorm: train has no use where nothing is frozen; set freeze, e.g. to trunk"
            )
        return self

    @model_validator(mode="after")
    def _bank_has_a_use(self) -> "PhaseSettings":
        if self.bank is not None and self.classes == "all":
            raise ValueError("a bank is for the classes that a phase leaves out: classes: poor, or rich")
        if self.retention is not None and self.bank is None:
            raise ValueError("retention needs a bank: what it compares are features of exemplars")
        if self.retention is not None and self.freeze == "trunk":
            raise ValueError("retention has nothing to hold where freeze: trunk keeps all features")
        if self.retention is not None and self.transforms:
            raise ValueError("retention and transforms exclude each other: a mixed image is no exemplar")
        return self


class Recipe(Training):
    """How stage one is trained: one phase, and what follows it."""

    loss: Loss
    classes: Classes = "all"  # of the first phase
    freeze: Annotated[Freeze, Neutral("none")] = "none"  # in the first phase
    frozen_batchnorm: FrozenBatchnorm = "eval"  # in the first phase
    rich: Rich = Rich(above=100)  # data-rich classes, where a phase asks for them; the others are data-poor
    then: Annotated[list[PhaseSettings], Neutral([])] = Field([])

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """All keys but `rich` where no phase asks for it."""
        found = super().kept(hashed)
        if all(phase.classes == "all" for phase in self.phases):
            del found["rich"]
        return found

    def out_of_scope(self) -> str | None:
        """What is wrong with which classes the phases see, taken together; None where nothing is."""
        seen: set[str] = set()
        for phase in self.phases:
            own = {"rich", "poor"} if phase.classes == "all" else {phase.classes}
            if phase.bank and not seen - own:
                return f"the bank of phase {phase.name} is of classes that no phase before it has seen"
            seen |= own
        missing = {"rich", "poor"} - seen
        return f"no phase sees the images of data-{missing.pop()} classes" if missing else None

    def until(self, number: int) -> "Recipe":
        """The recipe that ends with phase `number`, counted from 0."""
        return self.model_copy(update={"then": self.then[:number]})

    @property
    def phases(self) -> list[PhaseSettings]:
        """All phases, with everything filled in; the first is named train."""
        shared = {"loss": self.loss, "transforms": self.transforms}
        keys = ("sampler", "schedule", "learning_rate", "classes", "freeze", "frozen_batchnorm")
        own = {key: getattr(self, key) for key in keys}
        first = PhaseSettings(name="train", **own)
        return [
            phase.model_copy(
                update={key: value for key, value in shared.items() if getattr(phase, key) is None}
            )
            for phase in (first, *self.then)
        ]

    @model_validator(mode="after")
    def _phases_are_told_apart(self) -> "Recipe":
        names = [phase.name for phase in self.phases]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two phases are named {', '.join(twice)}; the first phase's name is train")
        return self

    @model_validator(mode="after")
    def _retention_is_of_unmixed_images(self) -> "Recipe":
        if self.transforms and any(phase.retention and phase.transforms is None for phase in self.then):
            raise ValueError(
                "a phase with retention takes no transforms, but has the recipe's; give it transforms: []"
            )
        return self

    @model_validator(mode="after")
    def _losses_fit_the_head(self) -> "Recipe":
        """A loss with a scale is one of scaled cosines, as a cosine head of that scale makes them."""
        network = self.network.options
        scale = getattr(network, "scale", None) if getattr(network, "head", None) == "cosine" else None
        for loss in (phase.loss for phase in self.phases if phase.loss):
            wanted = getattr(loss.options, "scale", None)
            if wanted not in (None, scale):
                raise ValueError(
                    f"loss {loss.name} with scale {wanted:g} needs a network with "
                    f"head: cosine, scale: {wanted:g}"
                )
        return self


class StageOneSettings(Settings):
    """Everything that stage one reads."""

    dataset: str
    images: Annotated[Pictures | None, Neutral(None)] = None  # of picture files
    recipe: Recipe
    seed: int = Field(ge=0)
    precision: Literal["auto", "bf16", "float32"] = "auto"


class Features(Settings):
    """Which features of the training images stage two learns from (methods.md, section 6)."""

    views: int = Field(10, ge=0)  # augmented views an image; 0: the clean image is the only view


class FeaturesSettings(Settings):
    """Everything that feature extraction reads."""

    dataset: str
    images: Annotated[Pictures | None, Neutral(None)] = None  # of picture files
    views: int
    batchnorm: Literal["eval", "train"] = "eval"
    # whether features of all training images of the dataset are made, for a classifier that reads them
    whole: Annotated[bool, Neutral(False)] = False
    network: Network
    augmentation: Augmentation
    batch_size: int
    seed: int
    precision: Literal["auto", "bf16", "float32"] = "auto"


class Classifier(Settings):
    """An entry of `stage_two:`: a method over frozen features."""

    batchnorm: Literal["eval", "train"] = "eval"  # of the backbone while it makes the features
    method: ClassifierMethod


class StageTwoSettings(Settings):
    """Everything that stage two reads."""

    method: ClassifierMethod
    seed: int


class MethodRow(Settings):
    """A method of the tables: a stage-one recipe and a stage-two classifier, by their names."""

    stage_one: str
    stage_two: str


class Groups(Settings):
    """Many, medium and few-shot classes by their number of training images."""

    many_above: int = Field(100, ge=0)
    few_below: int = Field(20, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> "Groups":
        if self.few_below > self.many_above + 1:
            raise ValueError("few_below must not exceed many_above + 1, or a class would be few and many")
        return self


def _swept_key(value: str) -> str:
    if not re.fullmatch(r"stage_(one|two)(\.[a-z0-9_-]+)+", value):
        raise ValueError("a key of a grid begins with stage_one. or stage_two., e.g. stage_one.loss.gamma.b")
    return value


SweptKey = Annotated[str, BeforeValidator(_swept_key)]


class Row(Settings):
    """A row of a table: a method of ours, a printed row, or both."""

    section: str
    label: str
    method: str | None = None
    linear: str | None = None  # the method whose accuracy is the column `linear`
    printed: bool = True  # whether the printed row of this label stands beside it
    values: dict[str, str] = Field({})  # columns of the CSV that tell the rows apart, e.g. of a sweep


Column = Literal["accuracy", "many", "medium", "few", "linear", "forgetting"]


class Table(Settings):
    """A table as data: its rows and columns, and the printed numbers that stand beside ours."""

    caption: str
    printed: str | None = None  # a file of src/longtail/printed
    # of imbalance.ratios; null: all
    ratios: list[Annotated[float, Field(ge=1)]] | None = Field(None, min_length=1)
    # what stands under each imbalance; null: accuracy, and the groups in a block of their own
    columns: list[Column] | None = Field(None, min_length=1)
    # label of the row to which the others' differences are given, in each section its own if it has one
    against: str | None = None
    notes: list[str] = Field([])  # what else stands under the table
    rows: list[Row] = Field(min_length=1)

    @model_validator(mode="after")
    def _linear_has_a_column(self) -> "Table":
        for index, row in enumerate(self.rows):
            if row.linear is not None and not self.has_linear:
                raise ValueError(f"rows[{index}].linear needs the column linear, e.g. columns: [linear]")
        for name, items in (("ratios", self.ratios or []), ("columns", self.columns or [])):
            if len(set(items)) != len(items):
                raise ValueError(f"{name} {', '.join(map(str, items))} name one twice")
        return self

    @property
    def has_linear(self) -> bool:
        """Whether a column is for a second method a row, the linear classifier on the whole data."""
        return "linear" in (self.columns or [])

    @property
    def methods(self) -> list[str]:
        """Every method that the table needs, once, in the order of its rows."""
        named = (name for row in self.rows for name in (row.method, row.linear))
        return list(dict.fromkeys(name for name in named if name is not None))

    def shows(self, ratio: float | None) -> bool:
        """Whether the table has columns for an imbalance."""
        return self.ratios is None or ratio in self.ratios


class Model(Settings):
    """A model to take home: that of a method, or of a table's best method by validation images."""

    table: str | None = None
    method: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "Model":
        if (self.table is None) == (self.method is None):
            raise ValueError("needs table (its best method by validation images) or method, one of them")
        return self


class Sweep(Settings):
    """A grid over keys of a method's entries (longtail.sweeps)."""

    method: str
    # values by key, e.g. stage_one.loss.gamma.b or stage_two.k: of the method's recipe or classifier
    grid: dict[SweptKey, Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)
    ratio: float | None = None  # null: 100 if it is there, else the first
    caption: str = ""


Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, int) else value


def _data_kind(value: Any) -> Any:
    return {"kind": "published", **value} if isinstance(value, dict) else value


class Params(Settings):
    """The whole of params.yaml."""

    dataset: str
    data: Annotated[Data, BeforeValidator(_data_kind)] = PublishedData()
    imbalance: ImbalanceBlock
    validation: Annotated[Validation, BeforeValidator(_source)] = Validation()
    subset_seed: Annotated[Seeds, BeforeValidator(_listed)] = Field([0])  # one, or several to average over
    seeds: Seeds = Field([0])
    precision: Literal["auto", "bf16", "float32"] = "auto"
    groups: Groups = Groups()
    training: Training = Training()
    stage_one: dict[EntryName, Recipe]
    features: Features = Features()
    stage_two: dict[EntryName, Classifier]
    methods: dict[str, MethodRow] = Field({})  # with those that rows of tables name by recipe and classifier
    tables: dict[EntryName, Table] = Field({})
    # results: tables of a settings file other than params.yaml stand beside those of params.yaml
    tables_in: Literal["results"] | None = None
    figures: dict[EntryName, Figure] = Field({})
    sweeps: dict[EntryName, Sweep] = Field({})
    models: dict[EntryName, Model] = Field({})

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
                raise MisplacedError("dataset", f"{self.dataset!r} is unknown; {there}")
        elif self.dataset in DATASETS or not NAME.fullmatch(self.dataset):
            allowed = "small letters, digits, '_', '.', '-', and no name of a published dataset"
            raise MisplacedError("dataset", f"{self.dataset!r} names files of your own; {allowed}")
        for key, seeds in (("seeds", self.seeds), ("subset_seed", self.subset_seed)):
            if len(set(seeds)) != len(seeds):
                raise MisplacedError(key, f"{seeds} names a seed twice")
        for name, recipe in self.stage_one.items():
            if wrong := recipe.out_of_scope():
                raise MisplacedError(f"stage_one.{name}", wrong)
        for name, method in self.methods.items():
            for kind, entries in (("stage_one", self.stage_one), ("stage_two", self.stage_two)):
                if (entry := getattr(method, kind)) not in entries:
                    raise MisplacedError(
                        f"methods.{name}.{kind}", f"{entry!r} is not an entry of {kind}: {', '.join(entries)}"
                    )
        for name, table in self.tables.items():
            for index, row in enumerate(table.rows):
                for key, wanted in (("method", row.method), ("linear", row.linear)):
                    if wanted is not None and wanted not in self.methods:
                        raise MisplacedError(
                            f"tables.{name}.rows[{index}].{key}",
                            f"{wanted!r} is not an entry of methods: {', '.join(self.methods)}",
                        )
            known = self.imbalance.ratios or []
            if unknown := [ratio for ratio in table.ratios or [] if ratio not in known]:
                raise MisplacedError(
                    f"tables.{name}.ratios",
                    f"{unknown[0]:g} is not one of imbalance.ratios: {', '.join(f'{r:g}' for r in known)}",
                )
        for name, sweep in self.sweeps.items():
            if sweep.method not in self.methods:
                raise MisplacedError(
                    f"sweeps.{name}.method",
                    f"{sweep.method!r} is not an entry of methods: {', '.join(self.methods)}",
                )
        for name, model in self.models.items():
            if model.table is not None and model.table not in self.tables:
                allowed = ", ".join(self.tables)
                raise MisplacedError(f"models.{name}.table", f"{model.table!r} is not one of {allowed}")
            if model.method is not None and model.method not in self.methods:
                allowed = ", ".join(self.methods)
                raise MisplacedError(f"models.{name}.method", f"{model.method!r} is not one of {allowed}")
            if model.method is not None and not any(model.method in t.methods for t in self.tables.values()):
                raise MisplacedError(f"models.{name}.method", f"{model.method!r} stands in no table")
            if model.table is not None and self.validation.source == "test":
                raise MisplacedError(
                    f"models.{name}.table",
                    "with validation: test the best method would be chosen by test images; name a method",
                )
        for name, figure in self.figures.items():
            table_name = getattr(figure.options, "table", None)
            if table_name is not None and table_name not in self.tables:
                raise MisplacedError(
                    f"figures.{name}.table", f"{table_name!r} is not one of {', '.join(self.tables)}"
                )
        return self

    @classmethod
    def load(cls, path: str | Path) -> "Params":
        """Read a settings file.

        `like: FILE` (from the file's own folder) takes another file's settings and puts this one's in place,
        block by block; a list replaces a list, and a block of another name or form replaces the block.
        `without: [KEY, ...]` names blocks of the other file that are not taken.

        Raises:
            UserError: one line with the key's path, what is wrong and what is allowed.
        """
        return cls.read(_data(Path(path)), str(path))

    @classmethod
    def read(cls, data: Any, source: str = "params.yaml") -> "Params":
        """Check settings that are already parsed; `source` is what an error line begins with."""
        if not isinstance(data, dict):
            raise UserError(f"{source}: needs keys and values, e.g. dataset: cifar100")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise UserError(f"{source}: {'; '.join(error_lines(error))}") from None


def _data(path: Path, below: tuple[Path, ...] = ()) -> Any:
    """What stands in a settings file, over what stands in the file that it is like."""
    try:
        data = parse(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict) or "like" not in data:
        return data
    if not isinstance(data["like"], str):
        raise UserError(f"{path}: like: {data['like']!r} is not the path of a settings file")
    other = path.parent / data.pop("like")
    if path.resolve() in below:
        raise UserError(f"{path}: like: goes round in a circle")
    base = _data(other, (*below, path.resolve()))
    return over(without(base, data.pop("without", []), f"{path}: without"), data)


def _classifier(name: str, entry: Any) -> Any:
    if not isinstance(entry, dict | None):
        return entry
    options = dict(entry or {})
    common = {key: options.pop(key) for key in ("batchnorm",) if key in options}
    return {**common, "method": {"name": name, **options}}


def _figure(name: str, entry: Any) -> Any:
    return {"name": name, **(entry or {})} if isinstance(entry, dict | None) else entry


class _Loader(yaml.SafeLoader):
    """YAML 1.2, as DVC reads it: `on` is a word and 5e-4 a number; and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        self.flatten_mapping(node) if len(own) == len(set(own)) else _twice(node, own)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def table_names(path: Path) -> set[str]:
    """Names of the tables of a settings file, as far as it names any; nothing else of it is checked.

    Raises:
        UserError: if it cannot be read.
    """
    data = _data(path)
    found = {key: data.get(key) if isinstance(data, dict) else None for key in ("tables", "sweeps")}
    tables, sweeps = (list(block) if isinstance(block, dict) else [] for block in found.values())
    return {*map(str, tables), *(f"sweeps/{name}" for name in sweeps)}


def parse(text: str) -> Any:
    """The data of a settings file.

    Raises:
        yaml.YAMLError: if it is not YAML, or gives a key twice.
    """
    return yaml.load(text, Loader=_Loader)


def _twice(node: yaml.MappingNode, keys: list[str]) -> None:
    twice = sorted({key for key in keys if keys.count(key) > 1})
    raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} given twice", node.start_mark)


def error_lines(error: ValidationError, prefix: tuple[Any, ...] = ()) -> list[str]:
    """One `key.path: what is wrong, what is allowed` for each error."""
    lines: list[str] = []
    for item in error.errors():
        where = prefix + item["loc"]
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, ValidationError):
            lines.extend(error_lines(cause, where))
        elif isinstance(cause, MisplacedError):
            lines.append(f"{cause.path}: {cause}")
        else:
            lines.append(f"{_key(where)}: {_message(item)}")
    return lines


def _key(where: tuple[Any, ...]) -> str:
    tags = {"constant", "power", "exponential", "cosine", "step", "pareto", "natural", "counts", "[key]"}
    tags |= {"published", "folder", "list", "csv"}
    text = ""
    for index, part in enumerate(where):
        if isinstance(part, int):
            text += f"[{part}]"
        elif part == "method" and where[0] == "stage_two":
            continue  # an entry of stage_two is flat in params.yaml
        elif not (part in tags and index > 0 and where[index - 1] in ("gamma", "decay", "imbalance", "data")):
            text += f".{part}" if text else str(part)
    return text


def _message(item: Any) -> str:
    value = item["input"]
    kind, context = item["type"], item.get("ctx", {})
    hints = {"ratios": "a ratio is largest class / smallest class, e.g. 100"}
    hint = next((f"; {text}" for key, text in hints.items() if key in item["loc"]), "")
    match kind:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"{value!r} is below {context['ge']:g}{hint}"
        case "greater_than":
            return f"{value!r} must be above {context['gt']:g}{hint}"
        case "less_than" | "less_than_equal":
            return f"{value!r} is too large, {item['msg'].removeprefix('Input should be ')}{hint}"
        case _:
            shown = repr(value) if len(repr(value)) < 60 else type(value).__name__
            return f"{shown}: {item['msg'].replace('Input should be', 'should be')}{hint}"
