"""The strongest edit: bounded, strong, and an edit like any other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.engine.plain import PlainEngine

UNITS = {"channel": "conv2:3,conv1:0,mid:2", "weight": "conv2.weight:3,mid.weight:0,mid.bias:1,fc.weight:2"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 6, 3)
        self.mid = nn.Linear(6, 7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.bn1(self.conv1(x)).relu_()).relu_().mean((2, 3))
        return self.fc(self.mid(x).relu_())


@pytest.fixture(scope="module")
def data() -> sm.Dataset:
    torch.manual_seed(1)
    return sm.from_tensors(torch.randn(30, 3, 8, 8), [0, 1, 2] * 10, [0, 1] * 15)


@pytest.fixture(scope="module")
def trained(data: sm.Dataset) -> nn.Module:
    """A network that knows its samples by heart."""
    torch.manual_seed(0)
    net, batch = Net(), data.train.batch()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(batch.inputs), batch.y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return net


@pytest.fixture
def model(trained: nn.Module) -> nn.Module:
    return copy.deepcopy(trained).train()


def units_of(model: nn.Module, kind: Any = "channel") -> sm.Units:
    return sm.parse_units(model, UNITS[kind], sm.Selection(unit=kind))


def own_norm(model: nn.Module, kind: str) -> float:
    """Norm of the units' weights and biases, written out."""
    if kind == "weight":
        numbers = [model.conv2.weight.flatten()[3], model.mid.weight[0, 0], model.mid.bias[1], model.fc.weight[0, 2]]
    else:
        numbers = [model.conv2.weight[3], model.conv2.bias[3], model.conv1.weight[0], model.mid.weight[2]]
        numbers.append(model.mid.bias[2])
    return torch.cat([part.flatten() for part in numbers]).norm().item()


def size(model: nn.Module, edit: sm.Edit) -> float:
    changed = sm.edits.edited_tensors(model, edit)
    return torch.cat([(new - model.get_parameter(name)).flatten() for name, new in changed.items()]).norm().item()


def mean_loss(model: nn.Module, edit: sm.Edit | None, data: sm.Dataset, softmax: bool = False) -> float:
    network = copy.deepcopy(model) if edit is None else sm.edits.edited(model, edit)
    with torch.no_grad():
        x, y, _ = data.train.batch()
        output = network.eval()(x)
        return float(F.cross_entropy(output.softmax(1) if softmax else output, y))


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("norm", [None, 0.3, 4])
def test_the_change_is_bounded_and_only_in_the_units(model, data, kind, norm):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    units = units_of(model, kind)
    edit = sm.edits.strongest_edit(model, units, data.train, norm=norm, steps=5)
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    bound = own_norm(model, kind) if norm is None else norm
    assert edit.parameters["norm"] == pytest.approx(bound, rel=1e-5)
    assert 0.5 * bound < size(model, edit) <= bound * (1 + 1e-5)
    changed, zeroed = (sm.edits.edited_tensors(model, e) for e in (edit, sm.edits.zero(units)))
    assert changed.keys() == zeroed.keys()
    for name, new in changed.items():
        old = model.get_parameter(name)
        assert torch.equal(new[zeroed[name] == old], old[zeroed[name] == old])


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_on_probabilities"])
def test_no_other_change_of_the_norm_raises_the_loss_more(model, data, kind, loss):
    units, softmax = units_of(model, kind), loss != "cross_entropy"
    edit = sm.edits.strongest_edit(model, units, data.train, loss=loss)
    strongest = mean_loss(model, edit, data, softmax)
    others = [sm.edits.zero(units)]
    for seed in range(20):
        noise = sm.edits.random_noise(units, 1.0, seed=seed)
        others.append(sm.edits.random_noise(units, edit.parameters["norm"] / size(model, noise), seed=seed))
        assert size(model, others[-1]) == pytest.approx(edit.parameters["norm"], rel=1e-4)
    before = mean_loss(model, None, data, softmax)
    most = max(mean_loss(model, other, data, softmax) for other in others)
    assert strongest > most > before + 0.01


def test_the_best_change_is_found_where_it_is_known():
    """The loss of a linear network that is wrong by a large margin is linear in its bias: the best change of the
    channel 1 moves its bias and weights along their mean gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    x = torch.randn(12, 3)
    data = sm.from_tensors(x, [0] * 12, [0] * 12, classes=("no", "yes"))
    with torch.no_grad():
        model[1].bias[1] = 60
    edit = sm.edits.strongest_edit(model, sm.parse_units(model, "0:1"), data.train, norm=0.5)
    along = torch.cat([x.mean(0), torch.ones(1)]) * (model[1].weight[1, 1] - model[1].weight[0, 1])
    expected = 0.5 * along.norm().item()
    assert mean_loss(model, edit, data) - mean_loss(model, None, data) == pytest.approx(expected, rel=1e-3)


def test_a_unit_without_weights_or_slope(data):
    """It has no norm of its own, and the loss around it is flat: the search begins at random. Its output raises the
    logit of class 1, which is wrong."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 3))
    zeros = sm.from_tensors(torch.rand(12, 3, 8, 8), [0] * 12, [0] * 12, classes=("a", "b", "c"))
    with torch.no_grad():
        model[1].weight[2], model[1].bias[2] = 0, -1e-3
        model[3].weight[:, 2] = torch.tensor([0.0, 2, 0])
    units = sm.parse_units(model, "1:2", sm.Selection(with_bias=False))
    with pytest.raises(sm.UserError, match="the units' weights are all 0: give the norm of the change"):
        sm.edits.strongest_edit(model, units, zeros.train)
    edit = sm.edits.strongest_edit(model, units, zeros.train, norm=1)
    assert mean_loss(model, edit, zeros) > mean_loss(model, None, zeros) + 2


@pytest.mark.slow
def test_it_follows_from_its_seed_and_not_from_batches(model, data, monkeypatch):
    units = units_of(model)
    state = torch.random.get_rng_state()
    edit = sm.edits.strongest_edit(model, units, data.train, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    with torch.no_grad():
        assert sm.edits.strongest_edit(model, units, data.train, seed=3).digest() == edit.digest()
    with torch.inference_mode():
        again = sm.edits.strongest_edit(model.eval(), units, tuple(data.train.batch()[:2]), seed=3)
    assert again.digest() == edit.digest()
    assert sm.edits.strongest_edit(model, units, data.train, seed=4).digest() != edit.digest()
    original = sm.Samples.batches
    monkeypatch.setattr(sm.Samples, "batches", lambda self, size, workers=0: original(self, 7, workers))
    parts = sm.edits.strongest_edit(model, units, data.train, seed=3)
    assert mean_loss(model, parts, data) == pytest.approx(mean_loss(model, edit, data), rel=1e-3)


@pytest.mark.parametrize("kind", UNITS)
def test_both_engines_measure_it(model, data, kind):
    edit = sm.edits.strongest_edit(model, units_of(model, kind), data.train)
    edits = [edit, sm.edits.zero(units_of(model, kind))]
    outcomes = sm.evaluate(model, edits, data.train)
    assert outcomes.engine == "shared prefix"
    plain = PlainEngine(model).run(edits, range(2), data.train)
    torch.testing.assert_close(
        torch.from_numpy(outcomes.after.loss), torch.from_numpy(plain.loss), rtol=1e-2, atol=1e-3
    )
    assert (outcomes.after.predicted == plain.predicted).all()
    assert float(outcomes.after.loss[0].astype(float).mean()) == pytest.approx(mean_loss(model, edit, data), rel=1e-2)


def test_heads(data):
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.fc = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)
            self.embed = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x.flatten(2).movedim(1, 2))
            return self.fc(self.attention(x, x, x)[0].mean(1))

    torch.manual_seed(0)
    model = Attention()
    units = sm.parse_units(model, "attention:1", sm.Selection(unit="head"))
    edit = sm.edits.strongest_edit(model, units, data.train)
    assert mean_loss(model, edit, data) > mean_loss(model, sm.edits.zero(units), data)
    changed = sm.edits.edited_tensors(model, edit)["attention.in_proj_weight"]
    rows = (changed != model.attention.in_proj_weight).any(1).nonzero().flatten().tolist()
    assert rows == [2, 3, 6, 7, 10, 11]


def test_it_belongs_to_its_units(model, data):
    edit = sm.edits.strongest_edit(model, units_of(model), data.train, steps=2)
    assert set(sm.edits.edited_tensors(model, edit.on(edit.units.first(1)))) == {"conv2.weight", "conv2.bias"}
    for text in ("conv2:3,conv2:4", "conv2:1"):
        with pytest.raises(sm.UserError, match=r"edit optimized was made for other units: .* in conv2.weight$"):
            sm.edits.edited_tensors(model, edit.on(sm.parse_units(model, text)))
    with pytest.raises(sm.UserError, match="edit optimized was made for other units"):
        sm.edits.edited_tensors(model, sm.Edit("optimized", edit.units))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": 0}, "norm 0 must be a number above 0"),
        ({"norm": float("nan")}, "norm nan must be a number above 0"),
        ({"norm": "1"}, "norm '1' must be a number above 0"),
        ({"steps": 0}, "steps 0 must be a whole number from 1 up"),
        ({"steps": 2.5}, "steps 2.5 must be a whole number from 1 up"),
        ({"loss": "hinge"}, "unknown loss 'hinge': choose among cross_entropy"),
        ({"samples": "train"}, "the samples are a str"),
        ({"units": "conv1:0"}, "the units are a str"),
        ({"model": 3}, "the network is a int"),
        ({"norm": 1e38}, "the edited network gives no finite number .*: choose a smaller norm"),
    ],
)
def test_bad_arguments_are_refused(model, data, arguments, message):
    given = {"model": model, "units": units_of(model), "samples": data.train, **arguments}
    with pytest.raises(sm.UserError, match=message) as caught:
        sm.edits.strongest_edit(given.pop("model"), given.pop("units"), given.pop("samples"), **given)
    assert "\n" not in str(caught.value)


def test_no_units_and_units_of_another_network_are_refused(model, data):
    with pytest.raises(sm.UserError, match="there are no units"):
        sm.edits.strongest_edit(model, units_of(model).first(0), data.train)
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Linear(8, 3))
    with pytest.raises(sm.UserError, match="the network has no channel 1:3"):
        sm.edits.strongest_edit(model, sm.parse_units(other, "1:3"), data.train)
