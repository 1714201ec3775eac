"""Own data: reading tables, dataset.yaml and splits from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_data import N, folder, frame

from spurious_memorization.datasets.folder import read_data, stratified_split
from spurious_memorization.datasets.groups import group_counts
from spurious_memorization.errors import UserError


def error_of(place: Path, table: pd.DataFrame, **options: Any) -> str:
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
        (frame(split="holdout"), "unknown split 'holdout': use train, val, test or 0, 1, 2"),
        (frame(split=[None, *frame()["split"][1:]]), "column 'split' has no value in metadata.csv, line 2"),
        (frame(split=3), "unknown split"),
        (frame(y="gull"), "all samples have the label 'gull': at least two classes"),
        (frame(y=[*frame()["y"][:-1], None]), "column 'y' has no value in metadata.csv, line 25"),
        (frame(a=[*frame()["a"][:-1], None]), "column 'a' has no value in metadata.csv, line 25"),
        (frame(path=[*frame()["path"][:-1], None]), "column 'path' has no value in metadata.csv, line 25"),
        (frame(y=np.arange(N) / 2), "column 'y' contains 0.5: use whole numbers or names"),
        (frame(a=[np.inf] * N), "column 'a' contains inf"),
        (frame()[:0], "no rows"),
    ],
)
def test_rejected_tables(tmp_path: Path, table: pd.DataFrame, message: str) -> None:
    assert message in error_of(tmp_path, table)


def test_rejected_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_data(tmp_path / "absent")
    with pytest.raises(UserError, match="not in a known layout"):
        read_data(tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"")
    with pytest.raises(UserError, match="can't be read as a table"):
        read_data(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match="can't be read as a table"):
        read_data(tmp_path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../other.png", "images/../../x", "..", r"C:\x.png", "C:x", r"..\x"])
def test_paths_outside_are_rejected(tmp_path: Path, path: str) -> None:
    assert "leads outside the data folder" in error_of(tmp_path, frame(path=[path, *frame()["path"][1:]]))


def test_paths_within_may_have_several_forms(tmp_path: Path) -> None:
    paths = ["./images/00.png", "images//01.png", r"images\02.png", "images/./03.png", *frame()["path"][4:]]
    assert list(read_data(folder(tmp_path, frame(path=paths))).source.paths) == frame()["path"].to_list()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("images/" + "x" * 256, "longer than a path may be"),
        ("images/" + "é" * 128, "longer than a path may be"),
        ("x/" * 2048 + "x.png", "longer than a path may be"),
        ("images/a\n.png", "control character"),
    ],
)
@pytest.mark.parametrize("parquet", [False, True])
def test_paths_that_no_file_can_have_are_refused(tmp_path: Path, path: str, message: str, parquet: bool) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_data(folder(tmp_path, frame(path=[path, *frame()["path"][1:]]), parquet))
    assert str(caught.value).isprintable()


def test_a_nul_byte_in_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="control character"):
        read_data(folder(tmp_path, frame(path=["a\0b", *frame()["path"][1:]]), parquet=True))


def test_a_file_may_have_a_backslash_in_its_name(tmp_path: Path) -> None:
    folder(tmp_path, frame(path=[r"images\00.png", r"images\01.png", *frame()["path"][2:]]))
    (tmp_path / "images" / "00.png").rename(tmp_path / r"images\00.png")
    assert list(read_data(tmp_path).source.paths[:2]) == [r"images\00.png", "images/01.png"]


def test_blanks_make_no_further_class(tmp_path: Path) -> None:
    lines = [", ".join(row) for row in [list(frame().columns), *frame().astype(str).to_numpy().tolist()]]
    lines[3] += " "
    lines[4] = lines[4].replace("gull", " gull  ")
    folder(tmp_path)
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    data, plain = read_data(tmp_path), read_data(folder(tmp_path / "plain"))
    assert data.groups == plain.groups
    assert data.fingerprint() == plain.fingerprint()


def test_too_many_groups_are_refused_at_once(tmp_path: Path) -> None:
    number = np.arange(5000)
    table = pd.DataFrame({"path": [f"{i}.png" for i in number], "y": number, "a": number})
    table.to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(UserError, match="5,000 classes x 5,000 attribute values are 25,000,000 groups"):
        read_data(tmp_path)


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
        ("std: [0, 0, 0]", "std.0: Input should be greater than 0"),
        ("std: [.nan, 1, 1]", "std.0: Input should be"),
        ("mean: [-1, 0, 0]", "mean.0: Input should be greater than or equal to 0"),
        ("mean: [123.675, 116.28, 103.53]", "mean: 123.675 belongs to pixel values 0..255: divide mean and std by 255"),
        ("std: [58.395, 57.12, 57.375]", "std: 58.395 belongs to pixel values 0..255"),
        ("image_size: 64\nresize: 32", "resize 32 is below image_size 64"),
        ("image_size: 100000", "image_size: Input should be less than or equal to 4096"),
        ("image_size: 99999999999999999999999", "image_size: Input should be"),
        ("classes: [finch, gull, finch]", "classes: 'finch' is given twice"),
        ("classes: [finch, gull, ' finch']", "classes: 'finch' is given twice"),
        ("classes: [null, gull]", "classes.0: Input should be a valid string"),
        ("attributes: {a: [wood, sea, sea]}", "attributes: 'sea' is given twice"),
        ("attributes: {A: [wood, sea]}", "names values of 'A', which is no attribute column"),
        ("attributes: {y: [finch, gull]}", "names values of 'y', which is no attribute column"),
        ("group_name: '{label}'", "two groups have the name 'finch'"),
        ("group_name: ''", "two groups have the name ''"),
        ("group_name: '{label:>1000000000} {attribute}'", "use {label} and {attribute}, and no other braces"),
        ("group_name: '{label!r} {attribute}'", "use {label} and {attribute}, and no other braces"),
        ("group_name: '{label.__class__} {attribute}'", "use {label} and {attribute}, and no other braces"),
        ("group_name: '{label[0]} {attribute}'", "use {label} and {attribute}, and no other braces"),
        ("group_name: '{label:{attribute}}'", "use {label} and {attribute}, and no other braces"),
        ("group_name: '{} {}'", "use {label} and {attribute}, and no other braces"),
        ("group_name: '{label'", "use {label} and {attribute}, and no other braces"),
        ("name: " + "x" * 1000, "1,000 characters"),
        ('name: "a\\nb"', "control character"),
    ],
)
def test_rejected_descriptions(tmp_path: Path, text: str, message: str) -> None:
    folder(tmp_path)
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_data(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_in_dataset_yaml_are_text_as_written(tmp_path: Path) -> None:
    folder(tmp_path, frame(y=np.where(np.arange(N) % 2, "no", "yes"), a=1 + np.arange(N) // 2 % 2))
    (tmp_path / "dataset.yaml").write_text("classes: [yes, no]\nattributes: {a: [2, 1]}\n")
    data = read_data(tmp_path)
    assert (data.groups.classes, data.groups.attributes) == (("yes", "no"), ("2", "1"))
    np.testing.assert_array_equal(data.y, np.arange(N) % 2)
    np.testing.assert_array_equal(data.a, 1 - np.arange(N) // 2 % 2)


def test_a_crop_larger_than_the_stated_resize_is_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "dataset.yaml").write_text("resize: 32\n")
    assert read_data(tmp_path, image_size=32).image_size == 32
    for size, message in (
        (64, "resize 32 is below image_size 64"),
        (0, "choose 1 to 4096"),
        (10**9, "choose 1 to 4096"),
    ):
        with pytest.raises(UserError, match=message):
            read_data(tmp_path, image_size=size)


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


def test_the_fingerprint_follows_the_data(tmp_path: Path) -> None:
    first = read_data(folder(tmp_path / "one")).fingerprint()
    assert read_data(folder(tmp_path / "two")).fingerprint() == first
    (tmp_path / "two" / "images" / "00.png").write_bytes(b"other")
    assert read_data(tmp_path / "two").fingerprint() != first
    assert read_data(folder(tmp_path / "one", frame(a=frame()["a"][::-1].to_numpy()))).fingerprint() != first
