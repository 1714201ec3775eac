"""What became of the units that a study found: in networks trained from the studied one, and in new ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..console import log
from ..criteria.scores import Scores
from ..datasets.samples import Dataset
from ..runs.run import Run
from ..settings import Execution
from ..statistics.agreement import agreement, first_units
from ..studies.network import network_of_run
from ..studies.ranking_settings import RankingSettings
from ..studies.rankings import ranking_scores
from ..studies.settings import parse_sizes
from ..studies.store import FolderStore
from .compare import Comparison, compare
from .epochs import CHOSEN_BY
from .methods import Member
from .starts import starts_of, studied_runs
from .studied_units import TOGETHER, StudiedRun, effects_of_units, studied_run

UNIT_COLUMNS = (
    *("run", "method", "seed", "chosen_by", "epoch", "start", "start_epoch", "criterion", "traced_on", "called"),
    *("n_units", "unit", "norm_start", "norm_chosen", "norm_ratio", "group", "group_name", "n"),
    *("accuracy_start", "accuracy_chosen", "accuracy_change_start", "accuracy_change_chosen"),
)
TRACE_COLUMNS = (
    *("run", "method", "seed", "chosen_by", "epoch", "start", "start_epoch", "criterion", "traced_on"),
    *("k", "n", "shared", "expected", "p", "rank_correlation"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class UnitTracking:
    """The result of `track_units`.

    Arguments:
        study: its name.
        units: for runs that started from a studied network. One row per run, rule that chose the epoch (chosen_by,
            epoch), ranking (criterion, traced_on), unit and minority group. `called` says whether the set is critical
            by its verdicts or only selected. `unit` is "together" for the whole set. The folded norm, the accuracy of
            the group on its n training samples, and its accuracy change when the unit is zeroed are given twice: for
            the starting network (suffix _start; run `start`, epoch `start_epoch`) and for the chosen one (suffix
            _chosen). norm_ratio is chosen over start; for a whole set it is the mean over its units.
        traces: for the other runs. One row per run, rule and ranking: the agreement of a new ranking with that of the
            studied run of the same seed (start, start_epoch), with the columns of `agreement`.
        notes: sentences that a reader of the frames must know.
    """

    study: str
    units: pd.DataFrame
    traces: pd.DataFrame
    notes: tuple[str, ...]


def track_units(
    runs: Comparison | Iterable[Run | str | Path],
    study: str | None = None,
    *,
    data_folder: Path | None = None,
    execution: Execution | None = None,
) -> UnitTracking:
    """Track the units that a study of the starting network found into the networks that were trained from it.

    A run that started from another run keeps its channels. So the same units are measured in both networks: for each
    ranking those of the largest critical set, or of the largest selected set if none is critical. In a run trained from
    scratch the same numbers mean nothing. Such a run is traced again with the study's rankings, which are compared with
    those of the studied run of the same seed. New rankings are stored in the traced run.

    Arguments:
        runs: the result of `compare`, or its arguments.
        study: name of a finished study of every run from which another one started, or else of the ERM runs. If not
            given, the only study there is.
        data_folder: where the runs' data are now, if they were moved; a comparison uses its own.
        execution: device, workers, batch size; changes no result.

    Raises:
        UserError: as for `compare`; or no run started from another one, the study does not exist or lists no units, or
            another command is writing a run that must be traced.

    Example:
        ```python
        found = sm.track_units(["runs/erm", "runs/pruned", "runs/groupdro"], "first")
        whole_sets = found.units.query("unit == 'together'")
        whole_sets[["method", "seed", "group_name", "accuracy_change_start", "accuracy_change_chosen"]]
        ```
    """
    found = runs if isinstance(runs, Comparison) else compare(runs, data_folder=data_folder)
    execution = execution or Execution()
    starts = starts_of(found)
    name, run_of_seed = studied_runs(found, starts.values(), study)
    runs_with_study = {run.path.resolve(): run for run in (*run_of_seed.values(), *(run for run, _ in starts.values()))}
    studied = {place: studied_run(run, name, found.data) for place, run in runs_with_study.items()}
    notes: list[str] = []
    log(f"tracking the units of study {name} through {len(found.members)} runs")
    in_start: dict[tuple[Path, int], pd.DataFrame] = {}
    units, traces = [], []
    for member in found.members:
        epochs = _chosen_epochs(found, member)
        if member in starts:
            older, epoch = starts[member]
            origin, key = studied[older.path.resolve()], (older.path.resolve(), epoch)
            if epoch != origin.epoch:
                notes.append(f"{member.run.path} started from epoch {epoch}; the study is of epoch {origin.epoch}.")
            if key not in in_start:
                in_start[key] = effects_of_units(origin, older, epoch, execution)
            now = {e: effects_of_units(origin, member.run, e, execution) for e in set(epochs.values())}
            units.append(_with_run(member, older, epoch, _start_and_chosen(in_start[key], now, epochs)))
        elif member.run.path.resolve() not in studied:
            if member.seed not in run_of_seed:
                notes.append(f"{member.run.path} is not traced again: no studied run has its seed, {member.seed}.")
                continue
            origin = studied[run_of_seed[member.seed].path.resolve()]
            rows, new_notes = _new_traces(origin, member.run, epochs, execution)
            notes += new_notes
            traces.append(_with_run(member, origin.run, origin.epoch, rows))
    return UnitTracking(
        study=name,
        units=_frame(units, UNIT_COLUMNS),
        traces=_frame(traces, TRACE_COLUMNS),
        notes=tuple(dict.fromkeys(notes)),
    )


def _start_and_chosen(start: pd.DataFrame, chosen: dict[int, pd.DataFrame], epochs: dict[str, int]) -> pd.DataFrame:
    """The starting network's values and those of the chosen networks in one row, for each rule that chooses epochs."""
    values = ["norm", "accuracy", "accuracy_change"]
    frames = []
    for rule, epoch in epochs.items():
        both = start.merge(chosen[epoch][values], left_index=True, right_index=True, suffixes=("_start", "_chosen"))
        ratio = both["norm_chosen"] / both["norm_start"].where(both["norm_start"] > 0)
        mean = ratio.groupby([both["criterion"], both["traced_on"]]).transform("mean")
        both["norm_ratio"] = ratio.where(both["unit"] != TOGETHER, mean)
        frames.append(both.assign(chosen_by=rule, epoch=epoch))
    return pd.concat(frames, ignore_index=True)


def _new_traces(
    origin: StudiedRun, run: Run, epochs: dict[str, int], execution: Execution
) -> tuple[pd.DataFrame, Sequence[str]]:
    """Agreement of the study's rankings in another run with those of the studied run, and notes on what is missing."""
    if origin.settings.unit == "weight" or not origin.rankings:
        return pd.DataFrame(), ["No new traces: the study ranks no channels or heads."]
    if run.record.network.model != origin.run.record.network.model:
        other = f"{run.record.network.model}, not {origin.run.record.network.model}"
        return pd.DataFrame(), [f"{run.path} is not traced again: its network is {other}."]
    rows, notes = [], []
    for ranking in origin.rankings:
        of_study = _scores(origin.run, origin.data, ranking, execution)
        k = first_units(of_study, parse_sizes(origin.settings.size, origin.settings.unit))
        for rule, epoch in epochs.items():
            here = _scores(run, origin.data, ranking.model_copy(update={"epoch": epoch}), execution)
            pair = agreement({"start": of_study, "new": here}, k)
            if pair.empty:
                notes.append(f"{ranking.label} of {run.path}: at most {k} units were measured, too few to compare.")
            about = {"criterion": ranking.criterion, "traced_on": ranking.group or "", "chosen_by": rule}
            rows.append(pair.assign(**about, epoch=epoch))
    return pd.concat(rows, ignore_index=True), notes


def _scores(run: Run, data: Dataset, ranking: RankingSettings, execution: Execution) -> Scores:
    """The scores of a ranking in a run, from its folder or measured now. Only measuring needs the run's lock."""
    stored = FolderStore(run.path).scores(ranking.name)
    if stored is not None:
        return stored
    with run.writing():
        network = network_of_run(run, data, ranking.epoch, execution=execution)
        return ranking_scores(network, ranking, FolderStore(run.path), execution)


def _chosen_epochs(found: Comparison, member: Member) -> dict[str, int]:
    """The epoch that each rule chooses."""
    own = found.runs[found.runs["run"] == member.run.place].iloc[0]
    return {rule: int(own[f"epoch_by_{rule}"]) for rule in CHOSEN_BY}


def _with_run(member: Member, start: Run, start_epoch: int, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the columns that name the run and where it started."""
    about = {"run": member.run.place, "method": member.method, "seed": member.seed}
    return rows.assign(**about, start=start.place, start_epoch=start_epoch)


def _frame(rows: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    filled = [frame for frame in rows if len(frame)]
    return pd.concat(filled, ignore_index=True)[[*columns]] if filled else pd.DataFrame(columns=[*columns])
