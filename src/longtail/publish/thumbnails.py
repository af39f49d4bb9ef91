"""Small copies of pictures inside a page: it is one file and needs no other."""

import base64
import io
from pathlib import Path

from PIL import Image, ImageOps

from longtail.data.decode import NotAPicture, opened, plain

WIDTH, HEIGHT = 160, 120  # pixels that a thumbnail has at most
QUALITY = 70  # of its JPEG, of 100


def thumbnail(file: Path) -> str:
    """A picture as a data URI of a few thousand characters; "" where it cannot be read."""
    try:
        with opened(file) as picture:
            picture.draft("RGB", (WIDTH, HEIGHT))
            found = plain(ImageOps.exif_transpose(picture), 3)
            found.thumbnail((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
            out = io.BytesIO()
            found.save(out, "JPEG", quality=QUALITY)
    except NotAPicture:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
