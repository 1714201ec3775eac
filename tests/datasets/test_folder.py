"""Own tables: from a folder with images and a table to samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms as v1

import spurious_memorization as sm
from spurious_memorization.datasets.folder import read_data, stratified_split
from spurious_memorization.datasets.groups import Groups, group_counts, lift, majority_groups, minority_groups
from spurious_memorization.datasets.transforms import ImageTransform
from spurious_memorization.errors import UserError

N = 24


def frame(**columns: Any) -> pd.DataFrame:
    """24 samples: two labels, two attribute values, three splits, in every combination."""
    number = np.arange(N)
    standard = {
        "path": [f"images/{i:02d}.png" for i in number],
        "y": np.where(number % 2, "gull", "finch"),
        "a": np.where(number // 2 % 2, "sea", "wood"),
        "split": np.array(["train", "val", "test"])[number // 8],
    }
    return pd.DataFrame({**standard, **columns})


def folder(
    place: Path, table: pd.DataFrame | None = None, parquet: bool = False, size: tuple[int, int] = (12, 9)
) -> Path:
    """A data folder with this table and its images."""
    table = frame() if table is None else table
    (place / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(N):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "images" / f"{i:02d}.png")
    if parquet:
        table.to_parquet(place / "metadata.parquet")
    else:
        table.to_csv(place / "metadata.csv", index=False)
    return place


def refusal(place: Path, table: pd.DataFrame, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_data(folder(place, table), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Tables


@pytest.mark.parametrize("parquet", [False, True])
def test_names(tmp_path: Path, parquet: bool) -> None:
    data = read_data(folder(tmp_path / "birds", parquet=parquet))
    assert (data.name, data.layout, data.split_seed) == ("birds", "table", None)
    assert data.groups.names == ("finch with sea", "finch with wood", "gull with sea", "gull with wood")
    np.testing.assert_array_equal(data.y, np.arange(N) % 2)
    np.testing.assert_array_equal(data.a, 1 - np.arange(N) // 2 % 2)
    np.testing.assert_array_equal(data.g, data.y * 2 + data.a)
    assert [len(data.samples(split)) for split in data.splits] == [8, 8, 8]


@pytest.mark.parametrize("parquet", [False, True])
def test_numbers(tmp_path: Path, parquet: bool) -> None:
    number = np.arange(N)
    table = frame(y=number % 3, a=(number // 3 % 2).astype(float), split=number // 8)
    data = read_data(folder(tmp_path, table, parquet))
    assert data.groups.classes == ("0", "1", "2")
    assert data.groups.attributes == ("0", "1")
    np.testing.assert_array_equal(data.y, number % 3)
    assert data.split.tolist() == frame()["split"].tolist()


def test_truth_values_are_labels_too(tmp_path: Path) -> None:
    data = read_data(folder(tmp_path, frame(y=np.arange(N) % 2 == 1)))
    np.testing.assert_array_equal(data.y, np.arange(N) % 2)


def test_several_attributes(tmp_path: Path) -> None:
    extra = {"size": np.where(np.arange(N) % 3, "small", "large"), "color": "red"}
    folder(tmp_path, frame(**extra))
    assert read_data(tmp_path).groups.attributes == ("sea", "wood")
    assert read_data(tmp_path, attribute="size").groups.attributes == ("large", "small")
    with pytest.raises(UserError, match="no attribute column 'shape': the table has a, size, color"):
        read_data(tmp_path, attribute="shape")
    folder(tmp_path, frame(**extra).drop(columns="a"))
    with pytest.raises(UserError, match=r"several attribute columns \(size, color\).*--attribute"):
        read_data(tmp_path)
    folder(tmp_path, frame().rename(columns={"a": "place"}))
    assert read_data(tmp_path).groups.attributes == ("sea", "wood")


def test_a_group_may_be_empty(tmp_path: Path) -> None:
    table = frame()
    data = read_data(folder(tmp_path, table[(table["y"] != "gull") | (table["a"] != "wood")]))
    assert group_counts(data.groups, data.g).tolist() == [6, 6, 6, 0]
    with pytest.raises(UserError, match="'gull with wood' has no samples in split 'train'"):
        data.train.of_group("gull with wood")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (frame().drop(columns="y"), "no column 'y'"),
        (frame().drop(columns="path"), "no column 'path'"),
        (frame().drop(columns="a"), "missing column 'a'"),
        (frame(split="holdout"), "unknown split 'holdout': use train, val, test or 0, 1, 2"),
        (frame(split=[None, *frame()["split"][1:]]), "unknown split nan"),
        (frame(split=3), "unknown split"),
        (frame(y="gull"), "all samples have the label 'gull': at least two classes"),
        (frame(y=[*frame()["y"][:-1], None]), "column 'y' has no value in row 23"),
        (frame(a=[*frame()["a"][:-1], None]), "column 'a' has no value in row 23"),
        (frame(path=[*frame()["path"][:-1], None]), "column 'path' has no value in row 23"),
        (frame(y=np.arange(N) / 2), "column 'y' contains 0.5: use whole numbers or names"),
        (frame(a=[np.inf] * N), "column 'a' contains inf"),
        (frame()[:0], "no rows"),
    ],
)
def test_refused_tables(tmp_path: Path, table: pd.DataFrame, message: str) -> None:
    assert message in refusal(tmp_path, table)


def test_refused_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_data(tmp_path / "absent")
    with pytest.raises(UserError, match="no known layout"):
        read_data(tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"")
    with pytest.raises(UserError, match="can't be read as a table"):
        read_data(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match="can't be read as a table"):
        read_data(tmp_path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../other.png", "images/../../x", "..", r"C:\x.png", "C:x", r"..\x"])
def test_paths_outside_are_refused(tmp_path: Path, path: str) -> None:
    assert "leads outside the data folder" in refusal(tmp_path, frame(path=[path, *frame()["path"][1:]]))


def test_paths_within_may_be_written_in_many_ways(tmp_path: Path) -> None:
    paths = ["./images/00.png", "images//01.png", r"images\02.png", "images/./03.png", *frame()["path"][4:]]
    assert list(read_data(folder(tmp_path, frame(path=paths))).source.paths) == frame()["path"].to_list()


def test_symbolic_links_are_the_users_own_choice(tmp_path: Path) -> None:
    place = folder(tmp_path / "birds")
    (place / "images").rename(tmp_path / "elsewhere")
    (place / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(place)
    assert len(read_data(tmp_path / "link", image_size=8).train.batch().y) == 8


# dataset.yaml


def test_dataset_yaml_fixes_names_and_transform(tmp_path: Path) -> None:
    folder(tmp_path, frame(y=np.arange(N) % 2))
    (tmp_path / "dataset.yaml").write_text(
        "name: birds\nclasses: [finch, gull]\nattributes: {a: [wood, sea]}\ngroup_name: '{label} at {attribute}'\n"
        "image_size: 8\nresize: 10\nminority: [gull at wood]\nmean: [0, 0, 0]\nstd: [1, 1, 1]\n"
    )
    data = read_data(tmp_path)
    assert data.name == "birds"
    assert data.groups.names == ("finch at wood", "finch at sea", "gull at wood", "gull at sea")
    np.testing.assert_array_equal(data.a, np.arange(N) // 2 % 2)
    assert data.minority == (2,)
    assert data.train.batch().inputs.shape == (8, 3, 8, 8)
    assert read_data(tmp_path, image_size=16).source.transform.resize == 20
    assert read_data(tmp_path, minority=("finch at sea",)).minority == (1,)


def test_named_minorities_belong_to_their_attribute(tmp_path: Path) -> None:
    folder(tmp_path, frame(size=np.where(np.arange(N) % 3, "small", "large")))
    (tmp_path / "dataset.yaml").write_text("minority: [gull with wood]\n")
    assert read_data(tmp_path).minority == (3,)
    assert read_data(tmp_path, attribute="a").minority == (3,)
    assert read_data(tmp_path, attribute="size").named_minority == ()
    with pytest.raises(UserError, match="no group 'gull with fire'"):
        read_data(tmp_path, minority=("gull with fire",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagesize: 8", "imagesize"),
        ("image_size: 0", "image_size"),
        ("image_size: [", "not valid YAML"),
        ("just words", "must contain entries"),
        ("classes: [finch]", "column 'y' contains gull, which is none of finch"),
        ("group_name: '{label} of {kind}'", "group_name"),
        ("interpolation: sharpest", "interpolation"),
        ("minority: [nobody]", "no group 'nobody'"),
    ],
)
def test_refused_descriptions(tmp_path: Path, text: str, message: str) -> None:
    folder(tmp_path)
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_data(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# Splits


def test_a_split_is_made_within_each_group(tmp_path: Path) -> None:
    data = read_data(folder(tmp_path, frame().drop(columns="split")), split_seed=5)
    assert data.split_seed == 5
    for split, n in (("train", 4), ("val", 1), ("test", 1)):
        assert data.samples(split).g.tolist().count(0) == n
        assert group_counts(data.groups, data.samples(split).g).tolist() == [n] * 4
    again = read_data(tmp_path, split_seed=5)
    assert again.split.tolist() == data.split.tolist()
    assert again.fingerprint() == data.fingerprint()
    assert read_data(tmp_path, split_seed=6).split.tolist() != data.split.tolist()
    assert read_data(tmp_path).split_seed == 0


@given(st.lists(st.integers(0, 5), max_size=300), st.integers(0, 2**32))
def test_split_shares(members: list[int], seed: int) -> None:
    g = np.array(members, dtype=np.int64)
    split = stratified_split(g, seed)
    assert len(split) == len(g)
    for group in set(members):
        n = members.count(group)
        assert abs((split[g == group] == "val").sum() - 0.1 * n) <= 0.5
        assert abs((split[g == group] == "test").sum() - 0.2 * n) <= 0.5
        assert (split[g == group] == "train").any()


# Images


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


def test_a_rest_of_one_sample_joins_the_batch_before_it() -> None:
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


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize(("width", "height"), [(460, 360), (200, 300), (40, 30)])
def test_evaluation_transform_is_torchvisions(width: int, height: int, keep_aspect: bool) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)).resize((width, height))
    transform = ImageTransform(image_size=224, resize=256, keep_aspect=keep_aspect)
    (ours,) = transform.normalized([np.array(transform.evaluation()(image)).transpose(2, 0, 1)])
    theirs = v1.Compose(
        [
            v1.Resize(256 if keep_aspect else (256, 256)),
            v1.CenterCrop(224),
            v1.ToTensor(),
            v1.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )(image)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_training_transform_is_torchvisions() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    ours = ImageTransform(image_size=32, resize=36).training()
    theirs = v1.Compose(
        [
            v1.RandomResizedCrop(32, scale=(0.7, 1.0), ratio=(0.75, 4 / 3)),
            v1.RandomHorizontalFlip(),
            v1.ToTensor(),
            v1.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    for seed in range(20):
        torch.manual_seed(seed)
        expected = theirs(image)
        torch.manual_seed(seed)
        torch.testing.assert_close(ours(image), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_images_of_all_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    data = read_data(folder(tmp_path, frame(path="image.tif")), image_size=8)
    Image.new("RGB", (9, 9), (250, 10, 10)).convert(mode).save(tmp_path / "image.tif")
    assert data.source.open(0).mode == "RGB"
    assert data.train.batch().inputs.shape == (8, 3, 8, 8)


# Batches


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


def test_augmentation_depends_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
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


def test_the_fingerprint_follows_the_data(tmp_path: Path) -> None:
    first = read_data(folder(tmp_path / "one")).fingerprint()
    assert read_data(folder(tmp_path / "two")).fingerprint() == first
    (tmp_path / "two" / "images" / "00.png").write_bytes(b"other")
    assert read_data(tmp_path / "two").fingerprint() != first
    assert read_data(folder(tmp_path / "one", frame(a=frame()["a"][::-1].to_numpy()))).fingerprint() != first


# Groups

shapes = st.tuples(st.integers(1, 5), st.integers(1, 5))


@st.composite
def samples(draw: st.DrawFn) -> tuple[Groups, np.ndarray, np.ndarray]:
    n_classes, n_attributes = draw(shapes)
    pairs = draw(st.lists(st.tuples(st.integers(0, n_classes - 1), st.integers(0, n_attributes - 1)), max_size=60))
    groups = Groups(tuple(f"c{i}" for i in range(n_classes)), tuple(f"a{i}" for i in range(n_attributes)))
    y, a = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return groups, y, a


@given(samples())
def test_group_index_and_counts(drawn: tuple[Groups, np.ndarray, np.ndarray]) -> None:
    groups, y, a = drawn
    g = groups.of(y, a)
    for label, value, group in zip(y.tolist(), a.tolist(), g.tolist(), strict=True):
        assert group == label * len(groups.attributes) + value
        assert groups.label_of(group) == label
        assert groups.names[group] == f"c{label} with a{value}"
        assert groups.index(groups.names[group]) == groups.index(group) == groups.index(str(group)) == group
    counts = group_counts(groups, g)
    assert counts.shape == (len(groups),)
    assert counts.sum() == len(y)
    assert counts.reshape(len(groups.classes), -1).sum(1).tolist() == [
        int((y == c).sum()) for c in range(len(groups.classes))
    ]


@given(samples())
def test_lift_is_observed_over_expected(drawn: tuple[Groups, np.ndarray, np.ndarray]) -> None:
    groups, y, a = drawn
    counts = group_counts(groups, groups.of(y, a))
    values = lift(groups, counts)
    for group in range(len(groups)):
        label, value = divmod(group, len(groups.attributes))
        expected = (y == label).sum() * (a == value).sum() / max(len(y), 1)
        if expected:
            assert values[group] == pytest.approx(counts[group] / expected)
        else:
            assert np.isnan(values[group])
    for group in minority_groups(groups, counts):
        assert counts[group] > 0
        assert values[group] < 0.5
    assert all(values[group] > 1 for group in majority_groups(groups, counts))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_lift_is_one_under_independence(labels: list[int], values: list[int]) -> None:
    groups = Groups(tuple(map(str, range(len(labels)))), tuple(map(str, range(len(values)))))
    counts = np.outer(labels, values).ravel().astype(np.int64)
    result = lift(groups, counts)
    np.testing.assert_allclose(result[counts > 0], 1)
    assert np.isnan(result[counts == 0]).all()
    assert minority_groups(groups, counts) == ()


def test_unknown_groups_are_refused() -> None:
    groups = Groups(("finch", "gull"), ("wood", "sea"))
    for group in ("finch", "4", 4, -1):
        with pytest.raises(UserError, match=r"no group .*'finch with wood', .* or 0\.\.3"):
            groups.index(group)
