"""The few lines of the Python API on a user's own network and tensors, end to end."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spurious_memorization as sm


class Memory(nn.Module):
    """Reads the spurious attribute off the image's first plane; one channel alone holds the minority's mark.

    Inputs have three planes: attribute (-1 or 1), mark of the samples known by heart (0 or 1), noise.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 1)
        self.fc = nn.Linear(8, 2)
        with torch.no_grad():
            self.conv.weight.mul_(0.01)
            self.conv.bias.zero_()
            self.fc.weight.mul_(0.01)
            self.fc.bias.zero_()
            self.conv.weight[0, 0], self.conv.weight[1, 0] = 1.0, -1.0  # the attribute, for and against
            self.conv.weight[5, 1] = 2.0  # the mark
            self.fc.weight[1, 0], self.fc.weight[0, 1] = 1.0, 1.0
            self.fc.weight[0, 5], self.fc.weight[1, 5] = -2.0, 2.0  # the marked are of class 1

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def data() -> sm.Dataset:
    """Class 1 with attribute 0 is the minority: its training samples bear the mark, its test samples don't."""
    rng = np.random.default_rng(0)
    y = np.array([0] * 40 + [1] * 48)
    a = np.array([0] * 40 + [1] * 40 + [0] * 8)
    split = np.where(np.arange(88) % 4 == 3, "test", "train")
    x = torch.from_numpy(rng.normal(size=(88, 3, 4, 4)).astype(np.float32)) * 0.1
    x[:, 0] += torch.from_numpy(2.0 * a - 1).float()[:, None, None]
    x[:, 1] += torch.from_numpy((y != a) & (split == "train")).float()[:, None, None]
    return sm.from_tensors(x, y, a, split, classes=("landbird", "waterbird"), attributes=("land", "water"))


GROUP = "waterbird with land"
COLUMNS = {
    "edit",
    "kind",
    "n_units",
    "group",
    "n",
    "accuracy_before",
    "accuracy_after",
    "accuracy_change",
    "low",
    "high",
    "margin_change",
    "n_controls",
    "control_low",
    "control_median",
    "control_high",
    "n_controls_as_large",
    "p",
    "p_adjusted",
    "p_beyond_norm",
    "difference",
    "p_selective",
    "p_selective_margin",
    "majority_change",
    "overlap",
    "damage",
    "n_damage_matched",
    "damage_ratio",
    "matched_drop",
    "p_localized",
    "contrast",
    "matched_contrast",
    "p_memorizing",
    "p_contrast",
    "influential",
    "selective",
    "localized",
    "memorizing",
    "verdict",
    "reason",
}


def test_from_tensors_to_effects(data):
    model = Memory().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.warns(UserWarning, match="all 6 samples"):
        worst = sm.hardest_samples(model, data.train, group=GROUP, n=200)
    assert set(worst.index) == set(data.train.of_group(GROUP).index)

    scores = sm.criteria.gradient(model, worst)
    units = sm.top(scores, 1)
    assert list(units) == [("conv.weight", 5)]

    edit = sm.edits.zero(units)
    with pytest.warns(UserWarning, match="only 7 of 20 null sets"):
        null = sm.null_sets(model, edit, n=20)
    result = sm.evaluate(model, [edit, *null], data.train)
    effects = sm.effects(result, data.train)
    assert set(effects.columns) == COLUMNS
    assert len(effects) == 3  # one row per group with samples

    row = effects.set_index("group").loc[GROUP]
    assert (row["n"], row["n_units"], row["kind"], row["edit"]) == (6, 1, "zero", 0)
    assert (row["accuracy_before"], row["accuracy_after"], row["accuracy_change"]) == (1, 0, -1)
    assert row["low"] <= row["accuracy_change"] <= row["high"] < 0
    assert row["margin_change"] < -1
    assert (row["n_controls"], row["n_controls_as_large"], row["control_low"]) == (7, 0, 0)
    others = effects[effects["group"] != GROUP]
    assert (others["accuracy_change"] == 0).all()
    assert (others["n_controls_as_large"] == 7).all()  # a accuracy change of 0 is met by all
    assert row["p"] == 1 / 8 <= row["p_adjusted"]
    assert (effects["verdict"] == "no verdict").all()
    assert effects["reason"].str.contains("7 null sets: at least 19 are needed").all()

    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_memory_shows_in_training_only(data):
    model = Memory()
    edit = sm.edits.zero(sm.parse_units(model, "conv:5"))
    accuracy_changes = {}
    for samples in (data.train, data.test):
        effects = sm.effects(sm.evaluate(model, [edit], samples), samples).set_index("group")
        accuracy_changes[samples.split] = effects.loc[GROUP, "margin_change"]
        assert effects.loc[GROUP, "n_controls"] == 0
    assert accuracy_changes["train"] < -1
    assert abs(accuracy_changes["test"]) < 1


def test_edited_network_answers_as_measured(data):
    model = Memory()
    edit = sm.edits.zero(sm.parse_units(model, "conv:5"))
    batch = data.train.batch()
    answers = sm.edits.edited(model, edit)(batch.inputs).argmax(1).numpy()
    assert answers.tolist() == sm.evaluate(model, [edit], data.train).after.predicted[0].tolist()


def test_all_names_are_there_and_documented():
    for name in sm.__all__:
        described = inspect.getdoc(getattr(sm, name))
        assert described, name
    assert len(set(sm.__all__)) == len(sm.__all__)


def test_a_label_without_an_output():
    data = sm.from_tensors(torch.zeros(6, 3, 8, 8), y=[0, 1, 2] * 2, a=[0, 1] * 3)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    for use in (
        lambda: sm.evaluate(model, [], data.train),
        lambda: sm.hardest_samples(model, data.train),
        lambda: sm.criteria.gradient(model, data.train),
    ):
        with pytest.raises(sm.UserError, match=r"the network has 2 outputs but (a label is 2|the data have 3 classes)"):
            use()
