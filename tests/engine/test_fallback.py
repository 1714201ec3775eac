"""Networks that torch.export cannot handle run by full forward passes."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from engine_cases import assert_same_block, full_passes, run_both, samples_of, some_edits, trained, units
from engine_networks import Branching
from torch import Tensor, nn

import spurious_memorization as sm
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.engine.plain import PlainEngine
from spurious_memorization.engine.prefix import engine as prefix
from spurious_memorization.engine.prefix import export
from spurious_memorization.engine.prefix import network as construction
from spurious_memorization.engine.prefix.network import segmented
from spurious_memorization.engine.prefix.program import NotExportable
from spurious_memorization.errors import UserError

PLAIN = {
    "control flow": (lambda x: x if x.abs().sum() >= 0 else -x, r"plain: torch\.export can't trace it \(.+\)"),
    "a number": (lambda x: x + 1e-9 * x.abs().max().item(), "plain: an intermediate value is a number and no tensor"),
    "size": (lambda x: x + 1e-9 * (x.shape[0] / 2), "plain: an intermediate value is a number and no tensor"),
    "numpy": (lambda x: x * float(x.detach().numpy().size > 0), r"plain: torch\.export can't trace it \(.+\)"),
    "other when exported": (
        lambda x: 2 * x if torch.compiler.is_exporting() else x,
        "plain: the exported program gives other logits than the network itself",
    ),
}


@pytest.mark.slow
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


class WritesOverItsInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fc = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.inner(x.mul_(2)).relu())


def test_a_network_that_writes_over_its_inputs_sees_them_as_they_are_each_time():
    torch.manual_seed(14)
    net, x = WritesOverItsInputs(), torch.randn(12, 6)
    kept = x.clone()
    edits = [sm.edits.zero(units(net, f"inner:{i}")) for i in range(3)]
    path, given, _ = run_both(net, edits, x)
    assert path == "plain: it changes its inputs in evaluation"
    assert torch.equal(x, kept)
    expected = full_passes(net, edits, x.clone())
    assert_same_block(given, expected, torch.arange(12) % 2)


def failing_on_call(number: int, error: Exception, of: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, but one of its calls fails."""
    calls = itertools.count(1)

    def fails(*args: Any, **options: Any) -> Any:
        if next(calls) == number:
            raise error
        return of(*args, **options)

    return fails


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 5, 9])
def test_after_an_unexpected_error_the_rest_runs_plainly(call, monkeypatch, capsys):
    net, samples = trained()
    edits, rows = some_edits(net), range(-1, 60)
    expected = PlainEngine(net).run(edits, rows, samples)
    engine = engine_for(net, samples, execution=sm.Execution(eval_batch_size=100))
    assert engine.description == "shared prefix"
    broken = failing_on_call(call, KeyError("lost"), prefix.segment_values)
    monkeypatch.setattr(prefix, "segment_values", broken)
    halves = [engine.run(edits, rows, samples.part(part)) for part in (range(120), range(120, 240))]
    assert engine.description == "plain: the prefix engine failed (KeyError: 'lost')"
    said = capsys.readouterr().err.splitlines()
    assert said == ["the prefix engine failed (KeyError: 'lost'): going on with full forward passes"]
    predicted = np.concatenate([half.predicted for half in halves], 1)
    clear = np.abs(expected.margin) > 1e-4
    assert np.array_equal(predicted[clear], expected.predicted[clear])
    assert clear.mean() > 0.99
    losses = np.concatenate([half.loss for half in halves], 1)
    np.testing.assert_allclose(losses, expected.loss, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_what_runs_plainly_after_an_error_is_the_network_of_the_start(monkeypatch):
    net, samples = trained()
    net, edits, rows = copy.deepcopy(net), some_edits(net)[:3], range(-1, 3)
    expected = PlainEngine(net).run(edits, rows, samples)
    engine = engine_for(net, samples)
    with torch.no_grad():
        net.fc.weight.zero_()
    monkeypatch.setattr(prefix, "segment_values", failing_on_call(1, KeyError("lost"), prefix.segment_values))
    assert np.array_equal(engine.run(edits, rows, samples).loss, expected.loss)


@pytest.mark.parametrize(("module", "name"), [(construction, "cut"), (export, "fold_batch_norms")])
def test_after_an_unexpected_error_at_the_start_all_runs_plainly(module, name, monkeypatch, capsys):
    net, samples = trained()
    edits = some_edits(net)[:5]
    monkeypatch.setattr(module, name, failing_on_call(1, RuntimeError("odd\nand long"), None))
    result = sm.evaluate(net, edits, samples)
    assert result.engine == "plain: the prefix engine failed (RuntimeError: odd)"
    assert capsys.readouterr().err.count("the prefix engine failed (RuntimeError: odd)") == 1
    assert np.array_equal(result.after.loss, PlainEngine(net).run(edits, range(5), samples).loss)


def test_wrong_logits_of_the_kernels_are_noticed_at_the_start(monkeypatch):
    net, samples = trained()
    monkeypatch.setattr(construction, "fused_module", lambda _module, **_how: nn.Identity())
    wrong = "plain: the exported program gives other logits than the network itself"
    assert engine_for(net, samples).description == wrong


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("full"), UserError("yours")])
def test_errors_of_the_user_and_of_memory_are_no_reason_to_go_on(error, monkeypatch, capsys):
    net, samples = trained()
    engine = engine_for(net, samples)
    monkeypatch.setattr(prefix, "segment_values", failing_on_call(1, error, prefix.segment_values))
    what = (
        "yours" if isinstance(error, UserError) else r"no memory is left .+: use smaller batches \(--eval-batch-size\)"
    )
    with pytest.raises(UserError, match=what):
        engine.run(some_edits(net), range(-1, 60), samples)
    assert engine.description == "shared prefix"
    assert capsys.readouterr().err == ""


@pytest.mark.slow
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
