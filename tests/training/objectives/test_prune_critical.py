"""prune-critical: what is pruned, by name, by study and by ablation, and its control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from tiny_training import begun, settings

import spurious_memorization as sm
from spurious_memorization.training.objectives.prune_critical import PruneCritical

Capture = pytest.CaptureFixture[str]


def pruned(run: sm.Run) -> dict[str, list[int]]:
    """The channels of each convolution that are zero after the first epoch and were not before."""
    before, after = run.state(0), run.state(1)
    found = {}
    for name, value in before.items():
        if value.ndim == 4:
            gone = (after[name] == 0).flatten(1).all(1) & (value != 0).flatten(1).any(1)
            if bool(gone.any()):
                found[name] = gone.nonzero().flatten().tolist()
    return found


def test_named_units_and_their_control(squares: Path, trained: sm.Run, tmp_path: Path) -> None:
    start = f"{trained.path}@3"
    run = sm.train(squares, tmp_path / "run", settings("prune-critical:units=conv1:2+conv2:0+conv2:5", start=start))
    assert pruned(run) == {"conv1.weight": [2], "conv2.weight": [0, 5]}
    assert not torch.equal(run.state(0)["fc.weight"], run.state(1)["fc.weight"])
    text = "prune-critical:units=conv1:2+conv2:0+conv2:5,random=true,refit=false"
    control = sm.train(squares, tmp_path / "control", settings(text, start=start))
    assert {name: len(units) for name, units in pruned(control).items()} == {"conv1.weight": 1, "conv2.weight": 2}
    assert pruned(control) != pruned(run)
    assert torch.equal(control.state(0)["fc.weight"], control.state(1)["fc.weight"])
    assert control.record.training_cost is not None
    assert control.record.training_cost.sample_passes == 0


def test_the_first_of_the_ablation_map(data: sm.Dataset, model: torch.nn.Module, trained: sm.Run) -> None:
    objective = begun("prune-critical:n=4", data, model, trained, start=str(trained.path))
    assert isinstance(objective, PruneCritical)
    minority = data.train.at(data.train.index[np.isin(data.train.g, data.minority)])
    drops = {}
    with torch.no_grad():
        batch = minority.batch()
        before = model.eval()(batch.inputs)
        for layer in ("conv1", "conv2"):
            for channel in range(len(model.get_submodule(layer).weight)):
                edited = sm.edits.edited(model, sm.edits.zero(sm.parse_units(model, f"{layer}:{channel}")))
                change = (before - edited.eval()(batch.inputs)).gather(1, batch.y[:, None])
                other = (before - edited(batch.inputs)).gather(1, 1 - batch.y[:, None])
                drops[f"{layer}.weight", channel] = float((change - other).mean())
    expected = sorted(drops, key=lambda unit: -drops[unit])[:4]
    assert set(objective.edit().units) == set(expected)


def test_the_units_of_a_study(squares: Path, trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    run = tiny.copied(trained, tmp_path / "start")
    folder = run.path / "studies" / "first"
    folder.mkdir(parents=True)
    rows = [("conv1:1", "memorizing"), ("conv1:1,conv2:3", "memorizing"), ("conv2:2", "critical"), (None, "none")]
    frame = pd.DataFrame(rows, columns=["units", "verdict"]).assign(unit="channel")
    frame.to_parquet(folder / "effects.parquet")
    made = sm.train(squares, tmp_path / "run", settings("prune-critical:study=first", start=f"{run.path}@3"))
    assert pruned(made) == {"conv1.weight": [1], "conv2.weight": [3]}

    def refused(option: str) -> str:
        flags = ("--model", tiny.NETWORK, "--from", run.path, "--out", tmp_path / "other")
        return tiny.spurmem(capsys, "train", squares, *flags, "--objective", f"prune-critical:{option}").error

    assert "give one of them" in refused("study=first,units=conv1:0")
    assert "effects.parquet does not exist: finish the study" in refused("study=second")
    frame.assign(verdict="critical").to_parquet(folder / "effects.parquet")
    assert "calls no set memorizing: leave study= out" in refused("study=first")
    assert "the network has no tensor 'conv9'" in refused("units=conv9:0")
    assert not (tmp_path / "other").exists()
