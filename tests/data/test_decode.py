"""Pixels of pictures whose file says something that Pillow passes on unread, or says past Python."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longtail.data.decode import NotAPicture, pixels
from tests.odd_pictures import HEIC, noise, png

GREY, RGB = 0, 2  # colour types of PNG

# Two pixels, of which the first has the one transparent colour; what is seen of the other; bits and colours.
TRANSPARENT = {
    "1 bit": (1, GREY, bytes([0b01000000]), struct.pack(">H", 0), (255, 255, 255)),
    "2 bits": (2, GREY, bytes([0b01100000]), struct.pack(">H", 1), (170, 170, 170)),
    "4 bits": (4, GREY, bytes([0x3A]), struct.pack(">H", 3), (170, 170, 170)),
    "8 bits": (8, GREY, bytes([3, 170]), struct.pack(">H", 3), (170, 170, 170)),
    "16 bits": (16, GREY, struct.pack(">2H", 0, 60000), struct.pack(">H", 0), (233, 233, 233)),
    "16 bits, nearly": (16, GREY, struct.pack(">2H", 1000, 1001), struct.pack(">H", 1000), (4, 4, 4)),
    "3 x 8 bits": (8, RGB, bytes([1, 2, 3, 9, 8, 7]), struct.pack(">3H", 1, 2, 3), (9, 8, 7)),
    "3 x 16 bits": (
        *(16, RGB, struct.pack(">6H", 1000, 2000, 3000, 2313, 2056, 1799)),
        *(struct.pack(">3H", 1000, 2000, 3000), (9, 8, 7)),
    ),
}


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("bits", "colours", "row", "colour", "other"), TRANSPARENT.values(), ids=TRANSPARENT)
def test_the_one_transparent_colour_of_a_png_is_white(
    tmp_path, bits, colours, row, colour, other, interlaced
):
    rows = b"\0" + row
    if interlaced:  # of two pixels the first is in pass 1, the second in pass 6
        bytes_each = max(1, len(row) // 2)
        first, second = row[:bytes_each], row[-bytes_each:]
        if bits < 8:
            second = bytes([row[0] << bits & 0xFF])
        rows = b"\0" + first + b"\0" + second
    file = tmp_path / "x.png"
    file.write_bytes(png(2, 1, bits, colours, rows, colour, interlaced))
    assert pixels(file, 3, (1, 2)).transpose(1, 2, 0).tolist() == [[[255, 255, 255], list(other)]]


def test_16_bits_without_a_transparent_colour_are_as_they_were(tmp_path):
    values = np.arange(0, 65536, 512, dtype=np.uint16).reshape(8, 16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert np.array_equal(pixels(tmp_path / "x.png", 1, (8, 16))[0], np.round(values * (255 / 65535)))


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1"])
def test_heic_is_named_whatever_the_file_is_called(tmp_path, brand):
    (tmp_path / "x.jpg").write_bytes(HEIC[:8] + brand + HEIC[12:])
    with pytest.raises(NotAPicture, match=r"^is HEIC, which is not read; convert it to JPEG$"):
        pixels(tmp_path / "x.jpg", 3, (8, 8))


def test_a_damaged_tiff_says_nothing_past_python(tmp_path, capfd):
    file = Path(tmp_path / "x.tif")
    for compression in ("tiff_lzw", "tiff_deflate", "group4"):
        picture = noise(1, 400, 300)
        (picture.convert("1") if compression == "group4" else picture).save(file, compression=compression)
        content = bytearray(file.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 200] = b"\xff" * 200
        file.write_bytes(content)
        try:
            pixels(file, 3, (8, 8))
        except NotAPicture as reason:
            assert "damaged" in str(reason)  # noqa: PT017 - a decoder may pass over damage
    assert capfd.readouterr() == ("", "")
