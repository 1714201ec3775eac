"""Training: what a run holds afterwards, recipes, seeds and trackers."""

from __future__ import annotations

import importlib.machinery
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from fairlearn.metrics import MetricFrame, count
from pydantic import ValidationError
from sklearn.metrics import accuracy_score

import spurious_memorization as sm
from spurious_memorization.cli import main
from spurious_memorization.training.gradient_steps import GradientSteps
from spurious_memorization.training.recipes import expanded
from spurious_memorization.training.trackers import open_tracker

Capture = pytest.CaptureFixture[str]


def train(folder: Path, out: Path, **changes: Any) -> sm.Run:
    execution = changes.pop("execution", None)
    return sm.train(folder, out, sm.TrainSettings(**{**tiny.QUICK, **changes}), execution=execution)


def test_history_is_what_the_stored_predictions_say(trained: sm.Run, squares: Path) -> None:
    data = sm.read_data(squares)
    history = trained.history()
    assert list(history.columns) == ["epoch", "split", "group", "n", "correct", "loss"]
    assert len(history) == 4 * 3 * 4
    for epoch in range(4):
        for split in ("train", "val", "test"):
            samples = data.samples(split)
            predictions = trained.predictions(epoch, split)
            assert list(predictions.columns) == ["class 0", "class 1"]
            assert predictions.index.tolist() == samples.index.tolist()
            probabilities = predictions.to_numpy()
            np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
            answers = probabilities.argmax(1)
            frame = MetricFrame(
                metrics={"n": count, "accuracy": accuracy_score},
                y_true=samples.y,
                y_pred=answers,
                sensitive_features=samples.g,
            ).by_group
            rows = history[(history["epoch"] == epoch) & (history["split"] == split)].set_index("group")
            assert rows["n"].to_dict() == frame["n"].astype(int).to_dict()
            np.testing.assert_allclose(rows["correct"] / rows["n"], frame["accuracy"])
            losses = -np.log(probabilities[np.arange(len(answers)), samples.y])
            for group in range(4):
                assert rows["loss"][group] == pytest.approx(losses[samples.g == group].sum(), rel=1e-4)


def test_stored_predictions_are_those_of_the_stored_network(trained: sm.Run, squares: Path) -> None:
    samples = sm.read_data(squares).test
    with torch.no_grad():
        logits = trained.network(2)(samples.batch().inputs)
    np.testing.assert_allclose(trained.predictions(2, "test"), logits.softmax(1), atol=1e-5)
    with pytest.raises(sm.UserError, match="no predictions of epoch 9"):
        trained.predictions(9, "test")


def test_training_learns(trained: sm.Run) -> None:
    history = trained.history().query("split == 'train'").groupby("epoch")[["loss", "n"]].sum()
    means = history["loss"] / history["n"]
    assert means[3] < means[0]


def test_a_checkpoint_every_second_epoch_and_the_last(squares: Path, tmp_path: Path) -> None:
    run = train(squares, tmp_path / "run", checkpoint_every=2)
    assert run.epochs() == [0, 2, 3]
    assert sorted(run.history()["epoch"].unique()) == [0, 1, 2, 3]
    assert run.choose_epoch("last") == 3
    with pytest.raises(sm.UserError, match="it has 0, 2, 3"):
        run.choose_epoch(1)


def history_of(rows: list[tuple[int, int, int, int, float]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["epoch", "group", "n", "correct", "loss"])
    return frame.assign(split="val")


@pytest.mark.parametrize(
    ("rule", "best"),
    [("worst_group_accuracy", 1), ("average", 2), ("average_group_balanced", 3), ("loss", 4)],
)
def test_best_epoch_by_each_rule(rule: Any, best: int) -> None:
    history = history_of(
        [
            (0, 0, 100, 50, 90.0),
            (0, 1, 10, 5, 9.0),
            (1, 0, 100, 70, 80.0),  # groups 0.70, 0.70; average 0.70
            (1, 1, 10, 7, 8.0),
            (2, 0, 100, 99, 70.0),  # groups 0.99, 0.40; average 0.94
            (2, 1, 10, 4, 7.0),
            (3, 0, 100, 65, 60.0),  # groups 0.65, 1.00; average 0.68
            (3, 1, 10, 10, 6.0),
            (4, 0, 100, 60, 10.0),
            (4, 1, 10, 5, 1.0),
            (5, 0, 100, 70, 80.0),  # as epoch 1: the earlier one wins
            (5, 1, 10, 7, 8.0),
        ]
    )
    from spurious_memorization.runs.epochs import best_epoch

    assert best_epoch(history, rule, [0, 1, 2, 3, 4, 5]).epoch == best
    assert best_epoch(history, rule, [5]).epoch == 5
    equal = pd.concat([history, history.query("epoch == @best").assign(epoch=9)])
    found = best_epoch(equal.sample(frac=1, random_state=0), rule, [0, 1, 2, 3, 4, 9])
    assert (found.epoch, found.tied) == (best, (best, 9))
    assert str(found.tie).startswith(f"epochs {best}, 9 tie at ")
    with pytest.raises(sm.UserError, match="no epoch was measured on the val split"):
        best_epoch(history.assign(split="test"), rule, [0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "plateau", "cosine"])
def test_every_optimizer_with_every_schedule(optimizer: str, schedule: str, squares: Path, tmp_path: Path) -> None:
    changes = {"optimizer": optimizer, "schedule": schedule, "epochs": 2, "batch_size": 20, "plateau_patience": 0}
    run = train(squares, tmp_path / "run", weight_decay=0.01, momentum=0.9, lr=1e-4, **changes)
    before, after = run.state(0), run.state(2)
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    if schedule == "cosine":  # the rate is halved in the second of two epochs
        constant = train(
            squares,
            tmp_path / "constant",
            weight_decay=0.01,
            momentum=0.9,
            lr=1e-4,
            **{**changes, "schedule": "constant"},
        )
        assert torch.equal(constant.state(1)["fc.weight"], run.state(1)["fc.weight"])
        assert not torch.equal(constant.state(2)["fc.weight"], run.state(2)["fc.weight"])


def test_plateau_halves_the_rate_when_the_loss_rests() -> None:
    from spurious_memorization.training.optimizers import build_optimizer, build_schedule

    config = sm.TrainSettings(schedule="plateau", plateau_patience=1, lr=0.4)
    optimizer = build_optimizer(config, torch.nn.Linear(2, 2))
    schedule = build_schedule(config, optimizer)
    rates = []
    for loss in (1.0, 1.0, 1.0, 1.0, 0.5):
        schedule.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.4, 0.4, 0.2, 0.2, 0.2]


def test_bf16(squares: Path, tmp_path: Path) -> None:
    run = train(squares, tmp_path / "run", precision="bf16", epochs=1)
    plain = train(squares, tmp_path / "plain", epochs=1)
    assert all(value.dtype != torch.bfloat16 for value in run.state(1).values())
    assert torch.equal(run.state(0)["conv1.weight"], plain.state(0)["conv1.weight"])
    assert not torch.equal(run.state(1)["conv1.weight"], plain.state(1)["conv1.weight"])
    np.testing.assert_allclose(run.predictions(0, "val"), plain.predictions(0, "val"), atol=0.02)
    assert not np.allclose(run.predictions(0, "val"), plain.predictions(0, "val"), atol=1e-6)


def recipe(layout: str, **recorded: Any) -> sm.TrainSettings:
    return expanded(sm.TrainSettings(**recorded), SimpleNamespace(name=layout, layout=layout, source=None))  # type: ignore[arg-type]


def test_the_papers_recipes() -> None:
    readme = recipe("waterbirds", recipe="paper-readme", model="resnet50")
    assert (readme.weights, readme.epochs, readme.norm_eps) == ("timm", 40, None)
    assert recipe("celeba", recipe="paper-readme", model="resnet50").epochs == 20
    script = recipe("waterbirds", recipe="paper-script", model="resnet50")
    assert (script.weights, script.epochs, script.optimizer, script.lr) == ("none", 101, "adam", 5e-6)
    assert (script.weight_decay, script.batch_size, script.schedule, script.plateau_patience) == (0, 256, "plateau", 3)
    assert (script.loss, script.augment) == ("cross_entropy_on_probabilities", True)
    deit = recipe("waterbirds", recipe="paper-script", model="deit_tiny")
    assert (deit.weights, deit.norm_eps) == ("timm", 1e-5)


def test_the_standard_recipe_follows_the_layout() -> None:
    waterbirds, celeba, own = (recipe(layout, model="resnet50") for layout in ("waterbirds", "celeba", "table"))
    assert (waterbirds.epochs, waterbirds.lr, waterbirds.optimizer, waterbirds.weights) == (300, 1e-3, "sgd", "timm")
    assert (celeba.epochs, celeba.lr, celeba.momentum, celeba.batch_size) == (50, 1e-4, 0.9, 128)
    assert own == sm.TrainSettings(model="resnet50")


def test_what_is_stated_wins_over_the_recipe() -> None:
    recorded = recipe("celeba", recipe="paper-script", lr=0.3, epochs=2, weights="none", batch_size=64)
    assert (recorded.lr, recorded.epochs, recorded.weights, recorded.batch_size) == (0.3, 2, "none", 64)
    assert recorded.optimizer == "adam"
    assert recipe("celeba", **{"from": "run"}).weights == "none"


def test_the_expanded_settings_are_stored(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    said = tiny.spurmem(
        capsys, "train", squares, "--model", tiny.NETWORK, "--recipe", "paper-script", "--epochs", 0, "--out",
        tmp_path / "run", "--json"
    )  # fmt: skip
    assert said.status == 0
    assert json.loads(said.out)["runs"][0]["last"] == 0
    settings = sm.Run(tmp_path / "run").record.settings
    assert settings["lr"] == 5e-6
    assert settings["epochs"] == 0
    assert settings["loss"] == "cross_entropy_on_probabilities"
    assert settings["schedule"] == "plateau"


@pytest.mark.slow
def test_seeds(squares: Path, tmp_path: Path, capsys: Capture, trained: sm.Run) -> None:
    flags = ("--model", tiny.NETWORK, "--epochs", 3, "--batch-size", 8, "--lr", 0.01)
    said = tiny.spurmem(capsys, "train", squares, *flags, "--out", tmp_path, "--seeds", "0..1", "--json")
    assert [Path(run["run"]).name for run in json.loads(said.out)["runs"]] == ["seed_0", "seed_1"]
    first, second = sm.Run(tmp_path / "seed_0"), sm.Run(tmp_path / "seed_1")
    assert second.record.settings["seed"] == 1
    assert tiny.same_networks(first, trained)  # the same seed from Python: bitwise the same
    assert first.history().equals(trained.history())
    assert not torch.equal(first.state(0)["fc.weight"], second.state(0)["fc.weight"])
    assert "2..1" in tiny.spurmem(capsys, "train", squares, "--out", tmp_path / "x", "--seeds", "2..1").error


def test_from_another_run(squares: Path, tmp_path: Path, trained: sm.Run, capsys: Capture) -> None:
    said = tiny.spurmem(
        capsys, "train", squares, "--model", tiny.NETWORK, "--from", f"{trained.path}@2", "--epochs", 1,
        "--out", tmp_path / "run"
    )  # fmt: skip
    assert said.status == 0, said.err
    run = sm.Run(tmp_path / "run")
    assert all(torch.equal(value, trained.state(2)[name]) for name, value in run.state(0).items())
    assert not torch.equal(run.state(1)["fc.weight"], run.state(0)["fc.weight"])
    assert run.record.settings["start"] == f"{trained.path}@2"


@pytest.mark.parametrize("folder", ["plain", "me@home"])
def test_from_the_last_epoch_wherever_the_run_is(folder: str, squares: Path, tmp_path: Path, trained: sm.Run) -> None:
    older = tiny.copied(trained, tmp_path / folder / "older")
    for start, epoch in ((str(older.path), 3), (f"{older.path}@1", 1)):
        run = train(squares, tmp_path / f"run{epoch}", epochs=0, **{"from": start})
        assert torch.equal(run.state(0)["fc.weight"], trained.state(epoch)["fc.weight"])


def test_from_another_architecture(squares: Path, tmp_path: Path, trained: sm.Run) -> None:
    with pytest.raises(sm.UserError, match="another architecture"):
        train(squares, tmp_path / "run", model="tiny_networks:wider_convnet", **{"from": str(trained.path)})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_worker_processes_change_nothing(squares: Path, tmp_path: Path, trained: sm.Run) -> None:
    run = train(squares, tmp_path / "run", epochs=1, execution=sm.TrainExecution(workers=1, eval_batch_size=7))
    assert torch.equal(run.state(1)["conv2.weight"], trained.state(1)["conv2.weight"])


def test_without_augmentation(squares: Path, tmp_path: Path, trained: sm.Run) -> None:
    run = train(squares, tmp_path / "run", epochs=1, augment=False)
    assert torch.equal(run.state(0)["conv2.weight"], trained.state(0)["conv2.weight"])
    assert not torch.equal(run.state(1)["conv2.weight"], trained.state(1)["conv2.weight"])


@pytest.mark.slow
def test_tensorboard(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    said = tiny.spurmem(
        capsys, "train", squares, "--model", tiny.NETWORK, "--epochs", 2, "--log", "tensorboard", "--out",
        tmp_path / "run"
    )  # fmt: skip
    assert said.status == 0, said.err
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = next((tmp_path / "run").rglob("events.out.tfevents.*")).parent
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2]
    stored = sm.Run(tmp_path / "run").history().query("epoch == 2 and split == 'test' and group == 1").iloc[0]
    curve = events.Scalars("accuracy/test/class 0 with color 1")
    assert curve[-1].value == pytest.approx(stored["correct"] / stored["n"])


def test_a_tracker_that_is_not_there(
    squares: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    flags = ("--model", tiny.NETWORK, "--epochs", 1, "--out", tmp_path / "run")
    said = tiny.spurmem(capsys, "train", squares, *flags, "--log", "wandb")
    assert "tracker 'wandb' is not installed: pip install 'spurious-memorization[wandb]'" in said.error
    assert "nonsense" in tiny.spurmem(capsys, "train", squares, *flags, "--log", "nonsense").error
    assert tiny.spurmem(capsys, "train", squares, *flags).status == 0  # nothing stands in the way of another try


def test_wandb(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    run = SimpleNamespace(
        log=lambda values, step: calls.append((step, values)), finish=lambda exit_code: calls.append(exit_code)
    )
    spec = importlib.machinery.ModuleSpec("wandb", None)
    module = SimpleNamespace(init=lambda **named: calls.append(named) or run, __spec__=spec)
    monkeypatch.setitem(sys.modules, "wandb", module)
    train(squares, tmp_path / "run", epochs=2, execution=sm.TrainExecution(log="wandb"))
    start, *logged, end = calls
    assert (start["project"], start["config"]["epochs"], end) == ("spurmem", "2", 0)
    assert [step for step, _ in logged] == [1, 2]
    assert {"loss", "accuracy/test/class 0 with color 1"} <= set(logged[0][1])
    with pytest.raises(KeyboardInterrupt), open_tracker("wandb", tmp_path, {}):
        raise KeyboardInterrupt
    assert calls[-1] == 255


@pytest.mark.slow
def test_mlflow(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracked").as_uri())
    data = tmp_path / "data"
    shutil.copytree(squares, data)
    template = "{label}, {attribute} / (odd)//"
    (data / "dataset.yaml").write_text(f"image_size: 16\ngroup_name: '{template}'\n")
    run = train(data, tmp_path / "run", epochs=2, execution=sm.TrainExecution(log="mlflow"))
    client = mlflow.MlflowClient()
    (tracked,) = client.search_runs([client.get_experiment_by_name("spurmem").experiment_id])
    assert (tracked.info.run_name, tracked.info.status, tracked.data.params["epochs"]) == ("run", "FINISHED", "2")
    assert [metric.step for metric in client.get_metric_history(tracked.info.run_id, "loss")] == [1, 2]
    stored = run.history().query("epoch == 2 and split == 'test' and group == 1").iloc[0]
    name = next(name for name in tracked.data.metrics if name.startswith("accuracy/test/0_ 1 / _odd_"))
    assert tracked.data.metrics[name] == pytest.approx(stored["correct"] / stored["n"])


@pytest.mark.parametrize(("error", "status"), [(sm.UserError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_mlflow_knows_how_a_training_ended(
    error: type[BaseException], status: str, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracked").as_uri())

    def stopped(*given: Any) -> Any:
        raise error("stopped")

    monkeypatch.setattr(GradientSteps, "step", stopped)
    with pytest.raises(error):
        train(squares, tmp_path / "run", epochs=2, execution=sm.TrainExecution(log="mlflow"))
    client = mlflow.MlflowClient()
    (tracked,) = client.search_runs([client.get_experiment_by_name("spurmem").experiment_id])
    assert tracked.info.status == status


def test_mlflow_knows_that_the_system_ended_a_training(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracked").as_uri())
    monkeypatch.setattr(GradientSteps, "step", lambda *given: os.kill(os.getpid(), signal.SIGTERM))
    flags = [*tiny.train_flags(tmp_path / "run"), "--log=mlflow"]
    assert tiny.in_child(lambda: main(["train", str(squares), *flags])) == 130
    client = mlflow.MlflowClient()
    (tracked,) = client.search_runs([client.get_experiment_by_name("spurmem").experiment_id])
    assert tracked.info.status == "KILLED"


@pytest.mark.slow
def test_mlflow_without_a_place(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://somewhere")
    with pytest.raises(sm.UserError, match="set MLFLOW_TRACKING_URI to a server"):
        train(squares, tmp_path / "run", epochs=1, execution=sm.TrainExecution(log="mlflow"))


def test_a_loss_that_is_no_number(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    said = tiny.spurmem(
        capsys, "train", squares, "--model", tiny.NETWORK, "--optimizer", "sgd", "--lr", 1e30, "--epochs", 4,
        "--batch-size", 8, "--out", tmp_path / "run"
    )  # fmt: skip
    assert "the loss is no longer a number in epoch" in said.error
    assert sm.Run(tmp_path / "run").epochs()  # what was whole is kept


def test_settings_out_of_range_are_refused(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(ValidationError):
        sm.TrainSettings(lr=-1)
    said = tiny.spurmem(capsys, "train", squares, "--lr", -1, "--out", tmp_path / "run")
    assert "lr" in said.error
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_something_else_becomes_no_run(squares: Path, tmp_path: Path, capsys: Capture) -> None:
    data = Path(shutil.copytree(squares, tmp_path / "data"))
    before = tiny.contents(tmp_path)
    said = tiny.spurmem(capsys, "train", data, *tiny.train_flags(data))
    assert "data is not empty (it contains dataset.yaml): choose an empty or a new folder" in said.error
    assert tiny.contents(tmp_path) == before


@pytest.mark.parametrize(("n", "message"), [(1, "all 1 training samples"), (5, "have the label 'class 0'")])
def test_one_class_in_training(n: int, message: str, squares: Path, tmp_path: Path) -> None:
    tiny_data = tmp_path / "data"
    tiny_data.mkdir()
    for file in squares.iterdir():
        (tiny_data / file.name).symlink_to(file)
    table = pd.read_csv(squares / "metadata.csv")
    kept = pd.concat([table[(table["split"] == "train") & (table["y"] == 0)][:n], table[table["split"] != "train"]])
    (tiny_data / "metadata.csv").unlink()
    kept.to_csv(tiny_data / "metadata.csv", index=False)
    with pytest.raises(sm.UserError, match=message):
        train(tiny_data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_of_one_where_the_network_can_train_on_it(squares: Path, tmp_path: Path) -> None:
    assert train(squares, tmp_path / "run", batch_size=1, epochs=1).epochs() == [0, 1]
