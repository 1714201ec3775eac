"""Published layouts, made up: counts, splits, labels and the first batch are those of their documented tables."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from noise_images import MEAN, SIDE, STD, inputs_of, noise_image
from PIL import Image
from torchvision import transforms

import spurious_memorization as sm
from spurious_memorization.errors import UserError

N = 24
NUMBER = np.arange(N)
CODES = NUMBER // 8
"""Split codes: 8 rows in each split."""


def save(folder: Path, paths: list[str]) -> None:
    for i, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        noise_image(i).save(folder / path, "PNG")


PUBLISHED = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
)
"""The transform of SubpopBench."""


def assert_is(folder: Path, expected: pd.DataFrame) -> sm.Dataset:
    """The data set has the rows of the table: path, split, y and a. Its inputs are SubpopBench's."""
    data = sm.read_data(folder)
    for split in ("train", "val", "test"):
        rows = expected[expected["split"] == split]
        samples = data.samples(split)
        assert [data.groups.classes[y] for y in data.y[samples.index]] == rows["y"].tolist()
        assert [data.groups.attributes[a] for a in data.a[samples.index]] == rows["a"].tolist()
        own = torch.stack([PUBLISHED(Image.open(folder / path)) for path in rows["path"]])
        torch.testing.assert_close(samples.batch().inputs, own)
    return data


@pytest.mark.parametrize("machine", ["/home/someone/data/metashift/", "D:\\data\\metashift\\", ""])
def test_a_table_of_subpopbench_with_full_paths_of_another_machine(tmp_path: Path, machine: str) -> None:
    paths = [f"MetaShift-Cat-Dog-indoor-outdoor/train/cat/cat(indoor)/{i}.jpg" for i in NUMBER]
    save(tmp_path, paths)
    named = [machine + (path.replace("/", "\\") if "\\" in machine else path) for path in paths]
    table = pd.DataFrame({"filename": named, "y": NUMBER % 2, "a": NUMBER // 2 % 2, "split": CODES})
    table.to_csv(tmp_path / "metadata_metashift.csv", index=False)
    expected = pd.DataFrame(
        {
            "path": paths,
            "split": np.array(["train", "val", "test"])[CODES],
            "y": np.array(["dog", "cat"])[NUMBER % 2],
            "a": np.array(["outdoor", "indoor"])[NUMBER // 2 % 2],
        }
    )
    data = assert_is(tmp_path, expected)
    assert data.groups.names == ("dog outdoor", "dog indoor", "cat outdoor", "cat indoor")


def test_subpopbench_tables_of_waterbirds_and_celeba_stand_alone(tmp_path: Path) -> None:
    for name, place, names in (
        ("waterbirds", "waterbird_complete95_forest2water2", ("landbird on land", "waterbird on water")),
        ("celeba", "img_align_celeba", ("non-blond female", "blond male")),
    ):
        folder = tmp_path / name
        images = [f"{i:06d}.jpg" for i in NUMBER]
        save(folder / place, images)
        table = {"id": NUMBER, "filename": images, "split": CODES, "y": NUMBER % 2, "a": NUMBER // 2 % 2}
        pd.DataFrame(table).to_csv(folder / f"metadata_{name}.csv", index=False)
        data = sm.read_data(folder)
        assert (data.groups.names[0], data.groups.names[3]) == names
        assert data.source.paths[0] == f"{place}/000000.jpg"


def test_imagenet_9_with_and_without_the_table(tmp_path: Path) -> None:
    places = {"train": "in9l/train", "val": "in9l/val", "test": "bg_challenge/original/val"}
    extra = {"mixed_rand": "bg_challenge/mixed_rand/val"}
    rows = [
        (split, f"{place}/{label:02}_{name}/{i}.JPEG", label)
        for split, place in {**places, **extra}.items()
        for label, name in enumerate(("dog", "bird", "wheeled vehicle"))
        for i in range(2)
    ]
    table = pd.DataFrame(rows, columns=["split", "path", "y"])
    save(tmp_path, table["path"].tolist())
    names = np.array(["dog", "bird", "wheeled vehicle"])[table["y"]]
    expected = table.assign(y=names, a="all")
    data = assert_is(tmp_path, expected)
    assert data.groups.classes[3:5] == ("reptile", "carnivore")
    written = table.rename(columns={"path": "filename"}).assign(a=0)
    written["filename"] = "/data/backgrounds_challenge/" + written["filename"]
    written.to_csv(tmp_path / "metadata.csv", index=False)
    assert_is(tmp_path, expected.assign(a="0"))


def test_metashift_in_its_own_folders(tmp_path: Path) -> None:
    places = ("train/cat/cat(indoor)", "train/dog/dog(outdoor)", "test/cat/cat(outdoor)", "test/dog/dog(indoor)")
    save(tmp_path, [f"{place}/{i}.jpg" for place in places for i in range(10)])
    data = sm.read_data(tmp_path, attribute="a")
    assert np.bincount(data.g).tolist() == [10, 10, 10, 10]
    assert data.train_counts.tolist() == [7, 7, 7, 7]
    own = sm.read_data(tmp_path, attribute="a", split_column="folder")
    assert own.train_counts.tolist() == [10, 0, 0, 10]


def chexpert(folder: Path, n: int = N) -> pd.DataFrame:
    """The tables of CheXpert, and what they mean."""
    values = ["", "0.0", "1.0", "-1.0"]
    table = pd.DataFrame(
        {
            "Path": [
                f"CheXpert-v1.0-small/{'train' if i < n - 8 else 'valid'}/patient{i:05}/study1/view1_frontal.jpg"
                for i in range(n)
            ],
            "Sex": np.where(NUMBER % 3, "Male", "Female"),
            "Age": 50 + NUMBER,
            "Frontal/Lateral": "Frontal",
            "AP/PA": np.where(NUMBER % 2, "AP", "PA"),
            "No Finding": [values[2 * (i % 2)] for i in NUMBER],
            "Pleural Effusion": [values[i % 4] for i in NUMBER],
        }
    )
    save(folder, [path.removeprefix("CheXpert-v1.0-small/") for path in table["Path"]])
    table[: n - 8].to_csv(folder / "train.csv", index=False)
    table[n - 8 :].to_csv(folder / "valid.csv", index=False)
    return table


def test_chexpert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = chexpert(tmp_path)
    data = sm.read_data(tmp_path)
    assert data.groups.classes == ("finding", "no finding")
    assert data.groups.attributes == ("Female", "Male")
    assert data.y.tolist() == (table["No Finding"] == "1.0").astype(int).tolist()
    assert [len(data.samples(split)) for split in data.splits] == [N - 8, 8]
    torch.testing.assert_close(
        data.val.batch().inputs, torch.stack([PUBLISHED(noise_image(i)) for i in range(N - 8, N)])
    )
    assert "6 uncertain findings count as absent" in capsys.readouterr().err
    other = sm.read_data(tmp_path, label_column="Pleural Effusion", attribute="AP/PA")
    assert other.groups.classes == ("no pleural effusion", "pleural effusion")
    assert other.y.tolist() == (table["Pleural Effusion"] == "1.0").astype(int).tolist()


def test_a_table_of_subpopbench_for_chexpert_comes_first(tmp_path: Path) -> None:
    table = chexpert(tmp_path)
    paths = "/scratch/chexpert/" + table["Path"].str.removeprefix("CheXpert-v1.0-small/")
    written = table.assign(filename=paths, y=NUMBER % 2, a=NUMBER % 6, split=CODES)
    (tmp_path / "subpop_bench_meta").mkdir()
    written.to_csv(tmp_path / "subpop_bench_meta" / "metadata_no_finding.csv", index=False)
    data = sm.read_data(tmp_path)
    assert data.layout == "subpopbench"
    assert data.groups.attributes[:2] == ("male white", "female white")
    assert data.a.tolist() == (NUMBER % 6).tolist()
    (tmp_path / "valid" / "patient00000").mkdir()
    written.assign(filename="/elsewhere/x.jpg").to_csv(tmp_path / "subpop_bench_meta" / "metadata_no_finding.csv")
    with pytest.raises(UserError, match=r"does not hold '/elsewhere/x.jpg', which metadata_no_finding.csv names"):
        sm.read_data(tmp_path)


def mimic(folder: Path) -> pd.DataFrame:
    ids = pd.DataFrame(
        {
            "dicom_id": [f"d{i}" for i in NUMBER],
            "subject_id": 10_000_000 + NUMBER // 2,
            "study_id": 50_000_000 + NUMBER // 2,
        }
    )
    studies = ids[["subject_id", "study_id"]].drop_duplicates()
    tables = {
        "mimic-cxr-2.0.0-metadata": ids.assign(ViewPosition=np.where(NUMBER % 2, "AP", "PA")),
        "mimic-cxr-2.0.0-split": ids.assign(split=np.array(["train", "validate", "test"])[CODES]),
        "mimic-cxr-2.0.0-chexpert": studies.assign(
            **{
                "No Finding": [1.0 if i % 2 else None for i in range(len(studies))],
                "Edema": [[-1.0, 0.0, 1.0, None][i % 4] for i in range(len(studies))],
            }
        ),
        "patients": pd.DataFrame(
            {
                "subject_id": studies["subject_id"],
                "gender": ["F" if i // 2 % 2 else "M" for i in range(len(studies))],
            }
        ),
    }
    for name, table in tables.items():
        with gzip.open(folder / f"{name}.csv.gz", "wt") as stream:
            table.to_csv(stream, index=False)
    study = NUMBER // 2
    path = [f"files/p10/p{10_000_000 + s}/s{50_000_000 + s}/d{i}.jpg" for i, s in enumerate(study)]
    save(folder, path)
    return pd.DataFrame(
        {
            "path": path,
            "split": np.array(["train", "val", "test"])[CODES],
            "y": np.where(study % 2, "no finding", "finding"),
            "a": np.where(study // 2 % 2, "F", "M"),
        }
    )


def test_mimic_cxr(tmp_path: Path) -> None:
    expected = mimic(tmp_path)
    assert_is(tmp_path, expected)
    edema = sm.read_data(tmp_path, label_column="Edema", attribute="ViewPosition")
    assert edema.y.tolist() == (NUMBER // 2 % 4 == 2).astype(int).tolist()
    (tmp_path / "patients.csv.gz").unlink()
    assert sm.read_data(tmp_path).groups.attributes == ("AP", "PA")
    (tmp_path / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    with pytest.raises(UserError, match=r"but not its split and chexpert \(or negbio\)"):
        sm.read_data(tmp_path)


@pytest.mark.parametrize(
    ("file", "columns", "classes"),
    [
        ("metadata.csv", {"isic_id": "", "benign_malignant": ("benign", "malignant")}, ("benign", "malignant")),
        ("metadata.csv", {"isic_id": "", "diagnosis_1": ("Benign", "Malignant")}, ("Benign", "Malignant")),
        ("train.csv", {"image_name": "", "benign_malignant": ("benign", "malignant"), "target": ("0", "1")}, None),
        ("HAM10000_metadata.csv", {"lesion_id": "", "image_id": "", "dx": ("bkl", "mel")}, ("bkl", "mel")),
    ],
)
def test_isic(
    tmp_path: Path, file: str, columns: dict[str, str | tuple[str, str]], classes: tuple[str, str] | None
) -> None:
    names = [f"ISIC_{i:07}" for i in range(40)]
    save(tmp_path, [f"images/part_{i % 2}/{name}.jpg" for i, name in enumerate(names)])
    number = np.arange(40)
    table = pd.DataFrame({c: names if v == "" else np.array(v)[number % 2] for c, v in columns.items()})
    table = table.assign(age_approx=50, sex=np.array(["male", "female", ""])[number % 3])
    table.to_csv(tmp_path / file, index=False)
    data = sm.read_data(tmp_path, image_size=SIDE)
    assert data.groups.classes == (classes or ("benign", "malignant"))
    assert data.y.tolist() == (number % 2).tolist()
    assert data.groups.attributes == ("female", "male", "unknown")
    assert data.a.tolist() == np.array([1, 0, 2])[number % 3].tolist()
    images = inputs_of(noise_image(i) for i in data.train.index)
    torch.testing.assert_close(data.train.batch().inputs, images)


def test_a_challenge_of_isic(tmp_path: Path) -> None:
    names = [f"ISIC_{i:07}" for i in range(40)]
    save(tmp_path / "ISIC_2019_Training_Input", [f"{name}.jpg" for name in names])
    number = np.arange(40)
    truth = pd.DataFrame({"image": names, **{d: (number % 3 == i) * 1.0 for i, d in enumerate(("MEL", "NV", "BCC"))}})
    truth.to_csv(tmp_path / "ISIC_2019_Training_GroundTruth.csv", index=False)
    facts = pd.DataFrame({"image": names, "age_approx": 40, "sex": np.where(number % 2, "male", "female")})
    facts[5:].to_csv(tmp_path / "ISIC_2019_Training_Metadata.csv", index=False)
    data = sm.read_data(tmp_path)
    assert data.groups.classes == ("BCC", "MEL", "NV")
    assert data.y.tolist() == np.array([1, 2, 0])[number % 3].tolist()
    assert np.bincount(data.a).tolist() == [17, 18, 5]
    truth.assign(NV=1.0).to_csv(tmp_path / "ISIC_2019_Training_GroundTruth.csv", index=False)
    with pytest.raises(UserError, match="image ISIC_0000000 has not exactly one diagnosis"):
        sm.read_data(tmp_path)


def test_an_own_table_wins_over_published_ones(tmp_path: Path) -> None:
    chexpert(tmp_path)
    paths = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.jpg"))]
    pd.DataFrame({"path": paths, "y": NUMBER % 2, "a": NUMBER // 2 % 2}).to_csv(tmp_path / "metadata.csv", index=False)
    assert sm.read_data(tmp_path).layout == "table"
