"""Loading images: errors, the order of batches, and augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from own_data import folder, frame
from PIL import Image

import spurious_memorization as sm
from spurious_memorization.datasets.folder import read_data
from spurious_memorization.datasets.transforms import ImageTransform
from spurious_memorization.errors import UserError


def test_missing_and_truncated_images(tmp_path: Path) -> None:
    data = read_data(folder(tmp_path), image_size=8)
    file = tmp_path / data.source.paths[3]
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"03\.png can't be read.*data check"):
        data.train.batch()
    file.write_text("no image")
    with pytest.raises(UserError, match=r"03\.png can't be read"):
        data.train.batch()
    file.unlink()
    with pytest.raises(UserError, match=r"03\.png is missing.*data check"):
        data.train.batch()
    file.mkdir()
    with pytest.raises(UserError, match=r"03\.png can't be read"):
        data.train.batch()


def test_a_single_left_over_sample_joins_the_last_batch() -> None:
    data = sm.from_tensors(torch.zeros(7, 1), y=[0, 1, 0, 1, 0, 1, 0], a=[0] * 7)
    assert [len(batch.y) for batch in data.train.batches(3)] == [3, 4]
    assert [len(batch.y) for batch in data.train.batches(1)] == [1] * 7
    assert [len(batch.y) for batch in data.train.batches(5)] == [5, 2]
    assert [len(batch.y) for batch in data.train.batches(100)] == [7]


def test_a_worker_process_gives_the_same_error(tmp_path: Path) -> None:
    data = read_data(folder(tmp_path), image_size=8)
    (tmp_path / data.source.paths[3]).unlink()
    with pytest.raises(UserError, match=r"^image \S+03\.png is missing: [^\n]+$"):
        list(data.train.batches(4, workers=1))


def test_no_image_size(tmp_path: Path) -> None:
    data = read_data(folder(tmp_path))
    with pytest.raises(UserError, match="--image-size"):
        data.train.batch()
    assert data.with_transform(ImageTransform(image_size=8, resize=8)).train.batch().inputs.shape == (8, 3, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_images_of_all_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    data = read_data(folder(tmp_path, frame(path="image.tif")), image_size=8)
    Image.new("RGB", (9, 9), (250, 10, 10)).convert(mode).save(tmp_path / "image.tif")
    assert data.source.open(0).mode == "RGB"
    assert data.train.batch().inputs.shape == (8, 3, 8, 8)


def test_order_depends_on_neither_batch_size_nor_workers(tmp_path: Path) -> None:
    train = read_data(folder(tmp_path), image_size=8).train
    whole = train.batch()
    np.testing.assert_array_equal(whole.index, np.arange(8))
    np.testing.assert_array_equal(whole.y, train.y)
    for batch_size, workers in ((1, 0), (3, 0), (8, 0), (100, 0), (3, 2)):
        batches = list(train.batches(batch_size, workers))
        assert [len(b.y) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert torch.equal(torch.cat([b.inputs for b in batches]), whole.inputs)
        assert torch.equal(torch.cat([b.index for b in batches]), whole.index)
        assert torch.equal(torch.cat([b.y for b in batches]), whole.y)
    some = train.at([5, 2]).batch()
    assert torch.equal(some.inputs, whole.inputs[[5, 2]])


@pytest.mark.slow
def test_augmentation_depends_only_on_seed_epoch_and_index(tmp_path: Path) -> None:
    train = read_data(folder(tmp_path, size=(60, 45)), image_size=24).train

    def augmented(batch_size: int, seed: int, epoch: int, workers: int = 0) -> tuple[list[int], torch.Tensor]:
        batches = list(train.shuffled(seed, epoch).augmented_batches(batch_size, seed, epoch, workers))
        index = torch.cat([b.index for b in batches])
        return index.tolist(), torch.cat([b.inputs for b in batches])[index.argsort()]

    state = torch.get_rng_state()
    order, inputs = augmented(3, seed=0, epoch=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(order) == list(range(8))
    torch.manual_seed(99)
    for batch_size, workers in ((8, 0), (5, 2)):
        same_order, same = augmented(batch_size, 0, 1, workers)
        assert same_order == order
        assert torch.equal(same, inputs)
    for seed, epoch in ((0, 2), (1, 1)):
        other_order, other = augmented(3, seed, epoch)
        assert other_order != order
        assert all((other[i] != inputs[i]).any() for i in range(8))
    part = next(iter(train.at([4]).augmented_batches(1, 0, 1)))
    assert torch.equal(part.inputs[0], inputs[4])
