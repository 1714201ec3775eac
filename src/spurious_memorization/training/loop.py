"""The training loop: optimizer, epochs, checkpoints, in this order."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from ..console import log
from ..networks.forward import choose_device, repeatable_gradients
from ..runs.evaluate import evaluate_epoch
from ..runs.records import TrainingCost
from ..runs.run import Run
from ..stored_files import reading
from ..together import check_same, is_first, take_from_first, wait_for_all
from .checkpoint import REMEDY, Checkpoint, Progress, restore_optimizer, store_checkpoint
from .gradient_steps import GradientSteps
from .objective import Objective, Training, build_objective
from .optimizers import build_optimizer, build_schedule
from .trackers import open_tracker


@repeatable_gradients()
def train_epochs(training: Training, objective: Objective[Any], checkpoint: Checkpoint | None) -> None:
    """Train a network for the epochs that its run lacks. Every epoch is stored at its end, by the first process.

    Arguments:
        training: run, settings, data, network.
        objective: what the training minimizes.
        checkpoint: of a training that was stopped; its network is already restored.
    """
    run, config, model, execution = training.run, training.config, training.model, training.execution
    steps = _gradient_steps(training)
    take_from_first(model)
    if checkpoint is not None:
        with reading(run.trainer_file, REMEDY):
            objective.load_state(checkpoint.progress.objective)
        if checkpoint.progress.epoch < config.epochs:
            restore_optimizer(run, checkpoint, steps.optimizer, steps.schedule)

    def finish(epoch: int, passes: int, seconds: float) -> Progress:
        _store_epoch(run, epoch, objective.deployed(), training)
        if execution.keep_pruned and epoch and (pruned := objective.pruned()) is not None:
            _store_epoch(pruned_run(run), epoch, pruned, training)
        progress = Progress(epoch=epoch, passes=passes, seconds=seconds, objective=objective.state())
        if is_first():
            store_checkpoint(run, progress, model, steps.optimizer, steps.schedule)
        return progress

    done = finish(0, 0, 0.0) if checkpoint is None else checkpoint.progress
    _store_cost(run, done)
    first, started = done.epoch + 1, time.monotonic()
    with open_tracker(execution.log if is_first() else None, run.path, config.model_dump()) as track:
        for epoch in range(first, config.epochs + 1):
            began = time.monotonic()
            objective.begin_epoch(epoch)
            loss = objective.run_epoch(epoch, steps)
            check_same(model)
            trained = time.monotonic() - began
            done = finish(epoch, done.passes + objective.passes(epoch), done.seconds + trained)
            _store_cost(run, done)
            if is_first():
                track(({} if loss is None else {"loss": loss}) | _curves(run, epoch), epoch)
                seconds = (time.monotonic() - started) / (epoch - first + 1)
                log(_summary(run, epoch, config.epochs, loss, seconds))


@repeatable_gradients()
def train_in_memory(training: Training) -> None:
    """Train a network for all its epochs, and store nothing.

    Arguments:
        training: settings, data, network. The objective must not look at the run.
    """
    objective, steps = build_objective(training), _gradient_steps(training)
    objective.begin()
    for epoch in range(1, training.config.epochs + 1):
        objective.begin_epoch(epoch)
        objective.run_epoch(epoch, steps)


def _gradient_steps(training: Training) -> GradientSteps:
    """Optimizer and schedule of a training, with its network on the device."""
    config, model, device = training.config, training.model, choose_device(training.execution.device)
    model.to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(config, model)
    schedule = build_schedule(config, optimizer)
    return GradientSteps(
        config=config, model=model, optimizer=optimizer, schedule=schedule, device=device, execution=training.execution
    )


def pruned_run(run: Run) -> Run:
    """Where `keep_pruned` stores the pruned networks of a run."""
    return Run(run.path / "pruned")


def _store_epoch(run: Run, epoch: int, network: nn.Module, training: Training) -> None:
    """Measure a network on every split, and store its weights where the settings ask for them."""
    config = training.config
    evaluate_epoch(
        run,
        epoch,
        network,
        training.measured,
        loss=config.loss,
        precision=config.known_precision,
        execution=training.execution,
    )
    if is_first() and (epoch % config.checkpoint_every == 0 or epoch == config.epochs):
        run.save_network(epoch, network)


def _store_cost(run: Run, done: Progress) -> None:
    """Store the cost up to now. After it, every process can read what the first one has stored."""
    if is_first():
        cost = run.record.training_cost or TrainingCost()
        passed = {"sample_passes": done.passes, "seconds": round(done.seconds, 3)}
        run.save_training_cost(cost.model_copy(update=passed))
    wait_for_all()


def _curves(run: Run, epoch: int) -> dict[str, float]:
    names = run.record.data.groups.names
    rows = run.history().query("epoch == @epoch and n > 0")
    return {f"accuracy/{row.split}/{names[row.group]}": row.correct / row.n for row in rows.itertuples()}


def _summary(run: Run, epoch: int, epochs: int, loss: float | None, seconds: float) -> str:
    rows = run.history().query("epoch == @epoch and n > 0")
    worst = (rows["correct"] / rows["n"]).groupby(rows["split"]).min()
    accuracies = ", ".join(f"{split} {worst[split]:.1%}" for split in ("train", "val", "test") if split in worst)
    mean_loss = "" if loss is None else f"loss {loss:.3f}, "
    left = f"; about {seconds * (epochs - epoch):.0f} s left" if epoch < epochs else ""
    return f"epoch {epoch}/{epochs}: {mean_loss}worst-group accuracy {accuracies}{left}"
