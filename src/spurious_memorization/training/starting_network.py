"""The network with the weights that a training starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..console import log
from ..errors import UserError
from ..networks.build import PACKAGED, NetworkSettings, build, build_pretrained
from ..networks.head import head_names
from ..networks.prototypes import give_prototypes
from ..networks.weights import StateDict, WeightFile, fit, read_weights, weight_file
from ..runs.epochs import run_and_epoch
from ..runs.run import Run
from .settings import NetworkTraining, TrainSettings


@dataclass(frozen=True, eq=False)
class Start:
    """Where a training starts.

    Arguments:
        model: the network.
        is_trained: whether its head was trained too, and not drawn at random.
        weights: what was decided about the weight file, if one was read.
    """

    model: nn.Module
    is_trained: bool
    weights: tuple[WeightFile, ...] = ()


def starting_network(config: TrainSettings, network: NetworkSettings) -> Start:
    """Build the network, and load what `--from` or `--weights` names.

    Raises:
        UserError: the run or the file is missing or broken, or belongs to another architecture.
    """
    if config.start is not None:
        path, wanted = run_and_epoch(config.start)
        older = Run(path)
        _check_no_directions(older)
        model = build(network.model_copy(update={"prototypes": 0}))
        epoch = older.choose_epoch(wanted)
        older.load(epoch, model, config.model)
        if network.prototypes:
            give_prototypes(model, network.prototypes)
            return Start(model, is_trained=False)
        return Start(model, epoch > 0 or older.record.epoch_0_is_trained)
    if config.weights == "none":
        return Start(build(network), False)
    if config.weights == "package" and network.model not in PACKAGED:
        raise UserError(
            f"no weights of {network.model} come with this package: choose --model {PACKAGED[0]}, or other --weights"
        )
    if config.weights == "package":
        log(f"weights: those that come with this package for {network.model}, learned on other kinds of birds")
    if config.weights in ("pretrained", "timm", "package"):
        return Start(*build_pretrained(network))
    return _from_file(config, network)


def _check_no_directions(run: Run) -> None:
    """Check that a run can be trained further: directions would become free parameters."""
    if run.record.network.directions:
        raise UserError(
            f"--from {run.place}: its network has directions, which can't be trained: start from the run without "
            "directions"
        )


def _from_file(config: NetworkTraining, network: NetworkSettings) -> Start:
    weights = read_weights(Path(config.weights), key=config.weight_key, form=config.weight_format)
    with torch.random.fork_rng():
        random = build(network)
    head = head_names(random)
    fitted = fit(random, weights.state, head)
    model = build(network, fitted.state)
    decided = weight_file(weights, fitted, head, _has_head_of(model, fitted.state))
    log(str(decided))
    return Start(model, decided.head_loaded, (decided,))


def _has_head_of(model: nn.Module, state: StateDict) -> bool:
    """Whether the network's head has the values of these weights. Otherwise it was drawn at random."""
    own, heads = model.state_dict(), [f"{name}.weight" for name in head_names(model)]
    return bool(heads) and all(
        key in own and key in state and torch.equal(state[key].to(own[key]), own[key]) for key in heads
    )
