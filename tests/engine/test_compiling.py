"""Compiled segments, and when compiling pays."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from engine_cases import some_edits, trained
from torch import Tensor

import spurious_memorization as sm
from spurious_memorization.engine.evaluate import compiled_where_it_pays, engine_for


@pytest.mark.slow
def test_without_a_compiler_segments_run_as_they_are(monkeypatch, capsys):
    net, samples = trained()

    def failing(*_args: object, **_options: object) -> Callable[[Tensor], Tensor]:
        def run(_x: Tensor) -> Tensor:
            raise RuntimeError("no compiler here\nat all")

        return run

    engine = engine_for(net, samples)
    rows = range(-1, 5)
    expected = engine.run(some_edits(net), rows, samples)
    monkeypatch.setattr(torch, "compile", failing)
    again = engine.compiled()
    said = capsys.readouterr().err.strip().splitlines()
    assert said == ["running without torch.compile, which fails here: no compiler here"]
    assert again.description == "shared prefix"
    given = again.run(some_edits(net), rows, samples)
    assert np.array_equal(given.loss, expected.loss)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_compiling_pays_in_bf16_alone_and_only_for_long_studies(precision, monkeypatch):
    net, samples = trained()
    engine = engine_for(net, samples, precision=precision)
    wanted = []
    monkeypatch.setattr(engine, "compiled", lambda: wanted.append(precision) or engine)
    for passes, how in ((1e3, None), (1e12, None), (1e12, False), (1e3, True)):
        compiled_where_it_pays(engine, passes, sm.Execution(compile=how))
    assert len(wanted) == {"float32": 1, "bf16": 2}[precision]


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_compiled_predicts_the_same():
    net, samples = trained()
    engine, edits = engine_for(net, samples), some_edits(net)[:12]
    again = engine.compiled()
    assert again.description == "shared prefix, compiled"
    expected, given = (e.run(edits, range(-1, 12), samples) for e in (engine, again))
    assert np.array_equal(given.predicted, expected.predicted)
    np.testing.assert_allclose(given.loss, expected.loss, rtol=1e-4, atol=1e-4)
