"""Images: odd modes, sizes and formats, and damaged files."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from . import odd
from .command_lines import NETWORK
from .valid import Valid, copy_data

MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F", "PA", "RGBX")
FORMATS = (
    "PNG",
    "JPEG",
    "GIF",
    "TIFF",
    "PPM",
    "WEBP",
    "BMP",
    "ICO",
    "TGA",
    "PCX",
    "IM",
    "SGI",
    "EPS",
    "PDF",
    "JPEG2000",
)
SIZES = ((1, 1), (1, 400), (400, 1), (16, 16), (17, 31), (300, 200), (2, 2))
TRAIN = ["train", "data", "--out=out", f"--model={NETWORK}", "--batch-size=8", "--epochs=1"]
COMMANDS = (["data", "check", "data"], TRAIN, [*TRAIN, "--image-size=24"], ["data", "check", "data", "--no-decode"])


def images(rng: random.Random, folder: Path, valid: Valid) -> list[str]:
    """A data folder in which some images are odd."""
    data = copy_data(valid, folder)
    for file in data.glob("*.png") if rng.random() < 0.05 else ():
        file.write_bytes(_encoded(rng, "PNG"))
    for file in rng.sample(sorted(data.glob("*.png")), rng.choice((1, 1, 2, 5))):
        file.unlink()
        _write(rng, file)
    return list(rng.choice(COMMANDS))


def _write(rng: random.Random, file: Path) -> None:
    match rng.randrange(14):
        case 0:
            file.mkdir()
        case 1:
            os.mkfifo(file)
        case 2:
            file.symlink_to(rng.choice(("/dev/zero", "/dev/null", "missing", file.name, "/proc/self/mem", ".")))
        case 3:
            file.write_bytes(_huge_png(rng))
        case 4:
            file.write_bytes(_huge_header(rng))
        case 5 | 6 | 7:
            file.write_bytes(odd.damaged(rng, _encoded(rng, rng.choice(FORMATS))))
        case 8:
            file.write_bytes(
                b"GIF89a" + struct.pack("<HH", rng.randrange(65536), rng.randrange(65536)) + rng.randbytes(40)
            )
        case _:
            file.write_bytes(_encoded(rng, rng.choice(FORMATS)))


def _encoded(rng: random.Random, form: str) -> bytes:
    """An image in a random mode; in another mode or format where this one can't hold it."""
    width, height = rng.choice(SIZES)
    mode = rng.choice(MODES)
    pixels = np.frombuffer(rng.randbytes(width * height * 4), np.uint8)
    image = Image.fromarray(pixels[: 3 * width * height].reshape(height, width, 3))
    if mode == "F":
        values = pixels[: width * height].reshape(height, width) * np.float32(rng.choice((1, 1e-3, 1e30, float("nan"))))
        image = Image.fromarray(values.astype(np.float32))
    elif mode in ("I", "I;16"):
        image = Image.fromarray(
            (pixels[: width * height].reshape(height, width) * 200).astype("i4" if mode == "I" else "u2")
        )
    else:
        try:
            image = image.convert(mode)
        except ValueError:
            image = image.convert("P").convert(mode) if mode == "PA" else image
    extra = {"exif": b"Exif\0\0" + rng.randbytes(30)} if form in ("JPEG", "PNG", "WEBP") and rng.random() < 0.2 else {}
    for form_tried, shown in ((form, image), ("TIFF", image), ("PNG", image.convert("RGB"))):
        stream = io.BytesIO()
        try:
            shown.save(stream, form_tried, **extra)
        except Exception:  # not every format holds every mode
            continue
        return stream.getvalue()
    return b""


def _huge_png(rng: random.Random) -> bytes:
    """A PNG file whose header declares more pixels than memory holds."""
    width, height = rng.choice(((100_000, 100_000), (2**31 - 1, 2**31 - 1), (0, 0), (1, 2**31 - 1), (12_000, 12_000)))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    if rng.random() < 0.3:
        parts.insert(1, (b"zTXt", b"x\0\0" + zlib.compress(bytes(50_000_000))))
    made = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def _huge_header(rng: random.Random) -> bytes:
    """A header of another format that declares a huge image."""
    side = rng.choice((100_000, 2**31 - 1, 65_535, 10**12))
    return rng.choice(
        (
            f"P6 {side} {side} 255\n".encode(),
            f"P5\n{side} {side}\n65535\n".encode() + bytes(100),
            f"P1 {side} {side}\n1 0 1".encode(),
            b"BM" + struct.pack("<IIIIiiHHI", 100, 0, 54, 40, min(side, 2**31 - 1), 2**31 - 1, 1, 24, 0) + bytes(50),
            b"II*\0\x08\0\0\0\x02\0"
            + struct.pack("<HHIIHHII", 256, 4, 1, side % 2**32, 257, 4, 1, side % 2**32)
            + bytes(4),
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(executed) (w) file\nshowpage\n",
        )
    )
