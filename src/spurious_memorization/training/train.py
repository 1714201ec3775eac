"""From a data folder and settings to a run with a trained network."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

from ..console import log
from ..datasets.folder import read_with_settings
from ..datasets.samples import Dataset
from ..errors import UserError
from ..networks.build import NetworkSettings, build, own_transform
from ..networks.weights import load_exactly, read_weights
from ..runs.epochs import run_and_epoch
from ..runs.records import RunRecord, StartRecord, TrainingCost, data_record, versions
from ..runs.run import Run
from .checkpoint import restore_network
from .loop import TrainExecution, pruned_run, train_epochs
from .objectives.find import objective_for
from .objectives.objective import Training
from .objectives.settings import DfrSettings, ErmContinueSettings, JttSettings, PrunedContrastSettings
from .recipes import TrainSettings, expanded, expanded_objective
from .refit import refit_head


def train(
    folder: str | Path,
    out: str | Path,
    settings: TrainSettings | None = None,
    *,
    resume: bool = False,
    execution: TrainExecution | None = None,
) -> Run:
    """Train a network; store it, its predictions and its history after every epoch in a run.

    Order and augmentation are drawn from seed, epoch and sample index, and every epoch starts from what the latest
    whole one stored: a training that was stopped at any moment and is resumed ends with the same weights.

    Arguments:
        folder: the data folder.
        out: the run's directory, new unless `resume`.
        settings: what changes the result; what isn't stated is filled in by the recipe.
        resume: continue a stopped training of the same settings; a finished one stays as it is.
        execution: device, workers, batch size of evaluation, tracker.

    Returns:
        The run, with a checkpoint, predictions and counts for every epoch.

    Raises:
        UserError: data, network or weights are not usable, the run exists (without `resume`) or has other settings,
            another command is writing it, the disk is full.

    Example:
        ```python
        run = sm.train("birds", "runs/first", sm.TrainSettings(model="resnet18", epochs=12))
        ```
    """
    run = Run(Path(out))
    settings = settings or TrainSettings()
    data = read_with_settings(Path(folder), settings)
    config = expanded(settings, data)
    execution = execution or TrainExecution()
    _check_options(config, execution)
    if run.exists and not resume:
        raise UserError(f"run {run.path} exists: continue it with --resume, or choose another --out")
    network = network_settings(config, data)
    data = with_transform(data, network)
    torch.manual_seed(config.seed)
    was_stopped = run.trainer_file.is_file()
    model = build(network) if was_stopped else starting_network(config, network)
    config = config.model_copy(update={"objective": expanded_objective(config, model)})
    objective = objective_for(Training(run, config, data, model))
    if not was_stopped:
        objective.begin()
    record = RunRecord(
        origin="train",
        data=data_record(data, Path(folder), settings),
        network=network,
        settings=config.model_dump(mode="json"),
        best_by=config.best_by,
        versions=versions(),
        start=run.record.start if was_stopped else start_record(config),
        training_cost=earlier_cost(config) if not was_stopped else None,
    )
    with run.writing():
        _announce(run, config, data, model)
        run.create(record)
        if execution.keep_pruned:
            pruned_run(run).create(record.model_copy(update={"settings": {**record.settings, "pruned": True}}))
        if was_stopped:
            restore_network(run, model)
        if isinstance(config.objective, DfrSettings):
            refit_head(run, config, data, model, execution)
        else:
            train_epochs(run, config, data, model, objective, execution)
    return run


def network_settings(config: TrainSettings, data: Dataset) -> NetworkSettings:
    """How to build the network that is trained on these data."""
    return NetworkSettings(
        model=config.model,
        n_classes=len(data.groups.classes),
        image_size=data.image_size,
        norm_eps=config.norm_eps,
    )


def starting_network(config: TrainSettings, network: NetworkSettings) -> nn.Module:
    """The network with the weights that training starts from."""
    if config.start is not None:
        path, epoch = run_and_epoch(config.start)
        older = Run(path)
        model = build(network)
        load_exactly(model, older.state(older.choose_epoch(epoch)), config.model)
        return model
    if config.weights in ("none", "timm"):
        return build(network, pretrained=config.weights == "timm")
    return build(network, pretrained=read_weights(Path(config.weights)).state)


def start_record(config: TrainSettings) -> StartRecord | None:
    """Run and epoch that `--from` names."""
    if config.start is None:
        return None
    path, epoch = run_and_epoch(config.start)
    return StartRecord(run=str(path), epoch=Run(path).choose_epoch(epoch))


def earlier_cost(config: TrainSettings) -> TrainingCost:
    """What other runs have spent on what this training begins with: the network that `--from` names, or, for JTT, the
    network whose errors it takes."""
    named = config.objective.errors_of if isinstance(config.objective, JttSettings) else config.start
    if named is None:
        return TrainingCost()
    path, wanted = run_and_epoch(named)
    older = Run(path)
    epoch, last, cost = older.choose_epoch(wanted), int(older.history()["epoch"].max()), older.record.training_cost
    if cost is None or cost.sample_passes_before is None or cost.seconds_before is None:
        return TrainingCost(sample_passes_before=None, seconds_before=None)
    share = epoch / max(last, 1)
    return TrainingCost(
        sample_passes_before=cost.sample_passes_before + round(share * cost.sample_passes),
        seconds_before=round(cost.seconds_before + share * cost.seconds, 3),
    )


def _check_options(config: TrainSettings, execution: TrainExecution) -> None:
    objective = config.objective
    if config.start is None and isinstance(objective, ErmContinueSettings | PrunedContrastSettings | DfrSettings):
        raise UserError(f"{objective.name} continues a trained network: name it with --from RUN@EPOCH")
    if execution.keep_pruned and not isinstance(objective, PrunedContrastSettings):
        raise UserError(f"--keep-pruned: {objective.name} prunes nothing: leave it out, or train with pruned-contrast")


def with_transform(data: Dataset, network: NetworkSettings) -> Dataset:
    """The data with the network's own transform, where nothing else fixes one."""
    return data if data.image_size is not None else data.with_transform(own_transform(network))


def _announce(run: Run, config: TrainSettings, data: Dataset, model: nn.Module) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    checkpoints = config.epochs // config.checkpoint_every + 1 + (config.epochs % config.checkpoint_every > 0)
    needed, free = size * (checkpoints + 3), shutil.disk_usage(run.path).free
    if needed > free:
        raise UserError(
            f"{checkpoints} checkpoints need {needed / 1e9:.1f} GB but {run.path} has {free / 1e9:.1f} GB: "
            "free some space, or keep fewer with --checkpoint-every"
        )
    log(
        f"training {config.model} on {data.name}: {len(data.train)} samples, {config.epochs} epochs, "
        f"{checkpoints} checkpoints ({size * checkpoints / 1e6:.0f} MB) into {run.path}"
    )
