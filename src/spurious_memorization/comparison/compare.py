"""Compare runs: for each method, the epochs that two rules choose, and the accuracies of its networks in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..datasets.samples import Dataset, Samples
from ..errors import UserError
from ..runs.run import Run
from ..training.epoch_selection import selecting_half
from .confidence import confidence_where_chosen
from .costs import cost_of
from .epochs import CHOSEN_BY, counts_where_chosen, measured_counts
from .measures import accuracies, with_gaps
from .methods import CONTROL, Member, control_among, differing, members_of, named_method, named_start, runs_at
from .selection_rules import chosen_epochs, regrets
from .summary import summarized


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """The result of `compare`.

    Arguments:
        members: the runs with their methods, sorted by method.
        data: the data set of all runs.
        baseline: method to which differences are taken; None for none.
        runs: one row per run: run, method, seed, start, epochs (the last one measured), the epoch that each rule chose
            (`epoch_by_worst_group_accuracy`, `epoch_by_average`), and the columns of `cost_of`.
        counts: one row per run, rule, split and group: run, method, seed, chosen_by, epoch, split, group, group_name,
            n, correct.
        values: one row per run, rule, split and measure: run, method, seed, chosen_by, split ("gap" is training minus
            test), measure (see `accuracies` and `confidence_measures`), group (-1 for all groups together), group_name,
            value, and its 95 % interval over samples, low and high (nan where none is given).
        summary: one row per method, rule, split and measure: the columns of `summarized`, and group_name.
        selections: one row per run and rule of `RULES`: run, method, seed, and the columns of `regrets`.
        notes: sentences that a reader of the tables must know.
    """

    members: tuple[Member, ...]
    data: Dataset
    baseline: str | None
    runs: pd.DataFrame
    counts: pd.DataFrame
    values: pd.DataFrame
    summary: pd.DataFrame
    selections: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order of their first runs."""
        return tuple(dict.fromkeys(member.method for member in self.members))


def compare(
    runs: Iterable[Run | str | Path], *, baseline: str | None = None, data_folder: Path | None = None
) -> Comparison:
    """Compare runs on the same data. Runs that differ only in their seed are one method.

    For each run two rules choose an epoch among those with a checkpoint: worst-group accuracy and plain average. Both
    use only the selecting half of val, on which no method fits anything. Accuracies on val are those on that half.

    Arguments:
        runs: the runs, or their folders; a folder that `--seeds` made stands for all runs in it.
        baseline: name or objective of the method to which differences are taken, seed by seed. If not given,
            "erm-continue", if it is among the methods.
        data_folder: where the runs' data are now, if they were moved.

    Raises:
        UserError: a folder is no run; a run has no finished epoch, or other data than the first; there is no val split;
            the baseline is not among the runs; the same method and seed occur twice.

    Example:
        ```python
        found = sm.compare(["runs/erm", "runs/groupdro"], baseline="erm")
        found.summary.query("measure == 'worst_group_accuracy' and split == 'test'")
        ```
    """
    opened = [run for place in runs for run in ([place] if isinstance(place, Run) else runs_at(place))]
    if not opened:
        raise UserError("no run is given: name the runs to compare, such as runs/erm runs/groupdro")
    _check_other_data(opened)
    members = tuple(members_of(opened))
    base = control_among(members) if baseline is None else named_method(members, baseline)
    data = opened[0].read_data(data_folder)
    selecting = selecting_half(data)
    measured = {member: measured_counts(member.run, selecting) for member in members}
    chosen = pd.concat([_about(member, counts_where_chosen(member.run, rows)) for member, rows in measured.items()])
    counts = chosen.drop(columns="tie")
    values = _values(members, counts, data, selecting)
    return Comparison(
        members=members,
        data=data,
        baseline=base,
        runs=pd.DataFrame([_run_row(member, counts) for member in members]),
        counts=_with_group_names(counts, data),
        values=_with_group_names(values, data),
        summary=_with_group_names(summarized(values, base), data),
        selections=pd.concat(
            [_about(member, _selections(member.run, rows, data)) for member, rows in measured.items()],
            ignore_index=True,
        ),
        notes=(*_notes(members, base), *_ties(chosen)),
    )


def _check_other_data(runs: Sequence[Run]) -> None:
    first = runs[0]
    for other in runs[1:]:
        if other.record.data.fingerprint != first.record.data.fingerprint:
            raise UserError(
                f"{first.path} and {other.path} were made with different data ({first.record.data.folder} and "
                f"{other.record.data.folder}, or changed in between): compare runs on the same data"
            )


def _about(member: Member, rows: pd.DataFrame) -> pd.DataFrame:
    about = {"run": member.run.place, "method": member.method, "seed": member.seed}
    return rows.assign(**about)[[*about, *rows.columns]]


def _values(members: Sequence[Member], counts: pd.DataFrame, data: Dataset, selecting: Samples) -> pd.DataFrame:
    keys = ["run", "method", "seed", "chosen_by", "split"]
    found = [
        accuracies(rows, data.groups, data.train_counts).assign(**dict(zip(keys, key, strict=True)))
        for key, rows in counts.groupby(keys, sort=False)
    ]
    parts = {split: selecting if split == "val" else data.samples(split) for split in data.splits}
    epochs = {run: rows.groupby("chosen_by", sort=False)["epoch"].first() for run, rows in counts.groupby("run")}
    found += [
        _about(member, confidence_where_chosen(member.run, epochs[member.run.place].to_dict(), parts))
        for member in members
    ]
    return with_gaps(pd.concat(found, ignore_index=True)[[*keys, "measure", "group", "value", "low", "high"]])


def _selections(run: Run, measured: pd.DataFrame, data: Dataset) -> pd.DataFrame:
    among = run.candidate_epochs()
    return regrets(chosen_epochs(measured, among, data.groups.label_of), measured, among)


def _run_row(member: Member, counts: pd.DataFrame) -> dict[str, object]:
    run, start = member.run, named_start(member.run)
    own = counts[counts["run"] == run.place].set_index("chosen_by")["epoch"]
    return {
        "run": run.place,
        "method": member.method,
        "seed": member.seed,
        "start": None if start is None else f"{start[0].place}@{start[1]}",
        "epochs": int(run.history()["epoch"].max()),
        **{f"epoch_by_{rule}": int(own.loc[[rule]].iloc[0]) for rule in CHOSEN_BY},
        **cost_of(run),
    }


def _with_group_names(frame: pd.DataFrame, data: Dataset) -> pd.DataFrame:
    names = ["" if group < 0 else data.groups.names[group] for group in frame["group"]]
    frame = frame.reset_index(drop=True)
    frame.insert(frame.columns.get_loc("group") + 1, "group_name", names)
    return frame


def _ties(chosen: pd.DataFrame) -> list[str]:
    """A sentence for each run and rule where several epochs are equally good."""
    once = chosen.dropna(subset="tie").drop_duplicates(["run", "chosen_by"])
    return [f"{run}: {tie}." for run, tie in zip(once["run"], once["tie"], strict=True)]


def _notes(members: Sequence[Member], baseline: str | None) -> list[str]:
    notes = []
    for member in members:
        wanted, last = member.run.record.settings.get("epochs"), int(member.run.history()["epoch"].max())
        if isinstance(wanted, int) and last < wanted:
            notes.append(f"{member.run.path} is not finished: {last} of {wanted} epochs.")
    if baseline is None and len({member.method for member in members}) > 1:
        notes.append(f"No differences are shown: no one method is {CONTROL}; name a baseline with --baseline.")
    varied = differing(members)
    for name in varied:
        values = (f"{value} ({', '.join(rows.index)})" for value, rows in varied.groupby(name, sort=False))
        notes.append(f"The methods differ in {name}, too: {'; '.join(values)}.")
    return notes
