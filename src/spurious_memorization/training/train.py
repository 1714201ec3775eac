"""From a data folder and settings to a run with a trained network."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..console import log, only_here
from ..datasets.folder import read_with_settings
from ..datasets.samples import Dataset
from ..errors import UserError
from ..locks import check_holds_only, kept_if_used
from ..networks.build import NetworkSettings, build, with_own_transform
from ..networks.forward import choose_device, logits
from ..networks.head_alone import head_on_features
from ..networks.names import Precision
from ..resources import check_disk
from ..runs.epochs import run_and_epoch
from ..runs.evaluate import check_answers
from ..runs.records import RunRecord, StartRecord, TrainingCost, data_record, versions
from ..runs.run import Run
from ..together import is_first, of_first, this_share, wait_for_all
from .checkpoint import read_checkpoint, restore_network
from .held_out import held_out
from .loop import pruned_run, train_epochs
from .objective import NotApplicableError, Training, build_objective
from .precision import faster_precision
from .recipes import expanded
from .settings import TrainExecution, TrainSettings
from .shared_training import launched_share, run_training
from .starting_network import Start, starting_network
from .trackers import check_tracker


def train(
    folder: str | Path,
    out: str | Path,
    settings: TrainSettings | None = None,
    *,
    resume: bool = False,
    execution: TrainExecution | None = None,
) -> Run:
    """Train a network. After every epoch a run stores the network, its predictions and its history.

    Order and augmentation depend only on seed, epoch and sample index. Every epoch starts from what the latest complete
    epoch stored. So a training that was stopped at any moment and is resumed ends with the same weights.

    Arguments:
        folder: the data folder.
        out: the run's directory, new unless `resume`.
        settings: what changes the result. The recipe fills in what is left open.
        resume: continue a stopped training with the same settings. A finished one is left unchanged.
        execution: device, workers, batch size of evaluation, tracker. A `SharedExecution` also says in how many
            processes.

    Returns:
        The run, with a checkpoint, predictions and counts for every epoch.

    Raises:
        UserError: data, network or weights are not usable; the run exists (without `resume`) or has other settings;
            the directory holds something else; another command is writing it; the disk is full; one of several
            processes has ended.

    Example:
        ```python
        run = sm.train("birds", "runs/first", sm.TrainSettings(model="resnet18", epochs=12))
        ```
    """
    run, settings = Run(out), settings or TrainSettings()
    with kept_if_used(run.path) if launched_share().number == 0 else nullcontext():
        run_training(partial(_train, run, Path(folder), settings, resume), execution or TrainExecution())
    return run


def _train(run: Run, folder: Path, settings: TrainSettings, resume: bool, execution: TrainExecution) -> None:
    """Train in this process, alone or together with others."""
    if of_first((folder, run.path, settings)) != (folder, run.path, settings):
        raise UserError(
            "the launcher's processes were given different data, settings or --out: give all the same, or unset "
            "WORLD_SIZE to train them apart"
        )
    if not run.is_begun:
        check_holds_only(run.path, (run.network_folder.name,))
    data = read_with_settings(folder, settings)
    config = expanded(settings, data)
    _check_options(config, execution)
    _check_labels(_taking_part(data, config))
    with run.writing() if is_first() else nullcontext():  # what the run holds is read here, so that it can't change
        wait_for_all()
        if run.exists and not resume:
            raise UserError(f"run {run.place} exists: continue it with --resume, or choose another --out")
        if run.exists and run.record.origin != "train":
            raise UserError(
                f"run {run.place} was made by `spurmem {run.record.origin}`, so it has no training to continue: choose "
                "another --out"
            )
        network = network_settings(config, data)
        data = with_own_transform(data, network)
        torch.manual_seed(config.seed)
        checkpoint = read_checkpoint(run)
        if checkpoint is None:
            start = starting_network(config, network)
        else:
            run.history()  # raises an error if it is missing or broken
            start = Start(build(network), run.record.trained_start, run.record.weights)
            if config.freeze == "encoder":
                run.load(0, start.model, config.model)
        model, measured = start.model, data
        if config.freeze == "encoder":
            model, measured = _head_alone(start, data, config, execution)
        config = config.model_copy(
            update={
                "objective": config.objective.expanded(config.recipe, model),
                "precision": of_first(_precision(config, run, model, measured, execution)),
            }
        )
        part = _taking_part(measured, config)
        training = Training(run=run, config=config, data=part, measured=measured, model=model, execution=execution)
        objective = build_objective(training)
        if checkpoint is None:
            objective.begin()
        record = RunRecord(
            origin="train",
            data=data_record(data, folder, settings),
            network=network,
            settings=config.model_dump(mode="json"),
            best_by=config.best_by,
            versions=versions(),
            start=start_record(config) if checkpoint is None else run.record.start,
            training_cost=cost_before(config) if checkpoint is None else None,
            weights=start.weights,
            trained_start=start.is_trained,
        )
        _check_single_samples(config, part, model)
        check_answers(model, measured, execution)
        _announce(run, config, part, model)
        wait_for_all()
        if is_first():
            run.create(record)
            if config.freeze == "encoder" and checkpoint is None:
                run.save_encoder(start.model, model)
            if execution.keep_pruned:
                pruned_run(run).create(record.model_copy(update={"settings": {**record.settings, "pruned": True}}))
        if checkpoint is not None:
            restore_network(run, checkpoint, model)
        train_epochs(training, objective, checkpoint)


def _precision(
    config: TrainSettings, run: Run, model: nn.Module, data: Dataset, execution: TrainExecution
) -> Precision:
    """The precision that the settings name. For "auto", the one that the run has stored, or else the faster one."""
    if config.precision != "auto":
        return config.precision
    if run.exists:
        stored: Precision = run.record.settings.get("precision", "float32")
        return stored
    return faster_precision(model, data.train.part(range(config.batch_size)), choose_device(execution.device))


def _head_alone(
    start: Start, data: Dataset, config: TrainSettings, execution: TrainExecution
) -> tuple[nn.Module, Dataset]:
    """The head of the starting network, and the data set of its input features."""
    if config.start is None and config.weights == "none":
        log("note: the frozen encoder has random weights: give it others with --weights or --from")
    return head_on_features(start.model, data, "--freeze encoder", execution)


def network_settings(config: TrainSettings, data: Dataset) -> NetworkSettings:
    """How to build the network for these data."""
    return NetworkSettings(
        model=config.model,
        n_classes=len(data.groups.classes),
        image_size=data.image_size,
        norm_eps=config.norm_eps,
        head=config.head,
        prototypes=config.objective.prototypes,
    ).with_configuration()


def check_network(config: TrainSettings, data: Dataset, execution: TrainExecution) -> None:
    """Check that the starting network can be built and takes these samples, before anything is stored.

    Raises:
        UserError: it can't, or it doesn't.
    """
    network = network_settings(config, data)
    with only_here(False), torch.random.fork_rng():
        check_answers(starting_network(config, network).model, with_own_transform(data, network), execution)


def start_record(config: TrainSettings) -> StartRecord | None:
    """Run and epoch that `--from` names."""
    if config.start is None:
        return None
    path, epoch = run_and_epoch(config.start)
    older = Run(path)
    return StartRecord(run=older.place, epoch=older.choose_epoch(epoch))


def cost_before(config: TrainSettings) -> TrainingCost:
    """What other runs have cost on which this training depends: the one whose errors the objective uses, otherwise the
    one that `--from` names."""
    named = config.objective.other_run or config.start
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
    if config.start is None and objective.continues:
        raise UserError(f"{objective.name} continues a trained network: name it with --from RUN@EPOCH")
    if execution.keep_pruned and not objective.prunes:
        raise UserError(f"--keep-pruned: {objective.name} prunes nothing: leave it out, or train with pruned-contrast")
    if config.freeze == "encoder" and this_share().of > 1:
        raise UserError("--freeze encoder trains a single layer, in one process: leave out --on")
    if config.freeze == "encoder" and not objective.trains_linear_head:
        raise NotApplicableError(
            f"{objective.name} does not train a linear head alone: leave out --freeze encoder, or choose another "
            "objective"
        )
    check_tracker(execution.log)


def _taking_part(data: Dataset, config: TrainSettings) -> Dataset:
    """The data without the training samples that the settings leave out or hold out.

    Raises:
        UserError: a group is unknown or has no training samples; none are left.
    """
    out = [data.train.of_group(name).index for name in config.leave_out]
    if config.hold_out:
        out.append(held_out(data, config.hold_out, config.seed))
    return data.leaving_out(np.unique(np.concatenate(out))) if out else data


def _check_labels(data: Dataset) -> None:
    labels = np.unique(data.train.y)
    if len(labels) == 1:
        name = data.groups.classes[int(labels[0])]
        raise UserError(f"all {len(data.train)} training samples have the label {name!r}: give some of another one")


def _check_single_samples(config: TrainSettings, data: Dataset, model: nn.Module) -> None:
    """If a batch has one sample, check that the network can train on one: batch norm may be unable to."""
    if min(config.batch_size, len(data.train)) == 1:
        with torch.no_grad(), torch.random.fork_rng():
            logits(copy.deepcopy(model).train(), data.train.part(range(1)).batch().inputs)


def _announce(run: Run, config: TrainSettings, data: Dataset, model: nn.Module) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    checkpoints = config.epochs // config.checkpoint_every + 1 + (config.epochs % config.checkpoint_every > 0)
    remedy = "free some space, or keep fewer with --checkpoint-every"
    check_disk(run.path, size * (checkpoints + 3), f"{checkpoints} checkpoints", remedy)
    log(
        f"training {config.model} on {data.name}: {len(data.train)} samples, {config.epochs} epochs, "
        f"{checkpoints} checkpoints ({size * checkpoints / 1e6:.0f} MB) into {run.place}"
    )
