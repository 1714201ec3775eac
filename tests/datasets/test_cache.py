"""Images are decoded once, and the cached pixels are always those of the current image files."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torchvision.transforms import v2

from spurious_memorization.datasets import cache
from spurious_memorization.datasets.folder import read_data
from spurious_memorization.datasets.samples import Samples
from spurious_memorization.datasets.transforms import ImageTransform
from spurious_memorization.errors import UserError

Monkeypatch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]
IMAGES = 64
RECORD = 4096  # bytes of the record of an image of 16 x 16 pixels: one page


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Monkeypatch) -> Path:
    """An empty cache, used by a single test."""
    monkeypatch.setenv("SPURMEM_CACHE", str(tmp_path / "cache"))
    cache._logged[0] = 0
    return tmp_path / "cache"


@pytest.fixture
def data(squares: Path, tmp_path: Path) -> Path:
    """A copy of the data folder. A test may damage it."""
    return Path(shutil.copytree(squares, tmp_path / "data"))


def everything(data: Path, **transform: Any) -> Samples:
    """All samples of the data folder, of all splits, newly read."""
    dataset = read_data(data)
    if transform:
        dataset = dataset.with_transform(ImageTransform(**transform))
    return dataset.train.at(np.arange(len(dataset)))


def expected(data: Path, **transform: Any) -> torch.Tensor:
    """The inputs that torchvision makes from the files."""
    chosen = ImageTransform(**{"image_size": 16, "resize": 16, **transform})
    size = chosen.resize if chosen.keep_aspect else (chosen.resize, chosen.resize)
    whole = v2.Compose(
        [
            v2.Resize(size, interpolation=v2.InterpolationMode(chosen.interpolation), antialias=True),
            v2.CenterCrop(chosen.image_size),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(chosen.mean), list(chosen.std)),
            v2.ToPureTensor(),
        ]
    )
    images = []
    for path in read_data(data).source.paths:  # type: ignore[attr-defined]
        with Image.open(data / path) as image:
            images.append(whole(image.convert("RGB")))
    return torch.stack(images)


def inputs(samples: Samples, batch_size: int = 10, workers: int = 0) -> torch.Tensor:
    parts = [batch.inputs for batch in samples.batches(batch_size, workers)]
    return torch.cat(parts)  # type: ignore[arg-type]


def decoded(monkeypatch: Monkeypatch, samples: Samples) -> int:
    """Number of files that one pass opens."""
    opened = []
    original = Image.open
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda path: opened.append(path) or original(path))
        inputs(samples)
    return len(opened)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def taken(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in files(folder))


@pytest.mark.parametrize(
    "transform",
    [
        {},
        {"image_size": 13, "resize": 15},
        {"image_size": 7, "resize": 9, "keep_aspect": True, "interpolation": "bicubic"},
        {"image_size": 11, "resize": 21, "interpolation": "nearest"},
        {"image_size": 224, "resize": 256, "mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)},
    ],
)
def test_inputs_are_bitwise_torchvisions_with_and_without_a_cache(
    data: Path, transform: dict[str, Any], monkeypatch: Monkeypatch
) -> None:
    for number in range(0, 20, 3):
        file = data / f"train_0_{number:02d}.png"
        with Image.open(file) as image:
            wide = image.resize((16 + number, 19))
        wide.save(file)
    right = expected(data, **transform)
    for _ in range(2):
        assert torch.equal(inputs(everything(data, **transform)), right)
    monkeypatch.setenv("SPURMEM_CACHE_GB", "0")
    assert torch.equal(inputs(everything(data, **transform)), right)
    assert everything(data, **transform).batch().inputs.is_contiguous()  # type: ignore[union-attr]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_pass_opens_no_image(data: Path, workers: int, monkeypatch: Monkeypatch) -> None:
    right = expected(data)
    assert torch.equal(inputs(everything(data), workers=workers), right)
    monkeypatch.setattr(Image, "open", None)
    for samples in (everything(data), pickle.loads(pickle.dumps(everything(data)))):  # noqa: S301
        assert torch.equal(inputs(samples), right)
        assert torch.equal(inputs(samples, 7, workers), right)
        shuffled = samples.shuffled(3, 1)
        assert torch.equal(inputs(shuffled, 7, workers), right[shuffled.index])
    twice = everything(data).at([5, 2, 5])
    assert torch.equal(inputs(twice), right[[5, 2, 5]])


def test_augmented_images_come_from_the_files(data: Path, monkeypatch: Monkeypatch) -> None:
    inputs(everything(data))
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(UserError, match="not callable"):
        list(everything(data).augmented_batches(10, 0, 0))


def test_normalization_shares_a_file_and_geometry_does_not(data: Path, folder: Path, monkeypatch: Monkeypatch) -> None:
    inputs(everything(data))
    other = {"image_size": 16, "resize": 16, "mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}
    right = expected(data, **other)
    assert decoded(monkeypatch, everything(data, **other)) == 0
    assert torch.equal(inputs(everything(data, **other)), right)
    assert len(files(folder)) == 1
    for number, changes in enumerate(({"resize": 18}, {"keep_aspect": True}, {"interpolation": "bicubic"})):
        assert decoded(monkeypatch, everything(data, **{**other, **changes})) == IMAGES
        assert len(files(folder)) == number + 2
    padded = {"image_size": 16, "resize": 16, "pad": True}
    inputs(everything(data, **padded))
    assert decoded(monkeypatch, everything(data, **padded, mean=(0.9, 0.9, 0.9))) == IMAGES  # another color of padding
    assert decoded(monkeypatch, everything(data, **padded, std=(0.9, 0.9, 0.9))) == 0


def test_a_link_to_the_data_shares_a_file_and_other_data_do_not(
    data: Path, tmp_path: Path, monkeypatch: Monkeypatch
) -> None:
    inputs(everything(data))
    (tmp_path / "link").symlink_to(data)
    shutil.copytree(data, tmp_path / "copy")
    assert decoded(monkeypatch, everything(tmp_path / "link")) == 0
    assert decoded(monkeypatch, everything(tmp_path / "copy")) == IMAGES


def test_a_changed_file_is_decoded_again(data: Path, monkeypatch: Monkeypatch) -> None:
    samples = everything(data)
    inputs(samples)
    file = data / samples.dataset.source.paths[4]  # type: ignore[attr-defined]
    Image.new("RGB", (16, 16), (250, 10, 10)).save(file)
    assert decoded(monkeypatch, samples) == 1
    assert torch.equal(inputs(samples), expected(data))
    Image.new("RGB", (16, 16), (10, 250, 10)).save(file)
    later = file.stat().st_mtime_ns + 1
    os.utime(file, ns=(later, later))
    assert decoded(monkeypatch, samples) == 1
    assert torch.equal(inputs(samples), expected(data))
    Image.new("RGB", (16, 16), (10, 10, 250)).save(file.with_name("new.png"))
    assert file.with_name("new.png").stat().st_size == file.stat().st_size
    os.utime(file.with_name("new.png"), ns=(later, later))
    file.with_name("new.png").replace(file)
    assert torch.equal(inputs(everything(data)), expected(data))


def test_a_missing_file_is_an_error_even_if_it_was_decoded_before(data: Path) -> None:
    samples = everything(data)
    inputs(samples)
    (data / samples.dataset.source.paths[4]).unlink()  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"image \S+ is missing: `spurmem data check`"):
        inputs(samples)


def test_shared_training_fill_it_at_once(data: Path, monkeypatch: Monkeypatch) -> None:
    right = expected(data)
    context = multiprocessing.get_context("fork")

    def fill(seed: int) -> None:
        samples = everything(data).shuffled(seed, 0)
        os._exit(0 if torch.equal(inputs(samples, 3), right[samples.index]) else 1)

    children = [context.Process(target=fill, args=(seed,)) for seed in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    monkeypatch.setattr(Image, "open", None)
    assert torch.equal(inputs(everything(data)), right)


@pytest.mark.parametrize("written", [0, 8, 500, RECORD])
def test_killed_while_it_is_filled(data: Path, written: int, monkeypatch: Monkeypatch) -> None:
    original, calls = os.pwrite, []

    def killed(handle: int, record: memoryview, place: int) -> int:
        calls.append(place)
        if len(calls) == 15:
            original(handle, memoryview(record).cast("B")[:written], place)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(handle, record, place)

    def fill() -> None:
        os.pwrite = killed
        inputs(everything(data))

    assert tiny.in_child(fill) == -signal.SIGKILL
    assert decoded(monkeypatch, everything(data)) == IMAGES - (15 if written == RECORD else 14)
    assert torch.equal(inputs(everything(data)), expected(data))


@pytest.mark.parametrize("size", [0, 1, 100, 5 * RECORD + 100, (IMAGES + 3) * RECORD])
@pytest.mark.parametrize("garbage", [False, True])
def test_a_damaged_file_is_filled_again(
    data: Path, folder: Path, size: int, garbage: bool, monkeypatch: Monkeypatch
) -> None:
    inputs(everything(data))
    content = files(folder)[0].read_bytes()
    if garbage:
        content = np.random.default_rng(0).bytes(len(content))
    files(folder)[0].write_bytes(content[:size].ljust(size, b"x"))
    whole = 0 if garbage else min(size // RECORD, IMAGES)
    right = expected(data)
    samples = everything(data)
    assert decoded(monkeypatch, samples) == IMAGES - whole
    assert decoded(monkeypatch, samples) == 0
    assert torch.equal(inputs(samples), right)


def test_one_wrong_bit_is_detected(data: Path, folder: Path, monkeypatch: Monkeypatch) -> None:
    inputs(everything(data))
    with files(folder)[0].open("r+b") as file:
        file.seek(7 * RECORD + 300)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    assert decoded(monkeypatch, everything(data)) == 1
    assert torch.equal(inputs(everything(data)), expected(data))


def test_the_least_recently_used_file_is_deleted_first(data: Path, folder: Path, monkeypatch: Monkeypatch) -> None:
    monkeypatch.setenv("SPURMEM_CACHE_GB", str(2.5 * IMAGES * RECORD / 1e9))
    geometries = [{"image_size": 16, "resize": side} for side in (16, 17, 18)]
    names: list[str] = []
    for geometry in geometries[:2]:
        inputs(everything(data, **geometry))
        names += [file.name for file in files(folder) if file.name not in names]
    first, second = (folder / name for name in names)
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    assert decoded(monkeypatch, everything(data, **geometries[0])) == 0
    inputs(everything(data, **geometries[2]))
    assert first.exists()
    assert not second.exists()
    assert taken(folder) <= 2.5 * IMAGES * RECORD
    assert [decoded(monkeypatch, everything(data, **geometries[n])) for n in (0, 2)] == [0, 0]


def test_what_does_not_fit_is_decoded_each_time(
    data: Path, folder: Path, monkeypatch: Monkeypatch, capsys: Capture
) -> None:
    monkeypatch.setenv("SPURMEM_CACHE_GB", str(33 * RECORD / 1e9))
    for _ in range(3):
        assert torch.equal(inputs(everything(data)), expected(data))
    assert decoded(monkeypatch, everything(data)) == IMAGES - 33
    assert taken(folder) == 33 * RECORD
    assert [line for line in capsys.readouterr().err.splitlines() if "SPURMEM_CACHE_GB" in line] != []
    inputs(everything(data))
    assert capsys.readouterr().err == ""


def test_no_cache(data: Path, folder: Path, monkeypatch: Monkeypatch) -> None:
    monkeypatch.setenv("SPURMEM_CACHE_GB", "0")
    assert [decoded(monkeypatch, everything(data)) for _ in range(2)] == [IMAGES, IMAGES]
    assert not folder.exists()


@pytest.mark.parametrize("text", ["much", "-1", "nan", "2 GB"])
def test_an_invalid_limit(data: Path, text: str, monkeypatch: Monkeypatch) -> None:
    monkeypatch.setenv("SPURMEM_CACHE_GB", text)
    with pytest.raises(UserError, match=r"SPURMEM_CACHE_GB is .* set it to the limit in GB"):
        inputs(everything(data))


def test_no_limit(data: Path, monkeypatch: Monkeypatch) -> None:
    monkeypatch.setenv("SPURMEM_CACHE_GB", "inf")
    assert [decoded(monkeypatch, everything(data)) for _ in range(2)] == [IMAGES, 0]


def test_by_default_it_is_in_the_users_cache(data: Path, tmp_path: Path, monkeypatch: Monkeypatch) -> None:
    monkeypatch.delenv("SPURMEM_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    inputs(everything(data))
    assert len(files(tmp_path / "spurious-memorization")) == 1


@pytest.mark.slow
def test_no_home_directory_stops_nothing(data: Path, tmp_path: Path) -> None:
    unset = ("HOME", "XDG_CACHE_HOME", "SPURMEM_CACHE", "USER", "LOGNAME")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    code = """
import os, pwd, sys
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
import spurious_memorization as sm
for cache in (None, "new"):
    if cache:
        os.environ["SPURMEM_CACHE"] = cache
    data = sm.read_data(sys.argv[1], image_size=8)
    for _ in range(2):
        print(data.train.batch().inputs.double().sum().item())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(data)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stderr.splitlines()
    assert line == "there is no home directory, so images are decoded again in each pass: set SPURMEM_CACHE to a folder"
    assert len(done.stdout.split()) == 4
    assert len(set(done.stdout.split())) == 1
    assert len(files(tmp_path / "new")) == 1
    assert not (tmp_path / "~").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("short", [False, True])
def test_a_full_disk_stops_nothing(
    data: Path, workers: int, short: bool, monkeypatch: Monkeypatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(handle: int, record: memoryview, place: int) -> int:
        if short:
            return 100
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(2):
        samples = everything(data)
        for _ in range(2):
            assert torch.equal(inputs(samples, workers=workers), expected(data))
    (line,) = capfd.readouterr().err.splitlines()
    assert "No space left on device" in line
    assert "SPURMEM_CACHE" in line


@pytest.mark.parametrize("stored", [0, 20, IMAGES])
def test_a_folder_that_can_not_be_written_stops_nothing(
    data: Path, folder: Path, stored: int, monkeypatch: Monkeypatch, capsys: Capture
) -> None:
    if stored:
        inputs(everything(data).part(range(stored)))

    def deny(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def only_read(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_WRONLY:
            deny()
        return original(path, flags, *mode)

    original = os.open
    right = expected(data)
    monkeypatch.setattr(os, "open", only_read)
    monkeypatch.setattr(os, "utime", deny)
    monkeypatch.setattr(Path, "mkdir", Path.mkdir if stored else deny)
    for samples in (everything(data), everything(data)):
        assert torch.equal(inputs(samples), right)
        assert decoded(monkeypatch, samples) == IMAGES - stored
    logged = capsys.readouterr().err.splitlines()
    assert ["Permission denied" in line for line in logged] == ([] if stored == IMAGES else [True])


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_can_not_be_read_stops_nothing(data: Path, number: int, monkeypatch: Monkeypatch) -> None:
    samples = everything(data)
    inputs(samples)

    def deny(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "preadv", deny)
    assert torch.equal(inputs(samples), expected(data))


@pytest.mark.parametrize("place", ["file", "file/cache"])
def test_a_cache_in_place_of_a_file(
    data: Path, tmp_path: Path, place: str, monkeypatch: Monkeypatch, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("SPURMEM_CACHE", str(tmp_path / place))
    assert torch.equal(inputs(everything(data)), expected(data))
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_cache_that_is_deleted_during_a_pass(
    data: Path, folder: Path, monkeypatch: Monkeypatch, capsys: Capture
) -> None:
    samples = everything(data)
    inputs(samples.part(range(30)))
    shutil.rmtree(folder)
    assert torch.equal(inputs(samples), expected(data))
    assert decoded(monkeypatch, samples) == 0
    assert capsys.readouterr().err == ""
