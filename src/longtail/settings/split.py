"""What a split reads: the imbalance and where validation images come from."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from longtail.errors import shown
from longtail.runs.identity import PACKAGE
from longtail.settings.base import Settings


class ExponentialImbalance(Settings):
    """n_c = int(n_max (1 / ratio)^(c / (C - 1))) in label order (Cui et al. 2019, Cao et al. 2019)."""

    profile: Literal["exponential"] = "exponential"
    ratio: float = Field(ge=1)

    @property
    def label(self) -> str:
        """As it stands in the name of a run."""
        return f"exp{self.ratio:g}"


class ParetoImbalance(Settings):
    """A Pareto tail between the largest and the smallest class (Liu et al. 2019)."""

    profile: Literal["pareto"] = "pareto"
    alpha: float = Field(6.0, ge=1e-3, le=1e3)
    largest: int | None = Field(None, ge=1, le=1_000_000_000)
    smallest: int = Field(5, ge=1, le=1_000_000_000)

    @property
    def label(self) -> str:
        """As it stands in the name of a run."""
        return f"balanced{self.smallest}" if self.largest == self.smallest else f"pareto{self.alpha:g}"


class CountsImbalance(Settings):
    """The published number of training images of each class, in label order; a built-in list."""

    profile: Literal["counts"] = "counts"
    counts: str  # a file of src/longtail/data/counts

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
    return sorted(file.stem for file in (PACKAGE / "data" / "counts").glob("*.csv"))


class ImbalanceBlock(Settings):
    """`imbalance:` of params.yaml: one profile; the exponential one at any number of ratios."""

    profile: Literal["exponential", "pareto", "counts", "natural"] = "exponential"  # how class sizes fall
    # of exponential: largest class / smallest class, one long-tailed dataset for each
    ratios: list[Annotated[float, Field(ge=1, lt=1e6)]] | None = Field(None, min_length=1, max_length=100)
    alpha: float = Field(6.0, ge=1e-3, le=1e3)  # of pareto: the larger, the shorter the tail
    # of pareto: the largest class; null: as large as every class can be
    largest: int | None = Field(None, ge=1, le=1_000_000_000)
    smallest: int = Field(5, ge=1, le=1_000_000_000)  # of pareto: the smallest class
    counts: str | None = None  # of counts: a list that is built in

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
            raise ValueError(f"profile counts needs counts, one of {known}, not {shown(self.counts)}")
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
    """Where the images come from by which anything is selected (docs/reference/datasets.md)."""

    # unused: images that the imbalance left out; holdout: a share of the training images
    source: Literal["unused", "holdout", "official", "test"] = "unused"
    per_class: int = Field(20, ge=1, le=1_000_000_000)  # of `unused`, as ImageNet-LT's official list has 20
    share: float = Field(0.1, gt=0, lt=1)  # of `holdout`

    @model_validator(mode="after")
    def _keys_fit_the_source(self) -> "Validation":
        for key, source in (("per_class", "unused"), ("share", "holdout")):
            if self.source != source and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} goes with source {source}, not with {self.source}")
        return self

    def kept(self, hashed: bool = False) -> dict[str, Any]:
        """Only the keys that the source reads."""
        read = {"unused": {"source", "per_class"}, "holdout": {"source", "share"}}
        own = read.get(self.source, {"source"})
        return {key: value for key, value in super().kept(hashed).items() if key in own}


class SplitSettings(Settings):
    """Everything that a split reads."""

    dataset: str
    imbalance: Imbalance
    subset_seed: int = Field(0, ge=0)
    validation: Validation = Validation()
