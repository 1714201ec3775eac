"""The halves of val, and the epoch that one of them selects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from statsmodels.stats.proportion import proportion_confint

import spurious_memorization as sm

Capture = pytest.CaptureFixture[str]


def test_the_halves_of_val(data: sm.Dataset) -> None:
    fitting, selecting = sm.val_halves(data)
    assert sorted([*fitting.index, *selecting.index]) == data.val.index.tolist()
    assert np.bincount(fitting.g).tolist() == [1, 1, 1, 1]  # of three a group
    assert np.bincount(selecting.g).tolist() == [2, 2, 2, 2]
    assert sm.val_halves(data)[0].index.tolist() == fitting.index.tolist()


def test_the_selected_epoch_is_the_best_on_these_samples(trained: sm.Run, data: sm.Dataset) -> None:
    _, selecting = sm.val_halves(data)
    worst, average = {}, {}
    for epoch in (1, 2, 3):  # epoch 0 has a random head
        right = trained.predictions(epoch, "val").loc[selecting.index].to_numpy().argmax(1) == selecting.y
        worst[epoch] = min(right[selecting.g == group].mean() for group in range(4))
        average[epoch] = right.mean()
    assert sm.selected_epoch(trained, selecting, "worst_group_accuracy") == max(worst, key=lambda e: worst[e])
    assert sm.selected_epoch(trained, selecting, "average") == max(average, key=lambda e: average[e])
    bound, of_class = {}, {}
    for epoch in (1, 2, 3):
        right = trained.predictions(epoch, "val").loc[selecting.index].to_numpy().argmax(1) == selecting.y
        groups = [right[selecting.g == group] for group in range(4)]
        bound[epoch] = min(proportion_confint(sum(group), len(group), method="wilson")[0] for group in groups)
        of_class[epoch] = min(right[selecting.y == label].mean() for label in range(2))
    assert sm.selected_epoch(trained, selecting, "worst_group_bound") == max(bound, key=lambda e: bound[e])
    assert sm.selected_epoch(trained, selecting, "worst_class_accuracy") == max(of_class, key=lambda e: of_class[e])
    with pytest.raises(sm.UserError, match="other samples"):
        sm.selected_epoch(trained, data.val.at([10_000]), "average")


def with_history(run: sm.Run, place: Path, correct: tuple[int, ...]) -> sm.Run:
    """A copy of a run with one group in val, and this many correct answers of 10 in epochs 0, 1, ..."""
    copy = tiny.copied(run, place)
    rows = [(epoch, "val", 0, 10, right, 1.0) for epoch, right in enumerate(correct)]
    copy.save_history(pd.DataFrame(rows, columns=["epoch", "split", "group", "n", "correct", "loss"]))
    return copy


@pytest.fixture(scope="module")
def wide_head(trained: sm.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with a head for three classes."""
    state = trained.state(3)
    file = tmp_path_factory.mktemp("weights") / "three.pth"
    torch.save({**state, "fc.weight": torch.zeros(3, 12), "fc.bias": torch.zeros(3)}, file)
    return file


@pytest.mark.parametrize(
    ("options", "best"),
    [
        ({}, 1),
        ({"start": "{trained}@3"}, 0),
        ({"start": "{trained}@0"}, 1),
        ({"weights": "{trained}/checkpoints/epoch_003.safetensors"}, 0),
        ({"weights": "{wide}"}, 1),
    ],
    ids=["random weights", "from a run", "from a run's random start", "from a file", "from a file with another head"],
)
def test_epoch_0_can_be_the_best_only_if_its_head_is_trained(
    options: dict[str, str], best: int, trained: sm.Run, wide_head: Path, squares: Path, tmp_path: Path
) -> None:
    given = {name: value.format(trained=trained.path, wide=wide_head) for name, value in options.items()}
    settings = sm.TrainSettings(**{**tiny.QUICK, "epochs": 2, **given})
    run = sm.train(squares, tmp_path / "run", settings)
    assert with_history(run, tmp_path / "luck", (9, 8, 7)).choose_epoch("best") == best
    resumed = sm.train(squares, run.path, settings, resume=True)
    assert resumed.record.trained_start == (best == 0)


def test_a_run_that_has_only_epoch_0(squares: Path, tmp_path: Path) -> None:
    run = sm.train(squares, tmp_path / "run", sm.TrainSettings(**{**tiny.QUICK, "epochs": 0}))
    assert run.choose_epoch("best") == 0


def test_every_imported_epoch_can_be_the_best(trained: sm.Run, squares: Path, tmp_path: Path) -> None:
    files = tuple(trained.checkpoint(epoch) for epoch in (2, 3))
    settings = sm.ImportSettings(model=tiny.NETWORK, weights=files, epochs=(0, 1))
    run = sm.import_network(squares, tmp_path / "run", settings)
    assert with_history(run, tmp_path / "luck", (9, 8)).choose_epoch("best") == 0


def test_a_tie_is_printed(trained: sm.Run, tmp_path: Path, capsys: Capture) -> None:
    run = with_history(trained, tmp_path / "tie", (9, 5, 8, 8))
    assert run.choose_epoch("best") == 2
    assert "epochs 2, 3 tie at 80.0% by worst group accuracy on val: the earliest is taken" in capsys.readouterr().err
    one = with_history(trained, tmp_path / "clear", (9, 5, 8, 7))
    assert one.choose_epoch("best") == 2
    assert "tie" not in capsys.readouterr().err


def test_comparisons_say_ties_and_leave_a_random_start_out(trained: sm.Run, tmp_path: Path) -> None:
    run = tiny.copied(trained, tmp_path / "same")
    frame = trained.predictions(3, "val")
    for epoch in range(4):
        run.save_predictions(epoch, "val", frame.index.to_numpy(), frame.to_numpy())
    found = sm.compare([run])
    assert found.runs[["epoch_by_worst_group_accuracy", "epoch_by_average"]].to_numpy().tolist() == [[1, 1]]
    ties = [note for note in found.notes if note.startswith(f"{run.path}: epochs 1, 2, 3 tie at ")]
    assert len(ties) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "best"), [("worst_group_accuracy", 1), ("worst_group_bound", 2), ("worst_class_accuracy", 3)]
)
def test_a_rule_for_scarce_minorities(rule: str, best: int, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    """Three of four right say less than 65 of 100. A class hides what its small group loses."""
    flags = tiny.train_flags(tmp_path / "run", epochs=3, best_by=rule)
    said = tiny.spurmem(capsys, "train", squares, *flags)
    assert said.status == 0, said.err
    assert f"best epoch by {rule.replace('_', ' ')} on val: " in said.out
    n, correct = (4, 100, 100, 100), {1: (3, 70, 70, 70), 2: (4, 65, 65, 65), 3: (1, 95, 80, 80)}
    rows = [(epoch, "val", g, n[g], right[g], 1.0) for epoch, right in correct.items() for g in range(4)]
    run = sm.Run(tmp_path / "run")
    run.save_history(pd.DataFrame(rows, columns=["epoch", "split", "group", "n", "correct", "loss"]))
    assert run.choose_epoch("best") == best
