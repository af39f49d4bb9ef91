"""Small copies of pictures inside a page: it is one file and needs no other."""

import base64
import io
from pathlib import Path

from PIL import Image, ImageOps

from longtail.data.decode import NotAPicture, opened, plain

QUALITY = 72  # of JPEG, of 100


def small(file: Path, width: int, height: int) -> Image.Image | None:
    """A picture file, upright, in RGB, of at most so many pixels; None where it cannot be read."""
    try:
        with opened(file) as picture:
            picture.draft("RGB", (width, height))
            found = plain(ImageOps.exif_transpose(picture), 3)
            found.thumbnail((width, height), Image.Resampling.BILINEAR)
            return found
    except NotAPicture:
        return None


def written(image: Image.Image, form: str = "JPEG") -> str:
    """An image as a data URI, JPEG or PNG."""
    out = io.BytesIO()
    image.save(out, form, **({} if form == "PNG" else {"quality": QUALITY, "optimize": True}))
    return data_uri(out.getvalue(), f"image/{form.lower()}")


def data_uri(content: bytes, kind: str) -> str:
    """A file inside a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
