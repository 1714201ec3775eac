"""The training loop: network, optimizer, epochs, checkpoints, in this order."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from ..console import log, progress
from ..datasets.samples import Dataset, Samples
from ..datasets.sources import Batch
from ..errors import UserError
from ..networks.forward import choose_device, moved
from ..runs.evaluate import evaluate_epoch
from ..runs.records import TrainingCost
from ..runs.run import Run
from ..settings import Execution
from .checkpoint import Progress, restore_trainer, store_trainer
from .objectives.objective import Objective
from .optimizers import build_optimizer, build_schedule
from .recipes import TrainSettings

READERS = 4
"""At most so many processes read images for an accelerator; a processor that trains itself has none to spare."""


class TrainExecution(Execution):
    """How training is carried out; none of it changes results."""

    log: Literal["tensorboard", "wandb"] | None = Field(None, description="tracker of curves: tensorboard or wandb")
    keep_pruned: bool = Field(False, description="keep the pruned networks of pruned-contrast, too, as RUN/pruned")


def train_epochs(
    run: Run, config: TrainSettings, data: Dataset, model: nn.Module, objective: Objective, execution: TrainExecution
) -> None:
    """Train a network for the epochs that the run lacks, storing each as it ends."""
    accelerator = _accelerator(run, config, execution)
    device = accelerator.device
    model.to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(config, model)
    schedule = build_schedule(config, optimizer)
    done = restore_trainer(run, optimizer, schedule)
    if done is not None:
        objective.load_state(done.objective)
    measuring = execution.model_copy(update={"device": str(device)})
    workers = _workers(execution, device)

    def store(target: Run, epoch: int, network: nn.Module) -> None:
        evaluate_epoch(target, epoch, network, data, loss=config.loss, precision=config.precision, execution=measuring)
        if epoch % config.checkpoint_every == 0 or epoch == config.epochs:
            target.save_network(epoch, network)

    def finish(epoch: int, passes: int, seconds: float) -> Progress:
        store(run, epoch, objective.deployed())
        if execution.keep_pruned and epoch and (pruned := objective.pruned()) is not None:
            store(pruned_run(run), epoch, pruned)
        progress = Progress(epoch, passes, seconds, objective.state())
        store_trainer(run, progress, model, optimizer, schedule)
        return progress

    done = done or finish(0, 0, 0.0)
    _note_spent(run, done)
    first, started = done.epoch + 1, time.monotonic()
    for epoch in range(first, config.epochs + 1):
        began = time.monotonic()
        objective.begin_epoch(epoch)
        loss = _train_epoch(epoch, config, objective, model, optimizer, accelerator, workers)
        schedule.step(loss)
        trained = time.monotonic() - began
        done = finish(epoch, done.passes + objective.passes(epoch), done.seconds + trained)
        _note_spent(run, done)
        accelerator.log({"loss": loss, **_curves(run, epoch)}, step=epoch)
        seconds = (time.monotonic() - started) / (epoch - first + 1)
        log(_summary(run, epoch, config.epochs, loss, seconds))
    accelerator.end_training()


def _train_epoch(
    epoch: int,
    config: TrainSettings,
    objective: Objective,
    model: nn.Module,
    optimizer: Optimizer,
    accelerator: Accelerator,
    workers: int,
) -> float:
    """One pass over the epoch's samples; the mean loss of a sample."""
    model.train()
    torch.manual_seed(config.seed * 1_000_003 + epoch)
    samples, total = objective.samples(epoch), 0.0
    for batch in _batches(epoch, config, samples, workers):
        inputs, y = moved(batch.inputs, accelerator.device), batch.y.to(accelerator.device)
        with accelerator.autocast():
            loss = objective.loss(inputs, y, batch.index)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        optimizer.step()
        total += float(loss.detach()) * len(y)
    if not math.isfinite(total):
        raise UserError(f"the loss is no longer a number in epoch {epoch}: start again with a lower --lr")
    return total / len(samples)


def _workers(execution: TrainExecution, device: torch.device) -> int:
    if execution.workers is not None:
        return execution.workers
    return 0 if device.type == "cpu" else min(READERS, (os.cpu_count() or 1) - 1)


def _batches(epoch: int, config: TrainSettings, samples: Samples, workers: int) -> Iterator[Batch]:
    size = config.batch_size
    if config.augment:
        batches = samples.augmented_batches(size, config.seed, epoch, workers)
    else:
        batches = samples.batches(size, workers)
    return progress(batches, math.ceil(len(samples) / size), f"epoch {epoch}/{config.epochs}")


def pruned_run(run: Run) -> Run:
    """Where `keep_pruned` stores the pruned networks of a run."""
    return Run(run.path / "pruned")


def _note_spent(run: Run, done: Progress) -> None:
    cost = run.record.training_cost or TrainingCost()
    run.save_training_cost(cost.model_copy(update={"sample_passes": done.passes, "seconds": round(done.seconds, 3)}))


def _accelerator(run: Run, config: TrainSettings, execution: TrainExecution) -> Accelerator:
    device = choose_device(execution.device)
    if execution.log and execution.log not in map(str, get_available_trackers()):
        raise UserError(
            f"tracker {execution.log!r} is not installed: pip install 'spurious-memorization[{execution.log}]'"
        )
    # Accelerate keeps device and precision for the whole process and refuses others, which a second training may need.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with=execution.log,
        project_dir=str(run.path),
    )
    if execution.log:
        accelerator.init_trackers("spurmem", config={k: str(v) for k, v in config.model_dump().items()})
    return accelerator


def _curves(run: Run, epoch: int) -> dict[str, float]:
    names = run.record.data.groups.names
    rows = run.history().query("epoch == @epoch and n > 0")
    return {f"accuracy/{row.split}/{names[row.group]}": row.correct / row.n for row in rows.itertuples()}


def _summary(run: Run, epoch: int, epochs: int, loss: float, seconds: float) -> str:
    rows = run.history().query("epoch == @epoch and n > 0")
    worst = (rows["correct"] / rows["n"]).groupby(rows["split"]).min()
    accuracies = ", ".join(f"{split} {worst[split]:.1%}" for split in ("train", "val", "test") if split in worst)
    left = f"; about {seconds * (epochs - epoch):.0f} s to go" if epoch < epochs else ""
    return f"epoch {epoch}/{epochs}: loss {loss:.3f}, worst-group accuracy {accuracies}{left}"
