"""Where images come from: `data:` of params.yaml, of a published dataset or of files of your own."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from longtail.settings.base import Neutral, Settings
from longtail.settings.names import Place

# Of ImageNet's training images, by which every network of torchvision and timm was trained.
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

Share = Annotated[float, Field(gt=0, lt=1)]


class Pictures(Settings):
    """What the network sees of a picture, which has a size of its own.

    Keys that a settings file leaves out are those of the weights with which a recipe begins, where these are
    known (`longtail.settings.known_weights`), else as here.
    """

    size: int = Field(224, ge=8, le=4096)  # side of the square in pixels
    center: float = Field(0.875, gt=0, le=1)  # share of the shorter side that is seen in evaluation
    interpolation: Annotated[Literal["bilinear", "bicubic"], Neutral("bilinear")] = "bilinear"  # of resizing
    channels: Literal[1, 3] = 3  # 3: colour, 1: grey
    mean: list[float] = Field(IMAGENET_MEAN, max_length=3)  # per channel, of pixels / 255
    std: list[Annotated[float, Field(gt=0)]] = Field(IMAGENET_STD)  # of each channel, in shares of 255

    @model_validator(mode="after")
    def _a_mean_and_a_std_a_channel(self) -> "Pictures":
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std should have {self.channels} numbers each, one a channel")
        return self


class HeldOut(Settings):
    """Test images of a dataset that has none of its own: some of every class, chosen by a seed."""

    # the same number of every class, so that all count alike
    per_class: int | None = Field(None, ge=1, le=1_000_000_000)
    share: Share | None = None  # or a share of every class
    seed: int = Field(0, ge=0, lt=2**32)  # of the choice
    # whether a class that has no more pictures than would be held out is trained on all the same, untested
    untested: Annotated[bool, Neutral(False)] = False
    # pictures that never part between training, validation and test: near_duplicates, folder (those of a
    # sub-folder), or a column of the table of data.kind: csv; null: every picture for itself
    groups: Annotated[str | None, Field(min_length=1, max_length=200), Neutral(None)] = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "HeldOut":
        if (self.per_class is None) == (self.share is None):
            raise ValueError("needs per_class or share, one of them")
        return self


class PublishedData(Settings):
    """A dataset of small images that the project knows: where its official files lie."""

    kind: Literal["published"] = "published"
    root: Place | None = None  # a folder that holds them, e.g. cifar-100-python; null: data/raw
    download: bool = True  # whether files that are missing may be downloaded


class FileData(Settings):
    """What datasets of picture files have in common."""

    root: Place  # the folder that holds the pictures; no path leaves it
    images: Pictures = Pictures()
    held_out: HeldOut | None = None  # test images, where the dataset names none
    broken: Literal["stop", "skip"] = "stop"  # files that cannot be read
    smallest: int = Field(
        1, ge=1, le=1_000_000
    )  # a picture with a shorter side below this counts as broken; in pixels
    # bits of 192 in which the perceptual hashes of near-duplicates differ at most (data/perceptual_hash.py);
    # null: they are not looked for
    near_duplicates: Annotated[int | None, Field(ge=0, le=64), Neutral(24)] = 24


class FolderData(FileData):
    """A folder a class."""

    kind: Literal["folder"] = "folder"
    # top: all that lies below a folder of the first level is of its class; leaf: every folder that holds
    # pictures is a class, by its path
    classes: Literal["top", "leaf"] = "top"
    train: Place = "."  # folder of the class folders, below root
    validation: Place | None = None  # the same, where the dataset has validation images of its own
    test: Place | None = None  # a folder of class folders below the root; null: `held_out` says


class ListData(FileData):
    """Published lists, `path label` a line, as of ImageNet-LT, Places-LT and iNaturalist 2018."""

    kind: Literal["list"] = "list"
    train: Place  # a list; its paths are below root
    validation: Place | None = None  # a list; null: none
    test: Place | None = None  # a list; null: none
    names: Place | None = None  # class names, one a line in label order; null: the labels


class CsvData(FileData):
    """A table with a header and the columns path, label and, if you like, part (train, validation, test)."""

    kind: Literal["csv"] = "csv"
    file: Place  # the table


Files = Annotated[FolderData | ListData | CsvData, Field(discriminator="kind")]
Data = Annotated[PublishedData | FolderData | ListData | CsvData, Field(discriminator="kind")]
