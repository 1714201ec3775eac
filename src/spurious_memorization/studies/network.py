"""The network that a study edits, with its data and its older checkpoints: of a run, or of a user's own program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn

from ..datasets.pseudo_minority import with_pseudo_minority
from ..datasets.samples import Dataset
from ..edits.edit import EditSpec
from ..edits.tensors import OtherState, tensors_of_edit
from ..errors import UserError
from ..memorization.only_memorized import only_memorized
from ..memorization.scores import MemorizationScores
from ..networks.forward import choose_device
from ..networks.head_alone import head_on_features
from ..networks.names import UnitKind
from ..runs.edited import other_state
from ..runs.run import Run
from ..settings import Execution
from .settings import TraceSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class StudiedNetwork:
    """A network with what its edits need.

    Arguments:
        model: the network.
        data: the data set.
        epoch: of the network; 0 where there is no run.
        other_state: gives the state dict that `rewind` or `transplant` puts in.
        run: where the network comes from; None if it belongs to a user's own program.
    """

    model: nn.Module
    data: Dataset
    epoch: int = 0
    other_state: OtherState
    run: Run | None = field(default=None)

    def tensors_of(self, spec: EditSpec, unit: UnitKind) -> Mapping[str, Tensor]:
        """The tensors that an edit puts in; see `tensors_of_edit`."""
        return tensors_of_edit(spec, unit, self.model, self.data, self.other_state)


def network_of_run(
    run: Run,
    data: Dataset,
    epoch: int,
    *,
    execution: Execution | None = None,
) -> StudiedNetwork:
    """A run's network of one epoch.

    Arguments:
        run: whose network it is.
        data: on which it is studied, usually the run's own.
        epoch: of the network.
        execution: names the device.

    Raises:
        UserError: the run has no checkpoint of this epoch.
    """
    return StudiedNetwork(
        model=run.network(epoch).to(choose_device((execution or Execution()).device)),
        data=data,
        epoch=epoch,
        other_state=other_state(run, epoch),
        run=run,
    )


def network_to_trace(
    run: Run, settings: TraceSettings, *, data_folder: Path | None = None, execution: Execution | None = None
) -> StudiedNetwork:
    """A run's network and data as the settings of a trace or a study name them: epoch, minority, memorized samples.

    Raises:
        UserError: the data are gone or others, the run has no checkpoint of the epoch, or the memorization scores are
            of other data.
    """
    data = studied_data(run.read_data(data_folder), settings)
    return network_of_run(run, data, run.choose_epoch(settings.epoch), execution=execution)


def studied_data(data: Dataset, settings: TraceSettings) -> Dataset:
    """The data with the pseudo-minority of the settings, or with the memorized samples of the minority alone.

    Raises:
        UserError: both are asked for, or the memorization scores are of other data.
    """
    if settings.memorized_in is None:
        return data if settings.pseudo_minority is None else with_pseudo_minority(data, settings.pseudo_minority)
    if settings.pseudo_minority is not None:
        raise UserError("--memorized-in needs the data's own minority groups: leave out --pseudo-minority")
    scores = MemorizationScores(settings.memorized_in)
    if scores.record.data.fingerprint != data.fingerprint():
        raise UserError(f"{scores.path} holds the scores of other data: make them of the run's data folder")
    return only_memorized(data, scores.scores(), settings.min_score)


def on_units(network: StudiedNetwork, unit: UnitKind, execution: Execution) -> StudiedNetwork:
    """The network in which units of this kind are edited.

    For features it is the head alone, on the features of the samples. So the other layers run once, not once per block.

    Raises:
        UserError: as for `head_on_features`.
    """
    if unit != "feature":
        return network
    model, data = head_on_features(network.model, network.data, "--unit feature", execution)
    return replace(network, model=model, data=data)


def network_in_memory(
    model: nn.Module,
    data: Dataset,
    older: Mapping[str, Tensor] | None = None,
    twin: Mapping[str, Tensor] | None = None,
) -> StudiedNetwork:
    """A user's own network.

    Arguments:
        model: the network.
        data: the data set.
        older: state dict of an older checkpoint, for `rewind`.
        twin: state dict of a network that continued without some samples, for `transplant`.
    """

    def other_state(spec: EditSpec) -> Mapping[str, Tensor]:
        name, state = ("older", older) if spec.kind == "rewind" else ("twin", twin)
        if state is None:
            what = "an older checkpoint" if name == "older" else "a twin"
            raise UserError(f"{spec.kind} needs the state dict of {what}: pass it as `{name}`")
        return state

    return StudiedNetwork(model=model, data=data, other_state=other_state)


def network_of_other_run(place: str, network: StudiedNetwork, epoch: str, execution: Execution) -> StudiedNetwork:
    """The network of another run, on the data of this one, such as the network of another seed.

    Raises:
        UserError: there is no such run or epoch.
    """
    other = Run(place)
    return network_of_run(other, network.data, other.choose_epoch(epoch), execution=execution)
