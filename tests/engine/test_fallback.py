"""Networks that torch.export cannot handle run by full forward passes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from engine_cases import run_both, samples_of, units
from engine_networks import Branching
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.engine.plain import PlainEngine
from spurious_memorization.engine.prefix.network import segmented
from spurious_memorization.engine.prefix.program import NotExportable

PLAIN = {
    "control flow": (lambda x: x if x.sum() > 0 else -x, r"plain: torch\.export can't trace it \(.+\)"),
    "a number": (lambda x: x / x.abs().max().item(), "plain: an intermediate value is a number and no tensor"),
    "size": (lambda x: x / (x.shape[0] / 2), "plain: an intermediate value is a number and no tensor"),
    "numpy": (lambda x: torch.from_numpy(x.detach().numpy() * 1), r"plain: torch\.export can't trace it \(.+\)"),
    "other when exported": (
        lambda x: 2 * x if torch.compiler.is_exporting() else x,
        "plain: the exported program gives other logits than the network itself",
    ),
    "batch": (lambda x: x - x.mean(0), "plain: the exported program gives other logits than the network itself"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_cannot_be_exported_runs_plainly(name):
    how, why = PLAIN[name]
    torch.manual_seed(9)
    net, x = Branching(how), torch.randn(12, 6)
    edits = [sm.edits.zero(units(net, "inner:3"))]
    result = sm.evaluate(net, edits, samples_of(x, 2))
    assert re.fullmatch(why, result.engine)
    plain = PlainEngine(net).run(edits, range(-1, 1), samples_of(x, 2))
    assert np.array_equal(np.concatenate([result.before.loss, result.after.loss]), plain.loss)


def test_inputs_by_name_run_plainly():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fc = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.fc(self.inner(left * right))

    torch.manual_seed(10)
    net, x = Named(), {"left": torch.randn(12, 6), "right": torch.randn(12, 6)}
    data = sm.from_tensors(x, [0, 1] * 6, [0] * 12)
    assert (
        sm.evaluate(net, [sm.edits.zero(units(net, "inner:3"))], data.train).engine
        == "plain: its input is no single tensor"
    )


@pytest.mark.parametrize(
    "how",
    [
        lambda x: x.softmax(1, dtype=torch.float32),
        lambda x: x + torch.ones(x.shape[0], 8),
        lambda x: x.double().float(),
    ],
)
def test_in_bf16_what_turns_to_float32_runs_plainly(how):
    torch.manual_seed(11)
    net, x = Branching(how), torch.randn(12, 6)
    assert run_both(net, [], x)[0] == "shared prefix"
    path, given, plain = run_both(net, [sm.edits.zero(units(net, "inner:3"))], x, "bf16")
    assert path.startswith("plain: an intermediate value must be float32 (")
    assert np.array_equal(given.loss, plain.loss)


def test_a_network_without_logits_cannot_be_exported():
    with pytest.raises(NotExportable, match=r"it doesn't give logits of shape \[samples, classes\]"):
        segmented(nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8), "float32")
