"""Training of the head alone, on the features of a frozen encoder."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import nn

import spurious_memorization as sm
from spurious_memorization.training import loop
from spurious_memorization.training.find_objective import objective_names

FROZEN: dict[str, Any] = {**tiny.QUICK, "freeze": "encoder", "optimizer": "sgd"}


@pytest.fixture(scope="module")
def start(trained: sm.Run) -> str:
    return f"{trained.path}@3"


@pytest.fixture(scope="module")
def frozen(squares: Path, start: str, tmp_path_factory: pytest.TempPathFactory) -> sm.Run:
    out = tmp_path_factory.mktemp("frozen") / "run"
    return sm.train(squares, out, sm.TrainSettings(**FROZEN, **{"from": start}))


def test_only_the_head_changes(frozen: sm.Run, trained: sm.Run) -> None:
    before, after = trained.state(3), frozen.state(3)
    assert before.keys() == after.keys()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    sizes = [frozen.checkpoint(epoch).stat().st_size for epoch in frozen.epochs()]
    assert max(sizes) < 1000 < frozen.encoder_file.stat().st_size


def test_stored_predictions_are_those_of_the_whole_network(frozen: sm.Run, squares: Path) -> None:
    samples = sm.read_data(squares).test
    with torch.no_grad():
        logits = frozen.network(2)(samples.batch().inputs)
    np.testing.assert_allclose(frozen.predictions(2, "test"), logits.softmax(1), atol=1e-5)


def test_it_is_a_linear_layer_trained_on_features(frozen: sm.Run, trained: sm.Run, squares: Path) -> None:
    data, network = sm.read_data(squares), copy.deepcopy(trained.network(3))
    head = network.fc
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
    for epoch in (1, 2, 3):
        order = data.train.shuffled(0, epoch).index
        for at in range(0, len(order), 8):
            batch = data.train.at(order[at : at + 8]).batch()
            with torch.no_grad():
                features = network[:-1](batch.inputs)
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(features), batch.y).backward()
            optimizer.step()
    torch.testing.assert_close(frozen.state(3)["fc.weight"], head.weight.detach(), atol=1e-5, rtol=1e-4)


def test_killed_and_resumed(frozen: sm.Run, squares: Path, start: str, tmp_path: Path) -> None:
    settings = sm.TrainSettings(**FROZEN, **{"from": start})

    def child() -> None:
        original = loop.store_checkpoint

        def last(run: sm.Run, progress: Any, *others: Any) -> None:
            original(run, progress, *others)
            if progress.epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        loop.store_checkpoint = last
        sm.train(squares, tmp_path / "run", settings)

    assert tiny.in_child(child) == -signal.SIGKILL
    run = sm.train(squares, tmp_path / "run", settings, resume=True)
    assert tiny.same_networks(run, frozen)


def test_a_lost_encoder_is_named(frozen: sm.Run, tmp_path: Path) -> None:
    run = tiny.copied(frozen, tmp_path / "run")
    run.encoder_file.unlink()
    with pytest.raises(sm.UserError, match=r"encoder\.safetensors"):
        run.network(3)


NEED_MORE_THAN_A_HEAD = ("pruned-contrast", "prune-critical", "example-tied-dropout", "dpe")


def test_early_heads_need_a_frozen_encoder(frozen: sm.Run, squares: Path, start: str, tmp_path: Path) -> None:
    settings = {**FROZEN, "objective": "self:early=1,n=4,lrs=0.1"}
    with pytest.raises(sm.UserError, match="whose encoder was trained: train it with --freeze encoder"):
        sm.train(squares, tmp_path / "a", sm.TrainSettings(**settings, **{"from": start}))
    run = sm.train(squares, tmp_path / "b", sm.TrainSettings(**settings, **{"from": f"{frozen.path}@3"}))
    assert not torch.equal(run.state(1)["fc.weight"], frozen.state(3)["fc.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(objective_names()) - {"jtt", "self"}))
def test_every_objective(name: str, squares: Path, start: str, tmp_path: Path) -> None:
    """An objective trains the head, or says in one line why it can't."""
    text = {"afr": "afr:fit_on=val", "dfr": "dfr:draws=2"}.get(name, name)
    settings = sm.TrainSettings(**{**FROZEN, "objective": text, "from": start})
    if name in NEED_MORE_THAN_A_HEAD:
        with pytest.raises(sm.UserError, match=f"^{name} does not train a linear head alone: leave out --freeze"):
            sm.train(squares, tmp_path / "run", settings)
        return
    run = sm.train(squares, tmp_path / "run", settings)
    first, last = run.state(0), run.state(run.epochs()[-1])
    assert {key for key, value in last.items() if not torch.equal(value, first[key])} <= {"fc.weight", "fc.bias"}


def test_errors_of_another_run(squares: Path, start: str, tmp_path: Path) -> None:
    settings = {**FROZEN, "objective": f"jtt:errors_of={start.partition('@')[0]}@1,upweight=3", "from": start}
    run = sm.train(squares, tmp_path / "run", sm.TrainSettings(**settings))
    errors = sm.Run(Path(start.partition("@")[0])).predictions(1, "train")
    n_wrong = int((errors.to_numpy().argmax(1) != sm.read_data(squares).y[errors.index]).sum())
    assert run.record.training_cost is not None
    assert run.record.training_cost.sample_passes == 3 * (40 + 2 * n_wrong)


@pytest.mark.slow
def test_mitigate_leaves_out_what_needs_more_than_a_head(squares: Path, tmp_path: Path) -> None:
    settings = sm.MitigateSettings(
        **{**FROZEN, "epochs": 1},
        finetune_epochs=1,
        seeds="0..0",
        objective=(*NEED_MORE_THAN_A_HEAD, "mixup"),
        jtt_epochs=(1,),
        jtt_upweights=(2,),
    )
    made = sm.mitigate(squares, tmp_path / "out", settings)
    assert list(made.runs) == ["erm", "mixup", "jtt"]
    for name in NEED_MORE_THAN_A_HEAD:
        assert any(note.startswith(f"{name} is left out: ") for note in made.notes)


def test_flags_and_a_note_about_random_weights(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = tiny.train_flags(tmp_path / "run", freeze="encoder", epochs=1)
    printed = tiny.spurmem(capsys, "train", squares, *flags)
    assert printed.status == 0, printed.err
    assert "note: the frozen encoder has random weights" in printed.err
    assert sm.Run(tmp_path / "run").record.settings["augment"] is False
    again = tiny.spurmem(capsys, "train", squares, *tiny.train_flags(tmp_path / "a", freeze="encoder"), "--augment")
    assert "computed once: leave out --augment" in again.error


def test_the_defaults_are_those_of_a_linear_layer(squares: Path, tmp_path: Path) -> None:
    settings = sm.TrainSettings(model=tiny.NETWORK, freeze="encoder", recipe="paper-script", weights="none", epochs=1)
    stored = sm.train(squares, tmp_path / "run", settings).record.settings
    assert (stored["lr"], stored["optimizer"], stored["batch_size"]) == (1e-3, "adam", 64)
