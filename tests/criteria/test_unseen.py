"""Criteria that compare training with unseen samples, beside plain calculations of the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spurious_memorization as sm

LAYERS = ("conv1", "conv2", "mid")
BOTH = (sm.criteria.activation_difference, sm.criteria.attribution_patching)


class Net(nn.Module):
    """With batch norm, dropout and activations that write over their input; `mid` is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 6, 3)
        self.drop = nn.Dropout(0.5)
        self.mid = nn.Linear(6, 6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.bn1(self.conv1(x)).relu_()).relu_().mean((2, 3))
        return self.fc(self.drop(self.mid(self.mid(x).relu_()).relu_()))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    net = Net().train()
    net.bn1.running_mean.normal_()
    return net


@pytest.fixture(scope="module")
def data() -> sm.Dataset:
    torch.manual_seed(1)
    split = np.where(np.arange(48) < 30, "train", "test")
    return sm.from_tensors(torch.randn(48, 3, 8, 8), [0, 1, 2] * 16, [0, 1] * 24, split)


def outputs_of(model: nn.Module, x: Tensor) -> dict[str, list[Tensor]]:
    """The outputs of each call of a layer, written out: [samples, channels, positions]."""
    net = copy.deepcopy(model).eval()
    one = net.conv1(x)
    two = net.conv2(F.relu(net.bn1(one)))
    three = net.mid(F.relu(two).mean((2, 3)))
    four = net.mid(F.relu(three))
    return {"conv1": [one.flatten(2)], "conv2": [two.flatten(2)], "mid": [three[..., None], four[..., None]]}


def test_activation_difference_is_that_of_the_means_in_pooled_standard_deviations(model, data):
    scores = sm.criteria.activation_difference(model, data.train, data.test)
    assert list(scores) == [f"{layer}.weight" for layer in LAYERS]
    with torch.no_grad():
        seen, unseen = (outputs_of(model, samples.batch().inputs) for samples in (data.train, data.test))
    for layer in LAYERS:
        one, two = (torch.cat(there[layer], 2).mean(2).numpy().astype(float) for there in (seen, unseen))
        pooled = np.sqrt((29 * one.var(0, ddof=1) + 17 * two.var(0, ddof=1)) / 46)
        expected = torch.from_numpy(np.abs(one.mean(0) - two.mean(0)) / pooled).float()
        torch.testing.assert_close(scores[f"{layer}.weight"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_on_probabilities"])
def test_attribution_patching_is_gradient_times_change(model, data, loss):
    """Beside hooks that move each channel by a share of the way to its mean: the gradient of the share."""
    batch = data.train.batch()
    with torch.no_grad():
        unseen = outputs_of(model, data.test.batch().inputs)
    means = {layer: torch.cat(calls, 2).mean((0, 2)) for layer, calls in unseen.items()}
    net = copy.deepcopy(model).eval()
    share = {layer: torch.zeros(len(means[layer]), requires_grad=True) for layer in LAYERS}

    def towards_the_mean(layer: str):
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            shape = (1, -1, *[1] * (output.ndim - 2))
            return output + share[layer].reshape(shape) * (means[layer].reshape(shape) - output.detach())

        return hook

    for layer in LAYERS:
        net.get_submodule(layer).register_forward_hook(towards_the_mean(layer))
    output = net(batch.inputs)
    F.cross_entropy(output.softmax(1) if loss != "cross_entropy" else output, batch.y).backward()
    scores = sm.criteria.attribution_patching(model, data.train, data.test, loss=loss)
    for layer in LAYERS:
        torch.testing.assert_close(scores[f"{layer}.weight"], share[layer].grad, rtol=1e-4, atol=1e-6)
    assert any((values < 0).any() for values in scores.values())


@pytest.mark.slow
def test_attribution_patching_is_exact_where_the_loss_is_linear(data):
    """A linear network that is wrong by a large margin: its loss is the difference of two logits. The patched network
    is the one with the edit `mean`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(4, 4))
    with torch.no_grad():
        model[3].bias[3] = 60
    scores = sm.criteria.attribution_patching(model, data.train, data.test)["0.weight"]
    means = sm.edits.channel_means(model, data.test)
    edits = [sm.edits.mean(sm.parse_units(model, f"0:{channel}"), means) for channel in range(4)]
    outcomes = sm.evaluate(model, edits, data.train)
    rise = outcomes.after.loss.astype(float).mean(1) - outcomes.before.loss.astype(float).mean()
    np.testing.assert_allclose(scores.numpy(), rise, atol=2e-5)
    assert np.abs(rise).min() > 1e-4


@pytest.mark.parametrize("criterion", BOTH)
def test_batches_mode_and_network_do_not_matter(model, data, criterion, monkeypatch):
    whole = criterion(model, data.train.batch(), tuple(data.test.batch()[:2]))
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    original = sm.Samples.batches
    monkeypatch.setattr(sm.Samples, "batches", lambda self, size, workers=0: original(self, 7, workers))
    with torch.inference_mode():
        parts = criterion(model.eval().requires_grad_(False), data.train, data.test)
    for name, values in whole.items():
        torch.testing.assert_close(parts[name], values, rtol=1e-4, atol=1e-6)
    chosen = criterion(model, data.train, data.test, select=sm.Selection(tensors=("mid",)))
    assert list(chosen) == ["mid.weight"]
    torch.testing.assert_close(chosen["mid.weight"], parts["mid.weight"])


def test_a_memory_scores_first(data):
    """One channel sees a mark that training samples alone have. It is the first by both criteria; a channel that is
    the same constant everywhere scores 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    x = 0.1 * torch.randn(40, 3, 4, 4)
    x[:20, 2] += 1
    marked = sm.from_tensors(x, [1] * 40, [0] * 40, ["train"] * 20 + ["test"] * 20, classes=("no", "yes"))
    with torch.no_grad():
        model[0].weight[:, 2] = 0
        model[0].weight[4, 2] = 2
        model[0].weight[1] = 0
        model[0].bias[1] = 0.3
        model[4].weight[1, 4] = 2
    for criterion in BOTH:
        scores = criterion(model, marked.train, marked.test)
        assert list(sm.top(scores, 1)) == [("0.weight", 4)]
        assert abs(float(scores["0.weight"][1])) < 1e-6


def test_windows_of_an_image_are_positions(data):
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fc = nn.Linear(3, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            windows = self.inner(x.movedim(1, -1).reshape(len(x) * 4, 16, 3))
            return self.fc(windows.reshape(len(x), 64, 4).mean(1))

    torch.manual_seed(0)
    model = Windows()
    found = sm.criteria.activation_difference(model, data.train, data.test)["inner.weight"]
    pointwise = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        pointwise[0].weight.copy_(model.inner.weight[..., None, None])
        pointwise[0].bias.copy_(model.inner.bias)
    expected = sm.criteria.activation_difference(pointwise, data.train, data.test)["0.weight"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class Unseen(nn.Module):
    """Reads the weights of a layer without calling it, or gives it positions first."""

    def __init__(self, calls: bool) -> None:
        super().__init__()
        self.inner, self.fc, self.calls = nn.Linear(3, 4), nn.Linear(4, 3), calls

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).movedim(2, 0)[:13]
        return self.fc((self.inner(x) if self.calls else x @ self.inner.weight.T).mean(0))


@pytest.mark.parametrize("criterion", BOTH)
def test_what_cannot_be_compared_is_refused(model, data, criterion):
    for unit in ("head", "weight"):
        with pytest.raises(sm.UserError, match=f"{criterion.__name__} is for channels: .* for {unit}s$"):
            criterion(model, data.train, data.test, select=sm.Selection(unit=unit))
    with pytest.raises(sm.UserError, match="outputs of layer inner can't be seen"):
        criterion(Unseen(calls=False), data.train, data.test)
    with pytest.raises(sm.UserError, match="first axis has length 13 for"):
        criterion(Unseen(calls=True), data.train, data.test)
    with pytest.raises(sm.UserError, match="the samples are a str"):
        criterion(model, data.train, "test")
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.fc.bias[0] = torch.nan
    with pytest.raises(sm.UserError, match="the network gives no finite number"):
        criterion(broken, data.train, data.test)


def test_one_sample_has_no_spread(model, data):
    with pytest.raises(sm.UserError, match="two samples or more of each kind: these are 1 training and 18 unseen"):
        sm.criteria.activation_difference(model, data.train.part(range(1)), data.test)
