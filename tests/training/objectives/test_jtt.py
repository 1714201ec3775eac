"""jtt: which samples it upweights, and its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from tiny_training import begun

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]


def test_jtt_upweights_the_errors_of_the_stored_predictions(data: sm.Dataset, trained: sm.Run) -> None:
    objective = begun(f"jtt:errors_of={trained.path}@1,upweight=4", data, trained.network(1), trained)
    with torch.no_grad():
        answers = trained.network(1)(data.train.batch().inputs).argmax(1).numpy()
    wrong = data.train.index[answers != data.train.y]
    assert 0 < len(wrong) < len(data.train)
    counts = pd.Series(objective.samples(1).index).value_counts()
    assert {i: counts[i] for i in data.train.index} == {i: 4 if i in wrong else 1 for i in data.train.index}
    assert objective.samples(1).index.tolist() != objective.samples(2).index.tolist()
    assert objective.passes(1) == len(data.train) + 3 * len(wrong)


def test_jtt_without_errors_or_with_those_on_other_data(
    data: sm.Dataset, trained: sm.Run, tmp_path: Path, squares: Path, capsys: Capture
) -> None:
    perfect = tiny.copied(trained, tmp_path / "perfect")
    sure = np.eye(2, dtype=np.float32)[data.train.y]
    perfect.save_predictions(1, "train", data.train.index, sure)
    flags = ("--model", tiny.NETWORK, "--out", tmp_path / "run", "--objective")
    said = tiny.spurmem(capsys, "train", squares, *flags, f"jtt:errors_of={perfect.path}@1")
    assert "makes no error on the training samples in epoch 1" in said.error
    other = tiny.make_images(tmp_path / "other", train=10)
    said = tiny.spurmem(capsys, "train", other, *flags, f"jtt:errors_of={trained.path}@1")
    assert "was made with other data" in said.error
    assert not (tmp_path / "run").exists()
