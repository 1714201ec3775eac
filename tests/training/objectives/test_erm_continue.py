"""erm-continue is pruned-contrast without its contrast."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from tiny_training import settings

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_the_control_is_pruned_contrast_without_its_contrast(trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    start = {"from": f"{trained.path}@2", "epochs": 2}
    control = sm.train(squares, tmp_path / "control", settings("erm-continue", **start))
    without = settings("pruned-contrast:contrast_weight=0,mask=none", **start)
    assert tiny.same_networks(control, sm.train(squares, tmp_path / "without", without))
    assert control.record.training_cost is not None
    assert (control.record.training_cost.sample_passes, control.record.training_cost.sample_passes_before) == (80, 80)
    assert control.record.start is not None
    assert (control.record.start.run, control.record.start.epoch) == (str(trained.path), 2)


def test_seeds_start_from_the_runs_of_the_same_seeds(
    squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture
) -> None:
    for seed in (0, 1):
        tiny.copied(trained, tmp_path / "erm" / f"seed_{seed}")
    said = tiny.spurmem(
        capsys, "train", squares, "--model", tiny.NETWORK, "--objective", "erm-continue", "--from",
        f"{tmp_path}/erm@1", "--seeds", "0..1", "--epochs", 1, "--out", tmp_path / "more"
    )  # fmt: skip
    assert said.status == 0, said.err
    for seed in (0, 1):
        record = sm.Run(tmp_path / "more" / f"seed_{seed}").record
        assert record.start is not None
        assert record.start.run == f"{tmp_path}/erm/seed_{seed}"
        assert record.settings["objective"] == {"name": "erm-continue", "cross_entropy_weight": 0.2}
