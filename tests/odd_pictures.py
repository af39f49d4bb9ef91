"""Picture files of every odd kind, and what a check has to say of them."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# The beginning of a file that a phone wrote.
HEIC = b"\0\0\0\x24ftypheic\0\0\0\0mif1MiHEMiPrmiafMiHBheic" + bytes(500)


def noise(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """A picture that no other seed has."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def class_folders(root: Path, sizes: dict[str, int], seed: int = 0) -> Path:
    """Folders of JPEG files, as many a class as asked for, no two alike."""
    number = 1000 * seed
    for name, size in sizes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(size):
            number += 1
            noise(number).save(root / name / f"{index:03d}.jpg")
    return root


def scenes(root: Path, counts: dict[str, int]) -> Path:
    """Class folders of pictures as photographs are: smooth, and unlike each other."""
    random = np.random.default_rng(0)
    for name, number in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for picture in range(number):
            coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
            coarse.resize((160, 120), Image.Resampling.BICUBIC).save(root / name / f"{picture:03d}.png")
    return root


def copied(source: Path, target: Path, **options) -> None:
    """A smaller copy in another format."""
    Image.open(source).resize((100, 75)).save(target, **options)


def png(
    width: int,
    height: int,
    bits: int,
    colours: int,
    rows: bytes,
    transparent: bytes = b"",
    interlaced: bool = False,
) -> bytes:
    """A PNG, chunk by chunk; a header may promise what the rows do not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, interlaced)
    chunks = chunk(b"IHDR", header) + (chunk(b"tRNS", transparent) if transparent else b"")
    chunks += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def unusable(folder: Path, outside: Path) -> dict[str, str]:
    """Files that cannot be used, by name the beginning of what is said of them."""
    whole = folder.parent / "whole.bin"
    noise(1).save(whole, "JPEG")
    jpeg = whole.read_bytes()
    noise(2).save(whole, "PNG")
    content = whole.read_bytes()
    whole.unlink()
    (folder / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "truncated_by_little.jpg").write_bytes(jpeg[:-40])
    (folder / "truncated.png").write_bytes(content[:-60])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no picture\n" * 20)
    (folder / "bomb.png").write_bytes(png(50_000, 50_000, 8, 2, bytes(1000)))
    (folder / "postscript.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    Image.fromarray(np.linspace(0, 1, 80, dtype=np.float32).reshape(8, 10)).save(folder / "float.tif")
    Image.fromarray(np.arange(80, dtype=np.int32).reshape(8, 10) * 10**6).save(folder / "wide.tif")
    outside.mkdir(exist_ok=True)
    noise(3).save(outside / "outside.png")
    (folder / "phone.jpg").write_bytes(HEIC)
    (folder / "link.png").symlink_to(outside / "outside.png")
    (folder / "dangling.png").symlink_to("nowhere.png")
    return {
        "truncated.jpg": "is damaged",
        "truncated_by_little.jpg": "is damaged",
        "truncated.png": "is damaged",
        "empty.jpg": "is empty",
        "text.jpg": "is no picture of a known format",
        "bomb.png": "has more than",
        "postscript.jpg": "is no picture of a known format",
        "phone.jpg": "is HEIC, which is not read; convert it to JPEG",
        "float.tif": "has pixels of floating point",
        "wide.tif": "has 32 bits a pixel",
        "link.png": "is a link out of the root",
        "dangling.png": "is a link to nowhere",
    }


def usable(folder: Path) -> dict[str, tuple[str, str, tuple[int, int]]]:
    """Odd files that are fine, by name their mode, format and size (width, height)."""
    grey = np.arange(80, dtype=np.uint8).reshape(8, 10) * 3
    Image.fromarray(grey).save(folder / "grey.jpg")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "16_bit.png")
    Image.fromarray(grey.astype(np.uint16) * 250).save(folder / "16_bit.tiff")
    noise(11).convert("CMYK").save(folder / "cmyk.jpg")
    noise(12).convert("RGBA").save(folder / "alpha.png")
    noise(13).convert("P").save(folder / "palette.gif")
    Image.fromarray(grey > 100).save(folder / "bits.png")
    noise(14).save(folder / "png_named.jpg", "PNG")
    noise(15).save(folder / "UPPER.JPEG", "JPEG")
    noise(16).save(folder / "broken_exif.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0")
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(17).save(folder / "turned.jpg", exif=exif)
    noise(18).save(folder / "caf\u00e9 \u732b with space.webp")
    noise(19).save(folder / "new\nline.png")
    Image.new("RGB", (1, 1), (1, 2, 3)).save(folder / "dot.png")
    return {
        "grey.jpg": ("L", "JPEG", (10, 8)),
        "16_bit.png": ("I;16", "PNG", (10, 8)),
        "16_bit.tiff": ("I;16", "TIFF", (10, 8)),
        "cmyk.jpg": ("CMYK", "JPEG", (40, 30)),
        "alpha.png": ("RGBA", "PNG", (40, 30)),
        "palette.gif": ("P", "GIF", (40, 30)),
        "bits.png": ("1", "PNG", (10, 8)),
        "png_named.jpg": ("RGB", "PNG", (40, 30)),
        "UPPER.JPEG": ("RGB", "JPEG", (40, 30)),
        "broken_exif.jpg": ("RGB", "JPEG", (40, 30)),
        "turned.jpg": ("RGB", "JPEG", (30, 40)),
        "caf\u00e9 \u732b with space.webp": ("RGB", "WEBP", (40, 30)),
        "new\nline.png": ("RGB", "PNG", (40, 30)),
        "dot.png": ("RGB", "PNG", (1, 1)),
    }
