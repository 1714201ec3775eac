"""Outcomes in bf16 compared with those in float32."""

from __future__ import annotations

import numpy as np
import pytest
from engine_cases import some_edits, trained

import spurious_memorization as sm
from spurious_memorization.engine.plain import PlainEngine


@pytest.mark.slow
def test_bf16_predicts_as_float32():
    net, samples = trained()
    edits = some_edits(net)
    single, half = (sm.evaluate(net, edits, samples, precision=precision) for precision in ("float32", "bf16"))
    assert single.engine == half.engine == "shared prefix"
    assert (single.after.predicted == half.after.predicted).mean() >= 0.995
    assert not np.array_equal(single.after.loss, half.after.loss)
    assert (single.after.predicted != single.before.predicted).mean() > 0.01
    plain = PlainEngine(net).run(edits, range(len(edits)), samples)
    assert np.array_equal(single.after.predicted, plain.predicted)
