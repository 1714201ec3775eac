"""`spurmem reproduce`: the paper's studies at a tiny scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny

import spurious_memorization as sm
from spurious_memorization.paper.grids import grid_names, read_grid
from spurious_memorization.paper.reproduce import Reproduction, reproduce
from spurious_memorization.paper.settings import ReproduceSettings
from spurious_memorization.reporting.tables.paper_tables import drops_tables

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.filterwarnings("ignore:all .* are classified correctly:UserWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all: networks are trained once."""
    return tmp_path_factory.mktemp("experiments")


def tiny_scale(name: str, place: Path, **changes: Any) -> Reproduction:
    return reproduce(name, out=place, settings=ReproduceSettings(**{"scale": "tiny", **changes}))


def lines_of_accuracies(text: str) -> list[list[float]]:
    """Lines of four numbers, as a reader of the paper's README would take them."""
    rows = [line.split(", ") for line in text.splitlines()]
    return [[float(value) for value in row] for row in rows if len(row) == 4]


KEYS = ["split", "kind", "parameters", "size", "traced_on", "group"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "modes", "files"),
    [
        ("deit-tiny-largest-channel", ("random_init", "zero"), 19),
        ("resnet50-most-activated-channel", ("zero",), 8),
    ],
)
def test_the_drop_is_what_the_text_files_say(name: str, modes: tuple[str, ...], files: int, place: Path) -> None:
    made = tiny_scale(f"waterbirds-{name}", place, mode=modes, split=("train",))
    by_file = made.rows.groupby("file", sort=False)
    assert len(by_file) == files
    for file, rows in by_file:
        repeats, first = rows["repeats"].iloc[0], rows.iloc[0]
        assert repeats == (1 if first["kind"] == "zero" else 2)
        before, *after = lines_of_accuracies(Path(file).read_text())
        sets = [of_set for _, of_set in rows.groupby(rows["traced_on"].fillna("none"), sort=False)]
        assert len(after) == repeats * len(sets)
        for number, of_set in enumerate(sets):  # in the order of the groups, as the file has them
            drops = np.array(before) - np.mean(after[repeats * number : repeats * (number + 1)], axis=0)
            np.testing.assert_allclose(of_set.sort_values("group")["drop"], drops, atol=1e-12)
        if name.startswith("resnet"):
            assert list(rows["traced_on"].unique()) == list(made.run.record.data.groups.names)
    np.testing.assert_allclose(made.rows["before"] - made.rows["after"], made.rows["drop"], atol=1e-12)
    assert (made.rows["drop"] != 0).any()
    counted = pd.concat([study.effects() for study in made.studies])[[*KEYS, "accuracy_change"]]
    both = made.rows.fillna({"traced_on": "none"}).merge(counted.fillna({"traced_on": "none"}), on=KEYS)
    assert len(both) == len(made.rows)
    np.testing.assert_allclose(both["drop"], -both["accuracy_change"], atol=1.01e-4)  # four decimals
    (table,) = drops_tables(made.rows)
    shown = table.text()
    for place, group in zip(range(4, 8), range(4), strict=True):
        printed = [float(cell.split()[0]) for cell in shown.iloc[:, place]]
        np.testing.assert_allclose(printed, 100 * made.rows.loc[made.rows["group"] == group, "drop"], atol=0.005001)


@pytest.mark.slow
def test_across_splits_is_the_gap_plus_the_drop_in_test(place: Path) -> None:
    part: dict[str, Any] = {"mode": ("zero",), "split": ("train",)}
    alone = tiny_scale("waterbirds-resnet50-most-activated-channel", place, **part)
    made = tiny_scale("waterbirds-resnet50-most-activated-channel", place, **part, compare_across_splits=True)
    assert made.rows.equals(alone.rows)
    mixed = made.mixed
    assert mixed is not None
    assert len(mixed) == 8 * 4 * 4
    in_test = mixed["test_before"] - mixed["test_after"]
    np.testing.assert_allclose(mixed["drop"], mixed["gap"] + in_test, atol=1e-12)
    both = mixed.merge(made.rows, on=KEYS[1:], suffixes=("", "_train"))
    assert len(both) == len(mixed)
    np.testing.assert_allclose(both["train_before"] - both["train_after"], both["drop_train"], atol=1.01e-4)
    assert alone.mixed is None


@pytest.mark.slow
def test_transformers_thresholds_and_fine_tuning(place: Path) -> None:
    made = tiny_scale("celeba-deit-base-threshold", place, mode=("rewind",))
    folder = place / "test_vit_celeba_group_unbalanced_erm"
    assert made.run.path == folder
    assert (folder / "rewind_1e-05_1epochs_back_global_smallest_neuron.txt").is_file()
    tuned = tiny_scale("celeba-deit-large-fine-tuning", place)
    assert tuned.run.path == folder
    assert tuned.fine_tuned is not None
    assert tuned.fine_tuned.path == place / "test_vit_celeba_group_unbalanced_mag_0.01"
    objective = tuned.fine_tuned.record.settings["objective"]
    assert (objective["mask"], objective["contrast"], objective["order"]) == (
        "magnitude-smallest",
        "probabilities",
        "lowest_loss",
    )
    start = tuned.fine_tuned.record.settings["start"]
    assert start == f"{folder}@3"
    before = tuned.fine_tuned.history().query("epoch == 0")["correct"].tolist()
    assert before == made.run.history().query("epoch == 3")["correct"].tolist()
    assert tuned.rows.empty


@pytest.mark.slow
def test_controls_bring_verdicts(place: Path, capsys: Capture) -> None:
    said = tiny.spurmem(
        capsys, "reproduce", "waterbirds-resnet50-largest-channel", "--scale", "tiny", "--out", place, "--json",
        "--mode", "rewind", "--split", "test", "--controls", 3,
    )  # fmt: skip
    assert said.status == 0, said.err
    facts = json.loads(said.out)
    (study,) = facts["studies"]
    effects = pd.read_parquet(Path(study) / "effects.parquet")
    assert (effects["n_controls"] == 3).all()
    assert {row["split"] for row in facts["rows"]} == {"test"}


@pytest.mark.slow
def test_the_command(place: Path, capsys: Capture) -> None:
    listed = tiny.spurmem(capsys, "reproduce", "--list")
    assert listed.status == 0
    assert all(name in listed.out for name in grid_names())
    assert "deit_tiny_patch16_224-a1311bcf.pth" in listed.out
    name = "waterbirds-resnet50-largest-channel"
    options = ("--scale", "tiny", "--out", place, "--mode", "zero", "--compare-across-splits")
    said = tiny.spurmem(capsys, "reproduce", name, *options)
    assert said.status == 0, said.err
    assert "Drop of accuracy in train" in said.out
    assert "WRONG: accuracy before on train minus accuracy after on test" in said.out
    assert "test_resnet_waterbirds_test_group_unbalanced_erm" in said.out
    assert tiny.spurmem(capsys, "reproduce").error == (
        "spurmem: which study? Name one of those that `spurmem reproduce --list` shows"
    )
    assert f"{name} needs waterbirds: name its folder with --data" in tiny.spurmem(capsys, "reproduce", name).error
    other = tiny.spurmem(capsys, "reproduce", name, *options, "--epochs", 7)
    assert "was made with settings.epochs = 3, not 7" in other.error


@pytest.mark.slow
def test_a_run_from_elsewhere_is_studied(tmp_path: Path, trained: sm.Run) -> None:
    """An imported network in the folder of the ERM training is taken as it is."""
    folder = tmp_path / "test_resnet_waterbirds_group_unbalanced_erm"
    first = tiny_scale("waterbirds-resnet50-largest-channel", tmp_path / "own", mode=("zero",), split=("test",))
    sm.import_network(
        tmp_path / "own" / "synthbirds",
        folder,
        sm.ImportSettings(model="test_resnet", weights=(first.run.checkpoint(2), first.run.checkpoint(3))),
    )
    made = reproduce(
        "waterbirds-resnet50-largest-channel",
        tmp_path / "own" / "synthbirds",
        tmp_path,
        ReproduceSettings(scale="tiny", mode=("zero",), split=("test",)),
    )
    assert made.run.record.origin == "import"
    columns = ["before", "after", "drop"]
    assert made.rows[columns].equals(first.rows[columns])


@pytest.mark.slow
@pytest.mark.parametrize("name", grid_names())
def test_every_settings_file_runs(name: str, place: Path) -> None:
    made, grid = tiny_scale(name, place), read_grid(name)
    assert len(made.studies) == len(grid.studies)
    assert (made.fine_tuned is not None) == (grid.fine_tuning is not None)
    assert all(Path(file).is_file() for file in made.rows.get("file", []))
    if grid.studies:
        assert made.rows["drop"].notna().all()
    family = "test_resnet" if "resnet" in name else "test_vit"
    assert made.run.record.network.model == family
