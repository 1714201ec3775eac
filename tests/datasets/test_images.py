"""Image files of all kinds are decoded to the right RGB values, or refused with the reason."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from torchvision.datasets.folder import default_loader

from spurious_memorization.datasets.image_files import Folder
from spurious_memorization.datasets.images import opened_image, to_rgb
from spurious_memorization.datasets.sources import Images
from spurious_memorization.datasets.transforms import ImageTransform
from spurious_memorization.errors import UserError

Values = NDArray[np.uint8]

RAMP = np.tile(np.linspace(40, 220, 32).astype(np.uint8), (32, 1))
COLORS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=-1)


def decoded(file: Path) -> Values:
    with opened_image(Folder(file.parent), file.name) as image:
        return np.asarray(to_rgb(image))


def assert_gray(found: Values, expected: Values, tolerance: int = 0) -> None:
    assert found.shape == (*expected.shape, 3)
    difference = found.astype(int) - expected[..., None].astype(int)
    assert np.abs(difference).max() <= tolerance


def tiff(file: Path, pixels: bytes, bits: int, sample_format: int, photometric: int, order: str = "<") -> Path:
    """Write an uncompressed gray TIFF of 32 x 32 pixels by hand."""
    entries = [(256, 32), (257, 32), (258, bits), (259, 1), (262, photometric), (273, 8 + 2 + 10 * 12 + 4)]
    entries += [(277, 1), (278, 32), (279, len(pixels)), (339, sample_format)]
    fields = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in entries)
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    file.write_bytes(header + struct.pack(f"{order}H", len(entries)) + fields + bytes(4) + pixels)
    return file


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
def test_16_bits_keep_their_values(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    values = (RAMP.astype(np.uint16) * 257 + rng.integers(-100, 101, RAMP.shape)).astype(np.uint16)
    lossless = {"irreversible": False} if name == "a.jp2" else {}
    Image.fromarray(values).save(tmp_path / name, **lossless)
    assert_gray(decoded(tmp_path / name), RAMP)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_tiff_with_either_byte_order_and_white_as_zero(tmp_path: Path, order: str, white_is_zero: bool) -> None:
    if order == ">" and white_is_zero:
        pytest.skip("Pillow doesn't read it")
    values = (RAMP.astype(np.uint16) * 257).astype(f"{order}u2")
    file = tiff(tmp_path / "a.tif", values.tobytes(), 16, 1, 0 if white_is_zero else 1, order)
    assert_gray(decoded(file), 255 - RAMP if white_is_zero else RAMP)


def test_12_bits_that_the_file_states(tmp_path: Path) -> None:
    values = (RAMP.astype(int) * 4095 // 255).reshape(-1, 2)
    packed = np.stack([values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255], axis=1)
    file = tiff(tmp_path / "a.tif", packed.astype(np.uint8).tobytes(), 12, 1, 1)
    assert_gray(decoded(file), np.rint(values.reshape(32, 32) / 4095 * 255).astype(np.uint8))
    for name, header in (("a.pgm", "P5"), ("b.pgm", "P2")):
        numbers = values.reshape(-1)
        body = numbers.astype(">u2").tobytes() if header == "P5" else " ".join(map(str, numbers)).encode()
        (tmp_path / name).write_bytes(f"{header} 32 32 4095\n".encode() + body)
        assert_gray(decoded(tmp_path / name), np.rint(numbers.reshape(32, 32) / 4095 * 255).astype(np.uint8))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_fewer_bits_stored_in_16_are_refused(tmp_path: Path, bits: int, name: str) -> None:
    Image.fromarray(RAMP.astype(np.uint16) << (bits - 8)).save(tmp_path / name)
    with pytest.raises(UserError, match=rf"mode I\S* with values {40 << bits - 8} to {220 << bits - 8}: .* 8 bits"):
        decoded(tmp_path / name)


def test_fewer_bits_in_16_are_refused_in_colors(tmp_path: Path) -> None:
    for number, values in enumerate((COLORS.astype(np.uint16) * 16, COLORS.astype(np.uint16) * 257)):
        (tmp_path / f"{number}.ppm").write_bytes(b"P6 32 32 65535\n" + values.astype(">u2").tobytes())
    with pytest.raises(UserError, match="16 bits per color"):
        decoded(tmp_path / "0.ppm")
    np.testing.assert_array_equal(decoded(tmp_path / "1.ppm"), COLORS)


def test_dark_images_that_were_8_bits_are_read(tmp_path: Path) -> None:
    dark = (RAMP // 8).astype(np.uint16)
    for number, values in enumerate((dark * 257, dark * 256, dark * 0)):
        Image.fromarray(values).save(tmp_path / f"{number}.png")
        assert_gray(decoded(tmp_path / f"{number}.png"), np.rint(values / 257).astype(np.uint8))


def test_floats_from_0_to_1(tmp_path: Path) -> None:
    Image.fromarray((RAMP / np.float32(255)).astype(np.float32)).save(tmp_path / "a.tif")
    assert_gray(decoded(tmp_path / "a.tif"), RAMP)
    inverted = tiff(tmp_path / "b.tif", (RAMP / 255).astype("<f4").tobytes(), 32, 3, 0)
    assert_gray(decoded(inverted), 255 - RAMP)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (RAMP.astype(np.float32), "mode F with values 40 to 220"),
        (RAMP / np.float32(255) - np.float32(0.5), "mode F with values -0.343137 to 0.362745"),
        (np.where(RAMP > 100, np.nan, np.float32(0.5)).astype(np.float32), "mode F with values nan to nan"),
        (np.where(RAMP > 100, np.inf, np.float32(0.5)).astype(np.float32), "mode F with values 0.5 to inf"),
        (RAMP.astype(np.int32), "mode I with values 40 to 220"),
        (RAMP.astype(np.int32) * 257, "mode I with values 10280 to 56540"),
    ],
)
def test_ranges_that_can_only_be_guessed_are_refused(tmp_path: Path, values: NDArray[np.generic], reason: str) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=reason):
        decoded(tmp_path / "a.tif")


def test_signed_16_bits_are_refused(tmp_path: Path) -> None:
    file = tiff(tmp_path / "a.tif", (RAMP.astype("<i2") * 100 - 9000).astype("<i2").tobytes(), 16, 2, 1)
    with pytest.raises(UserError, match="mode I with values -5000 to 13000"):
        decoded(file)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_are_those_of_torchvisions_loader(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(COLORS).convert("RGB")
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(RAMP.T.copy()))
    file = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    image.convert(mode).save(file)
    np.testing.assert_array_equal(decoded(file), np.asarray(default_loader(str(file))))


def test_alpha_is_dropped(tmp_path: Path) -> None:
    image = Image.fromarray(COLORS)
    image.putalpha(0)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), COLORS)


def test_transparent_entries_of_a_palette(tmp_path: Path) -> None:
    image = Image.fromarray(COLORS).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "a.png", transparency=bytes(range(0, 160, 10)))
    image.save(tmp_path / "b.png", transparency=3)
    for name in ("a.png", "b.png"):
        np.testing.assert_array_equal(decoded(tmp_path / name), expected)


def test_lab_is_converted_by_its_profile(tmp_path: Path) -> None:
    lab = ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    converted = ImageCms.applyTransform(Image.fromarray(COLORS), transform)
    assert converted is not None
    converted.save(tmp_path / "a.tif")
    assert np.abs(decoded(tmp_path / "a.tif").astype(int) - COLORS).mean() < 3


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (decoded(tmp_path / "a.gif") == [255, 0, 0]).all()


def test_a_rotation_in_exif_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(COLORS[:20]).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), COLORS[:20])
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), np.asarray(default_loader(str(tmp_path / "a.png"))))


# Files that are refused


@pytest.mark.parametrize(
    "error",
    [
        SyntaxError("broken PNG"),
        struct.error("unpack requires a buffer"),
        ZeroDivisionError("division by zero"),
        MemoryError(),
        OverflowError("too large"),
        RecursionError("maximum depth"),
        Image.DecompressionBombError("too many pixels"),
        Image.DecompressionBombWarning("too many pixels"),
        KeyError("colors"),
        OSError("two\nlines"),
    ],
)
def test_any_error_of_a_decoder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(_: Image.Image) -> None:
        raise error

    Image.fromarray(COLORS).save(tmp_path / "a.bmp")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    with pytest.raises(UserError, match=r"image \S+a.bmp can't be read \(.+\): replace the file") as caught:
        Images(Folder(tmp_path), ("a.bmp",), None).open(0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "device"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    match kind:
        case "folder":
            Path("a").mkdir()
        case "pipe":
            os.mkfifo("a")
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind("a")
        case "device":
            Path("a").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"image \S+ can't be read \(it is not a regular file\)"):
        Images(Folder(tmp_path), ("a",), None).open(0)


@pytest.mark.parametrize("name", ["gone.png", "link.png", "nul\0.png", "a" * 300, "file/a.png"])
def test_names_that_lead_to_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link.png").symlink_to("nowhere.png")
    source = Images(Folder(tmp_path), (name,), ImageTransform(image_size=8, resize=8))
    with pytest.raises(UserError, match=r"is missing|can't be read") as caught:
        source.load(np.array([0]))
    assert str(caught.value).isprintable()
    assert len(source.fingerprint()) == 64


def test_a_size_beyond_pillows_limit_is_refused_without_decoding(tmp_path: Path) -> None:
    Image.new("1", (8, 8)).save(tmp_path / "a.bmp")
    content = bytearray((tmp_path / "a.bmp").read_bytes())
    content[18:26] = struct.pack("<ii", 50_000, 50_000)
    (tmp_path / "a.bmp").write_bytes(content)
    with pytest.raises(UserError, match="exceeds limit"):
        decoded(tmp_path / "a.bmp")


def test_no_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + b",\0\0\0\0\0\0\0\0\0\2\0;")
    with pytest.raises(UserError, match="it is not an image of a known format"):
        decoded(tmp_path / "a.gif")


def test_eps_is_not_run(tmp_path: Path) -> None:
    Image.fromarray(COLORS).save(tmp_path / "a.eps")
    with pytest.raises(UserError, match="EPS files are programs"):
        decoded(tmp_path / "a.eps")


def test_one_pixel_and_narrow_images(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (9, 99, 199)).save(tmp_path / "one.png")
    Image.new("RGB", (20_000, 1), (9, 99, 199)).save(tmp_path / "narrow.png")
    paths = ("one.png", "narrow.png")
    squashed = ImageTransform(image_size=4, resize=4, mean=(0, 0, 0), std=(1, 1, 1))
    for n in (0, 1):
        inputs = Images(Folder(tmp_path), paths, squashed).load(np.array([n]))
        np.testing.assert_allclose(inputs * 255, np.broadcast_to(np.array([9, 99, 199])[:, None, None], (1, 3, 4, 4)))
    for options in ({"keep_aspect": True}, {"pad": True}):
        transform = ImageTransform(image_size=224, resize=256, **options)
        with pytest.raises(UserError, match=r"narrow\.png of 20000 x 1 pixels is too narrow"):
            Images(Folder(tmp_path), paths, transform).load(np.array([1]))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.gif", "a.bmp", "a.webp", "a.pgm"])
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    deep = {"a.png", "a.tif", "a.pgm"}
    Image.fromarray(RAMP.astype(np.uint16) * 257 if name in deep else COLORS).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    reasons = []
    for _ in range(150):
        content = bytearray(whole[: rng.choice([len(whole), rng.integers(len(whole))], p=[0.8, 0.2])])
        for place in rng.integers(0, max(1, min(len(content), rng.choice([60, len(whole)]))), 3):
            content[place : place + 1] = rng.bytes(rng.integers(0, 3))
        (tmp_path / name).write_bytes(content)
        try:
            assert decoded(tmp_path / name).shape[2] == 3
        except UserError as error:
            reasons.append(str(error))
    assert len(reasons) > 30
    assert all(reason.strip() and "\n" not in reason for reason in reasons)
