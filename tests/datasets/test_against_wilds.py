"""Published layouts against the data set classes of the package WILDS (Koh et al. 2021), on made-up data."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import spurious_memorization as sm

N = 90
SPLITS = np.array(["train", "val", "test"])

pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # WILDS gives torch such arrays

get_dataset = pytest.importorskip("wilds", reason="the package wilds is not installed").get_dataset


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def theirs(name: str, root: Path) -> Any:
    """The class of WILDS on a folder `name_v1.0`.

    It writes numbers into the column `split` of CivilComments, which pandas 3 refuses if it is one of text.
    """
    (root / f"{name}_v1.0" / "RELEASE_v1.0.txt").touch()
    with pytest.MonkeyPatch.context() as patch:
        if name == "civilcomments":
            patch.setattr(pd, "read_csv", partial(pd.read_csv, dtype={"split": object}))
        return get_dataset(name, root_dir=str(root), download=False)


def assert_same(data: sm.Dataset, wilds: Any, attribute: str) -> None:
    """Labels, attributes, splits and counts of groups are the same, sample by sample in the order of the table."""
    assert data.y.tolist() == wilds.y_array.tolist()
    a = wilds.metadata_array[:, wilds.metadata_fields.index(attribute)]
    assert data.a.tolist() == a.tolist()
    assert data.split.tolist() == SPLITS[wilds.split_array.astype(int)].tolist()
    for split in SPLITS:
        subset = wilds.get_subset(split)
        of_subset = subset.metadata_array[:, wilds.metadata_fields.index(attribute)]
        groups = (subset.y_array * 2 + of_subset).numpy()
        assert np.array_equal(np.bincount(data.samples(split).g, minlength=4), np.bincount(groups, minlength=4))


def test_waterbirds(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "waterbirds_v1.0"
    folder.mkdir()
    names = [f"{i % 7:03d}.Bird/Bird_{i:04d}.jpg" for i in range(N)]
    columns = {"img_id": np.arange(1, N + 1), "img_filename": names}
    columns |= {"y": rng.integers(0, 2, N), "split": rng.integers(0, 3, N), "place": rng.integers(0, 2, N)}
    pd.DataFrame(columns).assign(place_filename="/o/ocean/00000001.jpg").to_csv(folder / "metadata.csv", index=False)
    data, wilds = sm.read_data(folder), theirs("waterbirds", tmp_path)
    assert_same(data, wilds, "background")
    assert list(data.source.paths) == list(wilds._input_array)


def test_celeba(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "celebA_v1.0"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06d}.jpg" for i in range(N)]
    for i, name in enumerate(names):
        Image.new("RGB", (6, 8), (i, 0, 0)).save(folder / "img_align_celeba" / name)
    attributes = ("5_o_Clock_Shadow", "Blond_Hair", "Male", "Young")
    values = {name: rng.choice([-1, 1], N) for name in attributes}
    pd.DataFrame({"image_id": names, **values}).to_csv(folder / "list_attr_celeba.csv", index=False)
    split = pd.DataFrame({"image_id": names, "partition": rng.integers(0, 3, N)})
    split.to_csv(folder / "list_eval_partition.csv", index=False)
    data, wilds = sm.read_data(folder), theirs("celebA", tmp_path)
    assert_same(data, wilds, "male")
    assert np.array_equal(data.source.open(5), wilds.get_input(5))


@pytest.mark.parametrize("identity", ["identity_any", "LGBTQ", "other_religions"])
def test_civilcomments(tmp_path: Path, rng: np.random.Generator, identity: str) -> None:
    folder = tmp_path / "civilcomments_v1.0"
    folder.mkdir()
    shares = ["male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white", "identity_any"]
    shares += ["severe_toxicity", "obscene", "threat", "insult", "identity_attack", "sexual_explicit"]
    columns = {name: rng.choice([0.0, 0.49, 0.5, 0.51, 1.0, np.nan], N) for name in shares}
    texts = [f'Comment {i}, "quoted"\nand more' for i in range(N)]
    toxicity = rng.choice([0.0, 0.499, 0.5, 1.0], N)
    table = pd.DataFrame({"id": np.arange(N) + 500, "comment_text": texts, "split": rng.choice(SPLITS, N), **columns})
    table.assign(toxicity=toxicity).to_csv(folder / "all_data_with_identities.csv")
    data, wilds = sm.read_data(folder, attribute=identity), theirs("civilcomments", tmp_path)
    assert_same(data, wilds, identity)
    assert list(data.source.texts) == [wilds.get_input(i) for i in range(N)]
