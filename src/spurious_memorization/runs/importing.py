"""Import of a network that was trained elsewhere: one weight file, or one per epoch, becomes a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ..atomic import atomic_folder
from ..console import log
from ..datasets.folder import read_with_settings
from ..errors import UserError
from ..networks.build import NetworkSettings, build, with_own_transform
from ..networks.head import head_names
from ..networks.weights import StateDict, Weights, fit, load_exactly, read_weights, weight_file
from ..settings import Execution
from .evaluate import check_answers, evaluate_epoch
from .import_settings import ImportSettings
from .records import RunRecord, data_record, versions
from .run import Run

RESEARCH_NORM_EPS = 1e-5


def import_network(
    folder: str | Path, out: str | Path, settings: ImportSettings, *, execution: Execution | None = None
) -> Run:
    """Turn weight files into a run that is evaluated on every split. Every command works on this run.

    Arguments:
        folder: the data folder on which the network is studied.
        out: the run's directory. It must not exist.
        settings: architecture, files, epochs, class map.
        execution: device, workers, batch size.

    Raises:
        UserError: a file is missing, truncated, malicious or of another architecture; two files have the same epoch;
            the class map doesn't fit; or the run exists. No run is left behind.

    Example:
        ```python
        files = ("epoch_1.pth", "epoch_2.pth")
        run = sm.import_network("birds", "runs/theirs", sm.ImportSettings(model="resnet50", weights=files))
        ```
    """
    run = Run(out)
    if run.exists:
        raise UserError(f"run {run.place} exists: choose another --out")
    data = read_with_settings(Path(folder), settings)
    n_classes = len(data.groups.classes)
    loaded = [read_weights(file, key=settings.weight_key, form=settings.weight_format) for file in settings.weights]
    if not loaded:
        raise UserError("no weight file is given: give at least one with --weights")
    epochs = _epochs(settings, loaded)
    network = NetworkSettings(
        model=settings.model,
        n_classes=n_classes,
        image_size=data.image_size,
        norm_eps=settings.norm_eps,
        head=settings.head,
    ).with_configuration()
    models, decided = [], []
    for weights in loaded:
        model = build(network)
        if weights.research and network.norm_eps is None and any(isinstance(m, nn.LayerNorm) for m in model.modules()):
            network = network.model_copy(update={"norm_eps": RESEARCH_NORM_EPS})
            model = build(network)
        fitted = fit(model, weights.state, head_names(model))
        load_exactly(model, _mapped(model, fitted.state, n_classes, settings.class_map), settings.model)
        models.append(model)
        decided.append(weight_file(weights, fitted, head_names(model)))
        log(str(decided[-1]))
    outputs = settings.class_map or range(n_classes)
    log("; ".join(f"output {k} is {name!r}" for k, name in zip(outputs, data.groups.classes, strict=True)))
    data = with_own_transform(data, network)
    record = RunRecord(
        origin="import",
        data=data_record(data, Path(folder), settings),
        network=network,
        settings={**settings.model_dump(mode="json"), "epochs": epochs},
        best_by=settings.best_by,
        versions=versions(),
        weights=tuple(decided),
    )
    with atomic_folder(run.path) as folder_of_it:
        log(f"importing {len(models)} epochs of {settings.model}, evaluated on {len(data)} samples, into {run.place}")
        unfinished = Run(folder_of_it)
        unfinished.create(record)
        check_answers(models[0], data, execution)
        for epoch, model in sorted(zip(epochs, models, strict=True), key=lambda pair: pair[0]):
            evaluate_epoch(
                unfinished, epoch, model, data, loss=settings.loss, precision=settings.precision, execution=execution
            )
            unfinished.save_network(epoch, model)
    return run


def _epochs(settings: ImportSettings, loaded: list[Weights]) -> list[int]:
    files = settings.weights
    epochs = list(settings.epochs) or _epochs_in_names(files)
    if not settings.epochs and all(weights.research and "epoch" in weights.file.name for weights in loaded):
        epochs = [epoch + 1 for epoch in epochs]
        log("the research code counts epochs from 0: its epoch_0 is stored as epoch 1, after one epoch of training")
    if len(epochs) != len(files) or len(set(epochs)) != len(epochs):
        raise UserError(
            f"{len(files)} weight files need {len(files)} different epochs, not {epochs}: give them with --epochs"
        )
    log("stored as " + ", ".join(f"epoch {epoch}: {file.name}" for file, epoch in zip(files, epochs, strict=True)))
    return epochs


def _epochs_in_names(files: Sequence[Path]) -> list[int]:
    """The number behind the word epoch in each name. Otherwise the only number in which the names differ."""
    distinct = len({file.name for file in files}) == len(files)
    names = [file.name if distinct else str(file) for file in files]
    said = [re.search(r"epoch\D{0,2}(\d{1,9})(?!\d)", name) for name in names]
    if all(said):
        return [int(match[1]) for match in said if match]
    if len(names) == 1:
        return [1]
    columns = list(zip(*(re.findall(r"\d+", name) for name in names), strict=False))
    differing = [column for column in columns if len(set(column)) > 1]
    if len({re.sub(r"\d+", "0", name) for name in names}) > 1 or len(differing) != 1:
        raise UserError(
            f"the names of the weight files do not say their epochs ({names[0]}, {names[1]}): give them with --epochs"
        )
    return [int(number) for number in differing[0] if len(number) < 10]


def _mapped(model: nn.Module, state: StateDict, n_classes: int, class_map: tuple[int, ...]) -> StateDict:
    """The state dict with the rows of the classifier head in the order of the data's classes."""
    heads = [f"{name}.{part}" for name in head_names(model) for part in ("weight", "bias")]
    heads = [key for key in heads if key in state and state[key].ndim]
    outputs = len(state[heads[0]]) if heads else n_classes
    if not class_map:
        if outputs != n_classes:
            raise UserError(
                f"the network has {outputs} outputs but the data have {n_classes} classes: "
                "give --class-map with the output of each class"
            )
        return state
    if len(class_map) != n_classes or len(set(class_map)) != n_classes:
        raise UserError(f"the class map must name {n_classes} different outputs, one per class, not {class_map}")
    if not heads or max(class_map) >= outputs or min(class_map) < 0:
        raise UserError(
            f"the class map {class_map} names an output that the network does not have: it has 0 to {outputs - 1}"
        )
    return {key: value[list(class_map)] if key in heads else value for key, value in state.items()}
