"""Pictures of any kind as the pixels that a model takes. Reading is Pillow's.

In this order: the picture is turned as its EXIF orientation says, brought to 8 bits a channel, put on white
where it is transparent, made grey or RGB as the model wants, and resized as a whole to the model's size
(bilinear with antialiasing; one of that size stays as it is). Of several frames the first counts.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from glob import has_magic
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

# Not every format that Pillow knows: one of them (EPS) starts another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


class NotAPicture(Exception):  # noqa: N818 - what it says is why a file is left out
    """Why a file cannot be predicted."""


def listed(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Files, the files of folders and what patterns match, in the order given.

    A folder's files come sorted by name with its sub-folders', without hidden ones; links to folders are
    not followed. What a pattern matches comes sorted.

    Yields:
        A path, and why there is nothing to read there; "" where there may be.
    """
    for name in given:
        if os.path.lexists(name):
            yield from _below(name)
        elif has_magic(name):
            found = _matching(name)
            for match in found:
                # With ** the files of a folder are matches themselves.
                if not (os.path.isdir(match) and "**" in name):
                    yield from _below(match)
            if not found:
                yield name, "matches no file"
        else:
            yield name, "there is no such file"


def _matching(pattern: str) -> list[str]:
    """Sorted; as in a shell * matches no hidden name, and ** follows no link to a folder."""
    parts = Path(pattern).parts
    first = next(number for number, part in enumerate(parts) if has_magic(part))
    base, rest = Path(*parts[:first]), Path(*parts[first:])
    hidden = any(part.startswith(".") for part in rest.parts)
    found = [path for path in base.glob(str(rest)) if path != base]
    seen = [path for path in found if hidden or not _hidden(path.relative_to(base))]
    return sorted(map(str, seen))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _below(name: str) -> Iterator[tuple[str, str]]:
    if not os.path.isdir(name):
        yield name, ""
        return
    count = 0
    for folder, folders, files in os.walk(name):
        folders[:] = sorted(found for found in folders if not found.startswith("."))
        for file in sorted(files):
            if not file.startswith("."):
                count += 1
                yield os.path.join(folder, file), ""
    if not count:
        yield name, "the folder has no file"


def pixels(file: str | Path, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture as uint8 (channels, height, width).

    Args:
        file: of the picture.
        channels: 1 (grey) or 3 (RGB).
        size: (height, width).

    Raises:
        NotAPicture: if it cannot be read.
    """
    try:
        if not os.path.isfile(file):  # a pipe would wait for ever
            raise NotAPicture("is no regular file" if os.path.lexists(file) else "there is no such file")
        if not os.path.getsize(file):
            raise NotAPicture("is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as picture:
                picture.draft("RGB" if channels == 3 else "L", None)
                upright = ImageOps.exif_transpose(picture)
            return _fitted(upright, channels, size)
    except NotAPicture:
        raise
    except UnidentifiedImageError:
        raise NotAPicture("is no picture of a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise NotAPicture(f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except MemoryError:
        raise NotAPicture("does not fit into memory") from None
    except Exception as error:  # a damaged file raises almost anything in some decoder
        raise NotAPicture(f"is damaged ({' '.join(str(error).split())[:120]})") from None


def _fitted(picture: Image.Image, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    mode = "RGB" if channels == 3 else "L"
    height, width = size
    found = _opaque(_eight_bits(picture)).convert(mode)
    if found.size != (width, height):
        found = found.resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(found, dtype=np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _eight_bits(picture: Image.Image) -> Image.Image:
    """The same with 8 bits a channel: 65535 becomes 255."""
    if picture.mode in SIXTEEN_BITS or picture.mode == "I":
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise NotAPicture("has 32 bits a pixel; save it with 8 or 16")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if picture.mode == "F":
        raise NotAPicture("has pixels of floating point, of unknown range; save it with 8 or 16 bits")
    return picture


def _opaque(picture: Image.Image) -> Image.Image:
    """The same on white, where any of it is transparent."""
    if picture.mode == "P" and "transparency" not in picture.info:
        return picture.convert("RGB")
    if not picture.has_transparency_data:
        return picture
    seen = picture.convert("RGBA")
    white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, seen)
