"""Small copies of images inside the page: JPEG of picture files, PNG of images in a file of arrays."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from safetensors import safe_open

from longtail.data.file_names import unpacked
from longtail.errors import UserError
from longtail.publish.thumbnails import small, written
from longtail.runs.lookup import pictures_root

SIDE = 160  # pixels of the longer side, at most
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Thumbnail:
    """An image as the page holds it: a data URI, its size in pixels, and whether pixels are to be seen."""

    uri: str
    width: int
    height: int
    coarse: bool


class Gallery:
    """The images of a dataset, those of the test set by their sample ids, picture files by their paths.

    Args:
        raw: the finished run of acquisition.
    """

    def __init__(self, raw: Path) -> None:
        self.file = raw / "test.safetensors"
        self.names: dict[str, list[str]] = {}
        for part in PARTS:
            if (file := raw / f"{part}.safetensors").is_file():
                with safe_open(file, framework="pt") as tensors:
                    if "names" in tensors.keys():  # noqa: SIM118 - it is no dictionary
                        self.names[part] = unpacked(tensors.get_tensor("names"))
        self.known = {name for names in self.names.values() for name in names}
        self.root: Path | None = None
        self.missing = ""  # why there is no thumbnail of a file
        try:
            self.root = pictures_root(raw) if self.names else None
        except UserError as error:
            self.missing = str(error)

    @property
    def of_files(self) -> bool:
        """Whether the images are picture files."""
        return bool(self.names)

    def name(self, sample: int) -> str:
        """What a test image is called."""
        return self.names["test"][sample] if self.of_files else f"test image {sample}"

    def tested(self, sample: int) -> Thumbnail | None:
        """A test image; None where its file is not here, or can no longer be read."""
        if self.of_files:
            return self.of_path(self.name(sample))
        with safe_open(self.file, framework="pt") as tensors:
            pixels = tensors.get_slice("images")[sample].numpy()
        grey = len(pixels) == 1
        image = Image.fromarray(pixels[0] if grey else pixels.transpose(1, 2, 0))
        return _written(image, "PNG", coarse=True)

    def of_path(self, path: str) -> Thumbnail | None:
        """A picture file of the dataset; None for any other path, and where it cannot be read."""
        if self.root is None or path not in self.known:
            return None
        image = small(self.root / path, SIDE, SIDE)
        return None if image is None else _written(image, "JPEG", coarse=False)


def _written(image: Image.Image, form: str, coarse: bool) -> Thumbnail:
    return Thumbnail(written(image, form), *image.size, coarse)
