"""Criteria beside plain calculations of the same."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.criteria.find import checked_scores, find_criterion
from spurious_memorization.criteria.gradients import gradients
from spurious_memorization.criteria.scores import read_scores, save_scores


class Net(nn.Module):
    """With batch norm and dropout, so that the mode shows; a bias in the second layer only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 6, 3)
        self.drop = nn.Dropout(0.5)
        self.mid = nn.Linear(6, 7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.bn1(self.conv1(x)).relu()).relu().mean((2, 3))
        return self.fc(self.drop(self.mid(x).relu()))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    net = Net().train()
    net.bn1.running_mean.normal_()
    return net


@pytest.fixture(scope="module")
def data() -> sm.Dataset:
    torch.manual_seed(1)
    return sm.from_tensors(torch.randn(30, 3, 8, 8), [0, 1, 2] * 10, [0, 1] * 15, attributes=("dry", "wet", "never"))


def slopes(model: nn.Module, x: Tensor, y: Tensor, softmax: bool = False) -> dict[str, Tensor]:
    net = copy.deepcopy(model).eval()
    output = net(x)
    F.cross_entropy(output.softmax(1) if softmax else output, y).backward()
    return {name: p.grad for name, p in net.named_parameters()}


def rows(values: dict[str, Tensor], layer: str, bias: bool) -> Tensor:
    weight = values[f"{layer}.weight"].flatten(1)
    return torch.cat([weight, values[f"{layer}.bias"][:, None]], 1) if bias else weight


LAYERS = {"conv1": False, "conv2": True, "mid": True}


def test_magnitude_is_the_norm_with_its_bias(model):
    values = {name: p.detach() for name, p in model.named_parameters()}
    scores = sm.criteria.weight_norm(model)
    assert list(scores) == ["conv1.weight", "conv2.weight", "mid.weight"]
    without = sm.criteria.weight_norm(model, select=sm.Selection(with_bias=False))
    for layer, has_bias in LAYERS.items():
        name = f"{layer}.weight"
        torch.testing.assert_close(scores[name], torch.linalg.vector_norm(rows(values, layer, has_bias), dim=1))
        torch.testing.assert_close(without[name], torch.linalg.vector_norm(rows(values, layer, False), dim=1))
    assert not torch.equal(scores["mid.weight"], without["mid.weight"])
    weights = sm.criteria.weight_norm(model, select=sm.Selection(unit="weight"))
    assert all(torch.equal(weights[name], values[name].abs()) for name in weights)


@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_on_probabilities"])
def test_gradient_is_that_of_the_mean_loss(model, data, loss):
    batch = data.train.batch()
    expected = slopes(model, batch.inputs, batch.y, softmax=loss != "cross_entropy")
    scores = sm.criteria.gradient(model, batch, loss=loss)
    for layer, has_bias in LAYERS.items():
        norm = torch.linalg.vector_norm(rows(expected, layer, has_bias), dim=1)
        torch.testing.assert_close(scores[f"{layer}.weight"], norm, rtol=1e-4, atol=1e-7)
    weights = sm.criteria.gradient(model, batch, select=sm.Selection(unit="weight"), loss=loss)
    for name, values in weights.items():
        torch.testing.assert_close(values, expected[name].abs(), rtol=1e-4, atol=1e-7)


def test_gradient_of_more_samples_than_a_batch(model, data, monkeypatch):
    whole = sm.criteria.gradient(model, data.train.batch())
    original = sm.Samples.batches
    monkeypatch.setattr(sm.Samples, "batches", lambda self, size, workers=0: original(self, 7, workers))
    for name, values in sm.criteria.gradient(model, data.train).items():
        torch.testing.assert_close(values, whole[name], rtol=1e-4, atol=1e-7)


def test_taylor_is_the_sum_of_weight_times_gradient(model, data):
    batch = data.train.batch()
    expected = slopes(model, batch.inputs, batch.y)
    values = {name: p.detach() for name, p in model.named_parameters()}
    scores = sm.criteria.taylor(model, batch)
    for layer, has_bias in LAYERS.items():
        products = rows(values, layer, has_bias) * rows(expected, layer, has_bias)
        torch.testing.assert_close(scores[f"{layer}.weight"], products.sum(1).abs(), rtol=1e-4, atol=1e-7)
    for name, found in sm.criteria.taylor(model, batch, select=sm.Selection(unit="weight")).items():
        torch.testing.assert_close(found, (values[name] * expected[name]).abs(), rtol=1e-4, atol=1e-7)


def test_taylor_predicts_the_effect_of_a_small_channel(model, data):
    """What it estimates: the change of the mean loss when the unit is zeroed."""
    with torch.no_grad():
        model.conv2.weight.mul_(1e-3)
        model.conv2.bias.zero_()
    units = sm.parse_units(model, "conv2:4")
    result = sm.evaluate(model, [sm.edits.zero(units)], data.train)
    change = float(result.after.loss[0].astype(float).mean() - result.before.loss[0].astype(float).mean())
    estimate = float(sm.criteria.taylor(model, data.train)["conv2.weight"][4])
    assert abs(change) == pytest.approx(estimate, rel=0.1, abs=1e-7)
    assert estimate > 1e-6


def test_random_follows_from_its_seed(model):
    one, same, other = (sm.criteria.random(model, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert all(not torch.equal(one[name], other[name]) for name in one)
    assert {
        name: tuple(v.shape) for name, v in sm.criteria.random(model, select=sm.Selection(unit="weight")).items()
    } == {name: tuple(model.get_parameter(name).shape) for name in one}


@pytest.mark.parametrize("criterion", ["weight_norm", "gradient", "taylor", "random"])
def test_mode_and_network_stay_and_do_not_matter(model, data, criterion):
    function = getattr(sm.criteria, criterion)
    training = function(model, data.train)
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert int(model.bn1.num_batches_tracked) == 0
    evaluation = function(model.eval(), data.train)
    assert not model.training
    assert all(torch.equal(training[name], evaluation[name]) for name in training)


def test_frozen_parameters_and_no_grad_change_nothing(model, data):
    expected = sm.criteria.gradient(model, data.train)
    with torch.no_grad():
        found = sm.criteria.gradient(model.requires_grad_(False), data.train)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(p.requires_grad for p in model.parameters())


def test_a_parameter_that_the_output_does_not_use_has_gradient_zero(model, data):
    model.unused = nn.Linear(2, 2)
    found = gradients(model, data.train.batch())
    assert not found["unused.weight"].any()
    assert found["mid.weight"].any()


def test_three_dimensional_convolutions():
    model = nn.Sequential(nn.Conv3d(1, 4, 2, bias=False), nn.Flatten(), nn.Linear(4, 2))
    data = sm.from_tensors(torch.randn(6, 1, 2, 2, 2), [0, 1] * 3, [0] * 6)
    expected = slopes(model, *data.train.batch()[:2])["0.weight"].flatten(1).norm(dim=1)
    torch.testing.assert_close(sm.criteria.gradient(model, data.train)["0.weight"], expected, rtol=1e-4, atol=1e-7)


def test_heads_have_one_score_each():
    attention = nn.MultiheadAttention(6, 2)
    model = nn.ModuleDict({"attention": attention, "head": nn.Linear(6, 2)})
    with torch.no_grad():
        attention.in_proj_bias.normal_()
    scores = sm.criteria.weight_norm(model, select=sm.Selection(unit="head"))["attention"]
    weight = torch.cat([attention.in_proj_weight, attention.in_proj_bias[:, None]], 1).detach()
    expected = weight.reshape(3, 2, 3, 7).square().sum((0, 2, 3)).sqrt()
    torch.testing.assert_close(scores, expected)


def test_users_own_criterion(model, data, tmp_path, monkeypatch):
    (tmp_path / "my_criteria.py").write_text(
        "def first(model, batch=None, **_):\n"
        "    return {'conv1.weight': model.conv1.weight.detach().flatten(1)[:, 0]}\n"
        "number = 3\n"
    )
    (tmp_path / "broken_criteria.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    scores = find_criterion("my_criteria:first")(model, data.train.batch())
    units = sm.top(scores, 2)
    assert [index for _, index in units] == model.conv1.weight.flatten(1)[:, 0].argsort(descending=True)[:2].tolist()
    assert find_criterion("gradient") is sm.criteria.gradient
    for name in ("my_criteria:second", "my_criteria:number", "no_such_module_here:f", "broken_criteria:f", ":f"):
        with pytest.raises(sm.UserError, match="name an importable module and a function"):
            find_criterion(name)
    with pytest.raises(sm.UserError, match="choose among weight_norm, gradient, taylor, ablation, random"):
        find_criterion("size")


def test_a_users_criterion_is_kept_to_the_chosen_tensors(model):
    everything = {name: of + 1 for name, of in sm.criteria.weight_norm(model).items()}
    first = next(iter(everything))
    kept = checked_scores("mine:all", everything, model, sm.Selection(tensors=(first,)))
    assert list(kept) == [first]
    assert list(checked_scores("mine:all", everything, model, sm.Selection(exclude=(first,)))) == list(everything)[1:]
    with pytest.raises(sm.UserError, match="gives no scores for the chosen channels"):
        checked_scores("mine:all", {first: everything[first]}, model, sm.Selection(exclude=(first,)))


def test_scores_survive_their_file(model, tmp_path: Path):
    scores = sm.criteria.weight_norm(model, select=sm.Selection(with_bias=False))
    scores = sm.Scores(dict(reversed(scores.items())), "channel", with_bias=False)
    save_scores(tmp_path / "scores.safetensors", scores)
    again = read_scores(tmp_path / "scores.safetensors")
    assert list(again) == list(scores)
    assert (again.kind, again.with_bias) == ("channel", False)
    assert all(torch.equal(again[name], scores[name]) for name in scores)
    file = tmp_path / "scores.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(sm.UserError, match="truncated"):
        read_scores(file)


class Echo(nn.Module):
    """Gives its inputs as logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def echo_data(logits: list[list[float]], y: list[int], a: list[int] | None = None) -> sm.Dataset:
    return sm.from_tensors(
        torch.tensor(logits, dtype=torch.float32),
        y,
        a or [0] * len(y),
        classes=("no", "yes"),
        attributes=("dry", "wet"),
    )


def test_worst_are_those_of_largest_loss_ties_by_index():
    data = echo_data([[0, 0], [0, 3], [0, 0], [3, 0], [0, 3]], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0])
    assert sm.hardest_samples(Echo(), data.train, n=3).index.tolist() == [1, 0, 2]
    assert sm.hardest_samples(Echo(), data.train, n=99, batch_size=2).index.tolist() == [1, 0, 2, 3, 4]
    assert sm.hardest_samples(Echo(), data.train, n=3, order="lowest_loss").index.tolist() == [3, 4, 0]


def test_worst_by_loss_on_probabilities_tells_saturated_samples_apart():
    data = echo_data([[0, 20], [0, 21], [0, 18], [1, 0]], [0, 0, 0, 0])
    worst = sm.hardest_samples(Echo(), data.train, n=3, loss="cross_entropy_on_probabilities")
    assert worst.index.tolist() == [1, 0, 2]


def test_worst_of_a_group(model, data):
    logits = copy.deepcopy(model).eval()(data.train.batch().inputs).double()
    losses = F.cross_entropy(logits, torch.from_numpy(data.y), reduction="none").detach().numpy()
    group = data.groups.names[4]
    members = np.flatnonzero(data.g == 4)
    expected = members[np.argsort(-losses[members], kind="stable")][:3]
    assert sm.hardest_samples(model, data.train, group=group, n=3).index.tolist() == expected.tolist()
    assert sm.hardest_samples(model, data.train, group=4, n=3).index.tolist() == expected.tolist()
    assert model.training


def test_worst_warns_where_all_are_right():
    data = echo_data([[3, 0], [1, 0], [0, 3], [0, 1]], [0, 0, 1, 0], [0, 0, 0, 1])
    with pytest.warns(UserWarning, match=r"all 2 samples \('no with dry'\) are classified correctly") as caught:
        found = sm.hardest_samples(Echo(), data.train, group="no with dry")
    assert found.index.tolist() == [1, 0]
    assert caught[0].filename == __file__
    assert len(sm.hardest_samples(Echo(), data.train, group="no with wet")) == 1
    assert len(sm.hardest_samples(Echo(), data.train, group="no with dry", order="lowest_loss")) == 2


def test_worst_refuses_a_group_that_is_missing_or_empty(model, data):
    with pytest.raises(sm.UserError, match="no group 'cat': choose among"):
        sm.hardest_samples(model, data.train, group="cat")
    with pytest.raises(sm.UserError, match="no group '9'"):
        sm.hardest_samples(model, data.train, group=9)
    with pytest.raises(sm.UserError, match="'0 with never' has no samples in split 'train'"):
        sm.hardest_samples(model, data.train, group="0 with never")
