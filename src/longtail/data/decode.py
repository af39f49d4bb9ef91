"""Pictures of any kind as the pixels that a model takes. Reading is Pillow's.

In this order: the picture is turned as its EXIF orientation says, brought to 8 bits a channel, put on white
where it is transparent (by an alpha channel or by one transparent colour), made grey or RGB as the model
wants, and resized as a whole to the model's size (bilinear with antialiasing; one of that size stays as it
is). Of several frames the first counts.
"""

import ctypes
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, _imaging

# Not every format that Pillow knows: one of them (EPS) starts another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")
# Of odd metadata and large pictures; once for all threads, since a filter belongs to the process.
warnings.filterwarnings("ignore", module=r"PIL\.")
with suppress(OSError, AttributeError):  # libtiff writes on standard error itself, past Python
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
COMPUTES = False  # runs on picture files name it, so that no other run depends on it
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF's key, and its values that swap width and height
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands, bytes 8 to 11
NOT_READ = "is HEIC, which is not read; convert it to JPEG"


class NotAPicture(Exception):  # noqa: N818 - what it says is why a file is left out
    """Why a file cannot be predicted."""


Box = tuple[float, float, float, float]  # left, top, width, height in pixels


def pixels(file: str | Path, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture as uint8 (channels, height, width).

    Args:
        file: of the picture.
        channels: 1 (grey) or 3 (RGB).
        size: (height, width).

    Raises:
        NotAPicture: if it cannot be read.
    """
    with opened(file) as picture:
        picture.draft(_mode(channels), None)
        found = plain(ImageOps.exif_transpose(picture), channels)
        if found.size != size[::-1]:
            found = found.resize(size[::-1], Image.Resampling.BILINEAR)
        values = np.asarray(found, dtype=np.uint8).reshape(*size, channels)
        return np.ascontiguousarray(values.transpose(2, 0, 1))


def square(
    file: str | Path,
    channels: int,
    side: int,
    region: Callable[[int, int], Box],
    interpolation: str = "bilinear",
) -> NDArray[np.uint8]:
    """A part of a picture, resized to uint8 (side, side, channels), with antialiasing.

    A JPEG is decoded at a half, a quarter or an eighth where that leaves the part as large as asked for.

    Args:
        file: of the picture.
        channels: 1 (grey) or 3 (RGB).
        side: in pixels.
        region: which part, of a picture of a width and height.
        interpolation: bilinear or bicubic.

    Raises:
        NotAPicture: if it cannot be read.
    """
    with opened(file) as picture:
        width, height = upright_size(picture)
        left, top, across, down = region(width, height)
        shrink = max(1.0, min(across, down) / side)
        picture.draft(_mode(channels), (int(picture.width / shrink), int(picture.height / shrink)))
        found = plain(ImageOps.exif_transpose(picture), channels)
        x, y = found.width / width, found.height / height
        box = (left * x, top * y, (left + across) * x, (top + down) * y)
        found = found.resize((side, side), Image.Resampling[interpolation.upper()], box=box)
        return np.asarray(found, dtype=np.uint8).reshape(side, side, channels)


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height of a picture as it is turned by its EXIF orientation; a TIFF is decoded for it.

    Pillow turns a TIFF as it decodes it, and its size before that is already the turned one.
    """
    if picture.format == "TIFF":
        picture.load()
    turned = picture.getexif().get(ORIENTATION, 1) in SIDEWAYS
    return picture.size[::-1] if turned else picture.size


def center(share: float) -> Callable[[int, int], Box]:
    """The square in the middle, whose side is a share of the shorter side: what evaluation sees."""

    def region(width: int, height: int) -> Box:
        side = share * min(width, height)
        return (width - side) / 2, (height - side) / 2, side, side

    return region


@contextmanager
def opened(file: str | Path) -> Iterator[Image.Image]:
    """A picture that is open; whatever goes wrong with it is said as NotAPicture."""
    try:
        if not os.path.isfile(file):  # a pipe would wait for ever
            raise NotAPicture("is no regular file" if os.path.lexists(file) else "there is no such file")
        if not os.path.getsize(file):
            raise NotAPicture("is empty")
        with Image.open(file, formats=FORMATS) as picture:
            if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError  # Pillow itself warns up to twice as many
            _scale_transparent_colour(picture)
            yield picture
    except NotAPicture:
        raise
    except UnidentifiedImageError:
        raise NotAPicture(NOT_READ if _is_heic(file) else "is no picture of a known format") from None
    except Image.DecompressionBombError:
        raise NotAPicture(f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except MemoryError:
        raise NotAPicture("does not fit into memory") from None
    except Exception as error:  # a damaged file raises almost anything in some decoder
        raise NotAPicture(f"is damaged ({' '.join(str(error).split())[:120]})") from None


def _is_heic(file: str | Path) -> bool:
    """Whether a file says of itself that it is HEIC, as phones write it, whatever it is called."""
    with suppress(OSError), open(file, "rb") as content:
        head = content.read(12)
        return head[4:8] == b"ftyp" and head[8:] in HEIC
    return False


def _scale_transparent_colour(picture: Image.Image) -> None:
    """Bring a PNG's one transparent colour to the 8 bits that Pillow makes of 2, 4 or 3 x 16 bits.

    Of 3 x 16 bits Pillow keeps the upper 8, by which the colour is known then.
    """
    colour = picture.info.get("transparency")
    if picture.format != "PNG" or not isinstance(colour, int | tuple):
        return
    for tile in getattr(picture, "tile", []):
        if isinstance(colour, int) and tile[3] in ("L;2", "L;4"):
            picture.info["transparency"] = colour * (85 if tile[3] == "L;2" else 17)
        elif isinstance(colour, tuple) and tile[3] == "RGB;16B":
            picture.info["transparency"] = tuple(part >> 8 for part in colour)
        return


def _mode(channels: int) -> str:
    return "RGB" if channels == 3 else "L"


def plain(picture: Image.Image, channels: int) -> Image.Image:
    """The same on white, with 8 bits a channel, grey or RGB."""
    return _opaque(eight_bits(picture)).convert(_mode(channels))


def eight_bits(picture: Image.Image) -> Image.Image:
    """The same with 8 bits a channel: 65535 becomes 255. One transparent colour becomes an alpha channel."""
    if picture.mode in SIXTEEN_BITS or picture.mode == "I":
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise NotAPicture("has 32 bits a pixel; save it with 8 or 16")
        grey = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
        if isinstance(colour := picture.info.get("transparency"), int):
            seen = Image.fromarray(np.where(values == colour, 0, 255).astype(np.uint8))
            return Image.merge("LA", (grey, seen))
        return grey
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
