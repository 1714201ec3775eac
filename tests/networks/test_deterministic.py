"""Networks that do not answer each sample alike are refused with the reason."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.networks.forward import check_deterministic

TWICE = "the network answers differently when it is asked twice"
BATCH = "the answer for an image depends on the other images of its batch"


class Between(nn.Module):
    """A network with a step between two layers."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.conv, self.step, self.fc = nn.Conv2d(3, 8, 3), step, nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.step(self.conv(x)).relu().mean((2, 3)))


class Step(nn.Module):
    def __init__(self, how) -> None:
        super().__init__()
        self.how, self.calls = how, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.how(self, x)


class AlwaysTraining(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> nn.Module:
        return super().train(True)


class WholeImages(nn.Module):
    """Drops whole images at random, in training and in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1, 1, 1) > 0.3)


class AlwaysDropped(nn.Module):
    """Its dropout stays in training."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Dropout(0.5)

    def train(self, mode: bool = True) -> nn.Module:
        self.training = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


REFUSED = {
    "dropout": (lambda: Step(lambda _, x: F.dropout(x, 0.1)), TWICE),
    "noise": (lambda: Step(lambda _, x: x + 1e-3 * torch.randn_like(x)), TWICE),
    "whole images": (WholeImages, TWICE),
    "a counter": (lambda: Step(lambda step, x: x * step.calls), TWICE),
    "a layer in training": (AlwaysDropped, r"asked twice \(step.inner is in training mode even after eval\(\)\)"),
    "batch statistics": (lambda: nn.BatchNorm2d(8, track_running_stats=False), BATCH),
    "a batch norm in training": (
        lambda: AlwaysTraining(8),
        r"the other images of its batch \(step is in training mode even after eval\(\)\)",
    ),
    "the mean of the batch": (lambda: Step(lambda _, x: x - x.mean(0)), BATCH),
    "the largest of the batch": (lambda: Step(lambda _, x: x / x.abs().max().item()), BATCH),
    "the size of the batch": (lambda: Step(lambda _, x: x / len(x)), BATCH),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_does_not_answer_alike_is_refused(name):
    make, why = REFUSED[name]
    torch.manual_seed(0)
    net = Between(make())
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(sm.UserError, match=why):
        check_deterministic(net, torch.randn(3, 3, 8, 8))
    data = sm.from_tensors(torch.randn(8, 3, 8, 8), [0, 1] * 4, [0] * 8)
    with pytest.raises(sm.UserError, match=why):
        sm.evaluate(net, [sm.edits.zero(sm.parse_units(net, "conv:0"))], data.train)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    "step",
    [
        lambda: nn.Dropout(0.5),
        lambda: nn.BatchNorm2d(8),
        lambda: nn.InstanceNorm2d(8),
        lambda: Step(lambda _, x: x * float("nan")),
        lambda: Step(lambda _, x: x + 0 * torch.rand_like(x)),
        lambda: Step(lambda _, x: x.add_(0 * x.mean(0))),
    ],
    ids=["dropout", "batch norm", "instance norm", "no numbers", "unused noise", "unused batch"],
)
@pytest.mark.parametrize("n", [1, 3])
def test_a_network_that_answers_alike_is_not_refused(step, n):
    torch.manual_seed(0)
    check_deterministic(Between(step()), torch.randn(n, 3, 8, 8))


def test_inputs_by_name_are_checked():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.dropped = nn.Linear(6, 2), 0.0

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.fc(F.dropout(left * right, self.dropped))

    torch.manual_seed(0)
    net, x = Named(), {"left": torch.randn(3, 6), "right": torch.randn(3, 6)}
    check_deterministic(net, x)
    net.dropped = 0.5
    with pytest.raises(sm.UserError, match=TWICE):
        check_deterministic(net, x)
