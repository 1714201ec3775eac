"""Null sets are drawn in rounds, and the third question is asked where the first two are answered by yes."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from study_oracle import check_effects, same
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.engine.outcomes import EDITS_PER_BLOCK, Block
from spurious_memorization.reporting.tables.findings import findings
from spurious_memorization.reporting.tables.study_tables import verdict_table
from spurious_memorization.statistics.sequential import is_decided, looks
from spurious_memorization.studies import blocks as blocks_module
from spurious_memorization.studies import measure as measure_module
from spurious_memorization.studies import store as store_module

pytestmark = pytest.mark.filterwarnings("ignore:all .* samples .* are classified correctly")


class Memory(nn.Module):
    """A layer of 48 channels, of which the first answers to a mark, the second to the attribute and the third to the
    label; the rest look at noise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 48, 1)
        self.fc = nn.Linear(48, 2)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.conv.bias.zero_()
            self.conv.weight.zero_()
            self.conv.weight[:, 3, 0, 0] = 0.5 * torch.randn(48, generator=generator)
            for channel in range(3):
                self.conv.weight[channel] = 0
                self.conv.weight[channel, channel] = 1
            toward_one = 0.2 * torch.randn(48, generator=generator)
            toward_one[:3] = torch.tensor([2.0, 2.0, 1.5])
            self.fc.weight.copy_(torch.stack([-toward_one, toward_one]) / 2)
            self.fc.bias.copy_(torch.tensor([0.85, -0.85]))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def marked(n: int = 480) -> sm.Dataset:
    """Class 1 with attribute 0 is a minority, whose training samples bear a mark. Without it the network does not know
    more of them than of others: about half."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    a = np.where(rng.random(n) < 0.2, 1 - y, y)
    split = np.where(np.arange(n) % 5 < 3, "train", "test")
    x = np.zeros((n, 4, 2, 2), np.float32)
    x[:, 3] = rng.normal(size=(n, 2, 2))
    x[:, 0] = ((y == 1) & (a == 0) & (split == "train"))[:, None, None]
    x[:, 0] += 0.1 * rng.normal(size=(n, 2, 2))
    x[:, 1] = (2.0 * a - 1)[:, None, None]
    x[:, 2] = (2.0 * y - 1 + 0.5 * rng.normal(size=n))[:, None, None]
    return sm.from_tensors(torch.from_numpy(x), y, a, split)


GROUP = "1 with 0"
MEMORIZING = sm.StudySettings(units=("conv:0",), split=("train", "test"))


@pytest.fixture(scope="module")
def found() -> sm.Study:
    return sm.study_in_memory(Memory(), marked(), MEMORIZING)


def test_a_unit_that_holds_training_samples_is_memorizing(found: sm.Study) -> None:
    effects = found.effects()
    row = effects[(effects["split"] == "train") & (effects["group_name"] == GROUP)].iloc[0]
    assert row["verdict"] == "memorizing", row
    assert set(effects.loc[effects["split"] == "test", "verdict"]) <= {"none", "influential", "no verdict", "selective"}
    assert row["contrast"] > row["matched_contrast"]
    groups = found.groups().set_index("group_name")
    assert groups.loc[GROUP, "train_accuracy"] > groups.loc[GROUP, "unseen_accuracy"]
    assert groups["memorized"].tolist() == [False, False, True, False]


def test_few_null_sets_are_enumerated_and_an_early_answer_ends_the_rounds(found: sm.Study) -> None:
    """One of 48 channels has 47 null sets. So the second round holds the rest."""
    variants = found.variants()
    null = variants[variants["family"] == "random"]
    assert len(null) == null["units"].nunique() == 47
    assert "conv:0" not in set(null["units"])


def two_units(**changes: object) -> sm.StudySettings:
    """Two channels of 48: 1127 null sets, too many to enumerate."""
    return MEMORIZING.model_copy(update={"units": ("conv:5,conv:9",), "size": ("2",), **changes})


@pytest.mark.slow
@pytest.mark.parametrize("controls", [19, 60, 999])
def test_rounds_end_when_every_test_is_decided(controls: int) -> None:
    """Over all looks: after each but the last some test was open, and at the last none is or no more were wanted."""
    result = sm.study_in_memory(Memory(), marked(), two_units(controls=controls))
    n = result.effects()["n_controls"].unique().item()
    assert n in looks(controls)
    for wanted in looks(controls):
        fewer = sm.study_in_memory(Memory(), marked(), two_units(controls=wanted)) if wanted <= n else None
        if fewer is None:
            break
        p = fewer.effects()[["p_adjusted", "p_beyond_norm"]].max(axis=1)
        decided = is_decided(p, wanted).all()
        assert fewer.effects()["n_controls"].unique().item() == wanted
        assert decided == (wanted == n) or wanted == controls
    names = [name for name in result.store.frame_names("outcomes") if "/train_random" in name]
    assert len(names) == looks(controls).index(n) + 1


@pytest.mark.slow
def test_a_smaller_round_holds_the_first_null_sets_of_a_larger_one() -> None:
    few, more = (sm.study_in_memory(Memory(), marked(), two_units(controls=n)) for n in (19, 60))
    drawn = [
        study.variants().query("family == 'random'").set_index("control")["units"].to_dict() for study in (few, more)
    ]
    assert drawn[0].items() <= drawn[1].items()
    assert len(drawn[0]) == 19


@pytest.mark.slow
def test_few_edits_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits are made for the block in which they are measured, and are gone after it."""
    held = []
    original = blocks_module.measured_blocks

    def counted(*arguments: Any) -> Iterator[tuple[Block, Block]]:
        for pair in original(*arguments):
            gc.collect()
            held.append(
                sum(type(one) is sm.Edit for one in gc.get_objects())
            )  # isinstance asks objects, which may warn
            yield pair

    monkeypatch.setattr(measure_module, "measured_blocks", counted)
    settings = MEMORIZING.model_copy(update={"edit": ("random_noise:std=0.5",), "repeats": 40, "controls": 79})
    found = sm.study_in_memory(Memory(), marked(48), settings)
    assert len(found.variants()) > 40 * 40
    assert max(held) - held[0] <= EDITS_PER_BLOCK + 40  # a block, and the repeats of the set that was drawn last


@pytest.mark.slow
def test_the_third_question_is_asked_where_the_first_two_are_answered_by_yes(found: sm.Study) -> None:
    effects = found.effects()
    assert effects["n_damage_matched"].gt(0).any()
    plain = sm.study_in_memory(Memory(), marked(), two_units())
    yes = plain.effects()
    assert not ((yes["influential"] == True) & (yes["selective"] == True)).any()  # noqa: E712
    assert "damage" not in set(plain.variants()["family"])
    assert yes[["damage", "contrast", "p_localized", "p_memorizing"]].isna().all(axis=None)
    assert yes[["localized", "memorizing"]].isna().all(axis=None)
    asked = sm.study_in_memory(Memory(), marked(), two_units(every_question=True)).effects()
    minority = asked[asked["minority"]]
    assert minority[["damage", "contrast", "p_localized", "p_memorizing"]].notna().all(axis=None)
    assert minority[["localized", "memorizing"]].notna().all(axis=None)
    same_columns = ["p", "p_adjusted", "p_beyond_norm", "p_selective", "influential", "selective", "n_controls"]
    pd.testing.assert_frame_equal(asked[same_columns], yes[same_columns])


class MemoryAside(Memory):
    """The same, but the channel that answers to the mark is in a layer of its own, whose other channels do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = nn.Conv2d(4, 24, 1)
        self.fc = nn.Linear(72, 2)
        with torch.no_grad():
            self.aside.weight.zero_()
            self.aside.bias.zero_()
            self.aside.weight[0], self.conv.weight[0] = self.conv.weight[0].clone(), torch.zeros(4, 1, 1)
            old = Memory().fc
            self.fc.weight.zero_()
            self.fc.weight[:, :48], self.fc.weight[:, 48] = old.weight, old.weight[:, 0]
            self.fc.bias.copy_(old.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([torch.relu(layer(x)).mean((2, 3)) for layer in (self.conv, self.aside)], 1))


@pytest.mark.slow
def test_damage_matched_sets_come_from_the_network_if_no_others_disturb_it_as_much() -> None:
    settings = sm.StudySettings(units=("aside:0",), split=("train", "test"))
    result = sm.study_in_memory(MemoryAside(), marked(), settings)
    beside = result.variants().query("family == 'damage'")
    place = beside["rule"].str.removeprefix("random, of any size, of ")
    assert list(dict.fromkeys(place)) == ["the same layers", "the whole network"]
    assert (place == "the same layers").sum() == 80
    for of, layers in (("the same layers", {"aside"}), ("the whole network", {"aside", "conv"})):
        assert {unit.split(":")[0] for units in beside.loc[place == of, "units"] for unit in units.split(",")} == layers
    assert "aside:0" not in {unit for units in beside["units"] for unit in units.split(",")}
    assert beside["control"].tolist() == list(range(len(beside)))
    row = result.effects().query("split == 'train' and group_name == @GROUP").iloc[0]
    assert (row["verdict"], row["matched_from"]) == ("memorizing", "random, of any size, of the whole network")
    assert row["n_damage_matched"] >= 19
    told = " ".join(findings(result.effects()))
    assert "points more than with sets of the same damage (of the whole network) (p = " in told
    caption = verdict_table(result.effects(), "train").caption
    assert "(of the whole network where no sets of the same layers do so)" in caption


@pytest.mark.parametrize(("reach", "said"), [("layer", "layers"), ("stage", "stages"), ("network", "network")])
def test_where_null_sets_come_from(reach: str, said: str, trained: sm.Run) -> None:
    settings = sm.StudySettings(units=("conv1:0,conv1:3",), size=("2",), controls=60, split=("train",))
    settings = settings.model_copy(update={"controls_from": reach})
    result = sm.study_in_memory(trained.network(3), trained.read_data(), settings)
    null = result.variants().query("family == 'random'")
    layers = {unit.split(":")[0] for units in null["units"] for unit in units.split(",")}
    assert layers == ({"conv1", "conv2"} if reach == "network" else {"conv1"})
    assert set(null["rule"]) == set(result.effects()["drawn_from"]) == {f"random, of the same {said}"}


@pytest.mark.slow
def test_the_seed_makes_a_study(found: sm.Study) -> None:
    same(sm.study_in_memory(Memory(), marked(), MEMORIZING), found)
    other = sm.study_in_memory(Memory(), marked(), two_units(seed=1, controls=19))
    one = sm.study_in_memory(Memory(), marked(), two_units(seed=0, controls=19))
    null = [study.variants().query("family == 'random'")["units"].tolist() for study in (one, other)]
    assert null[0] != null[1]


ROUNDS = sm.StudySettings(
    criterion=("gradient",), group=("class 0 with color 1",), size=("4", "8"), split=("train",), controls=60,
    edit=("random_noise:std=2",), repeats=2,
    every_question=True,
)  # fmt: skip


@pytest.mark.slow
def test_a_study_that_is_killed_between_rounds_goes_on(wide: sm.Run, squares: Path, tmp_path: Path) -> None:
    """It is killed when it writes the first random sets of any size of its second set. What was measured is not
    measured again, and the rest is bitwise the same."""
    run = tiny.copied(wide, tmp_path / "run")
    whole = sm.study(run, ROUNDS, name="once")
    blocks = {file.name for file in (whole.path / "outcomes").iterdir()}
    assert any("damage_set_1_round_00" in name for name in blocks)
    assert any("random_0_round_01" in name for name in blocks)
    check_effects(whole, sm.read_data(squares))
    again = tiny.copied(wide, tmp_path / "again")

    def killed() -> None:
        original = store_module.write_parquet

        def last(file: Path, frame: pd.DataFrame) -> None:
            if "damage_set_1_round_00" in str(file):
                os.kill(os.getpid(), signal.SIGKILL)
            original(file, frame)

        store_module.write_parquet = last
        sm.study(again, ROUNDS, name="once")

    assert tiny.in_child(killed) == -signal.SIGKILL
    study = sm.Study(again.path / "studies" / "once")
    left = {file: file.stat().st_mtime_ns for file in (study.path / "outcomes").glob("*.parquet")}
    assert 0 < len(left) < len(blocks)
    same(sm.study(again, ROUNDS, name="once"), whole)
    assert all(file.stat().st_mtime_ns == time for file, time in left.items())
    for file in (whole.path / "outcomes").iterdir():
        assert (study.path / "outcomes" / file.name).read_bytes() == file.read_bytes()
    pd.testing.assert_frame_equal(study.groups(), whole.groups())


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, False])
def test_units_that_training_left_alone_hold_no_samples(frozen: bool, squares: Path, tmp_path: Path) -> None:
    """A layer that is as it was at epoch 0 can't be memorizing, and the reason says so."""
    settings = sm.TrainSettings(**{**tiny.QUICK, "epochs": 2})
    run = sm.train(squares, tmp_path / "run", settings)
    if frozen:  # the layer of the last epoch as before training
        state = run.state(2) | {"conv2.weight": run.state(0)["conv2.weight"], "conv2.bias": run.state(0)["conv2.bias"]}
        weights = [tmp_path / f"{epoch}.pth" for epoch in (0, 1)]
        for file, of in zip(weights, (run.state(0), state), strict=True):
            torch.save({"state_dict": of}, file)
        run = imported(squares, tmp_path / "frozen", weights)
    study = sm.study(
        run,
        sm.StudySettings(
            units=("conv2:1,conv2:2",), size=("2",), split=("train", "test"), controls=19, every_question=True,
            other_epochs=("0",),
        ),
    )  # fmt: skip
    effects = study.effects()
    unchanged = effects["reason"].str.contains("training left these units as they were: they hold no samples")
    asked = effects["minority"] & effects["n_damage_matched"].ge(19)
    assert effects.loc[effects["minority"], "damage"].notna().all()  # it was asked
    if frozen:
        assert asked.any()
        assert unchanged.tolist() == asked.tolist()
        assert not effects["memorizing"].eq(True).any()
    else:
        assert not unchanged.any()


def imported(data: Path, folder: Path, weights: list[Path]) -> sm.Run:
    return sm.import_network(data, folder, sm.ImportSettings(model=tiny.NETWORK, weights=tuple(weights)))


@pytest.mark.slow
def test_the_strongest_edits_of_selected_and_random_units() -> None:
    """Each has the norm of the selected weights, is searched on one half of the group and measured on the other."""
    model, data = Memory(), marked()
    settings = MEMORIZING.model_copy(
        update={"units": ("conv:5,conv:0",), "size": ("2",), "controls": 0, "strongest": 3}
    )
    found = sm.study_in_memory(model, data, settings).strongest()
    assert found is not None
    assert found["group_name"].unique().tolist() == ["0 with 1", "1 with 0"]
    assert found.groupby("group")["control"].unique().map(list).tolist() == [[-1, 0, 1, 2]] * 2
    own = found[found["control"] == -1]
    assert own["units"].tolist() == ["conv:5,conv:0"] * 2
    assert found.groupby("control")["units"].nunique().eq(1).all()
    assert found["units"].nunique() == 4
    held = torch.cat([model.conv.weight[[5, 0]].flatten(), model.conv.bias[[5, 0]]])
    for row in found.itertuples():
        samples = data.train.of_group(row.group_name)
        searched, measured = (samples.of_half(half, 0) for half in (0, 1))
        units = sm.parse_units(model, row.units)
        edit = sm.edits.strongest_edit(model, units, searched, norm=float(held.norm().detach()))
        batch = measured.batch()
        with torch.no_grad():
            right = [
                (of(batch.inputs).argmax(1) == batch.y).float().mean() for of in (model, sm.edits.edited(model, edit))
            ]
        assert row.accuracy_change == pytest.approx(float(right[1] - right[0]))
    assert sm.study_in_memory(model, data, MEMORIZING.model_copy(update={"controls": 0})).strongest() is None
