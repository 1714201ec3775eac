"""Head or features? For every method, the accuracy of a new head that is fitted on balanced held-out data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..atomic import write_text
from ..datasets.samples import Dataset, Samples
from ..errors import UserError
from ..networks.build import build
from ..networks.head import linear_head
from ..networks.prototypes import prototypes_in
from ..runs.run import Run
from ..schedulers.scheduler import announced, workers_for
from ..settings import Execution, Settings
from ..stored_files import BrokenFileError, checked_record, is_stored, read_json, reading
from ..training.epoch_selection import val_halves
from ..training.heads import Features, features_of
from ..training.objectives.dfr import DfrSettings, fit_head
from .compare import Comparison, compare
from .epochs import CHOSEN_BY
from .methods import Member, kind_of
from .summary import summarized

AS_TRAINED = "as trained"
REFITTED = "refitted"

VALUE_COLUMNS = ("run", "method", "seed", "chosen_by", "epoch", "strength", "head", "measure", "value")

REMEDY = "delete it and run the same command again"

Counts = tuple[int, ...]


class HeadToFit(NamedTuple):
    """A network whose head is fitted.

    Arguments:
        run: its run.
        epoch: its epoch.
        seed: of the balanced draws.
        n: samples of test in each group, [groups].
        correct_as_trained: of these, those that the network answers correctly, [groups].
    """

    run: Path
    epoch: int
    seed: int
    n: Counts
    correct_as_trained: Counts


class RefittedHead(Settings):
    """The stored result for the network of one epoch.

    Arguments:
        seed: of the balanced draws, that of the run.
        fit: settings of the fit.
        n: samples of test in each group, [groups].
        correct_as_trained: of these, those that the network answers correctly, [groups].
        correct: those that it answers correctly with the new head, [groups].
        strength: inverse strength of the penalty that was chosen.
    """

    seed: int
    fit: dict[str, Any]
    n: Counts
    correct_as_trained: Counts
    correct: Counts
    strength: float


@dataclass(frozen=True, eq=False, kw_only=True)
class RefittedHeads:
    """The result of `refitted_heads`.

    Arguments:
        baseline: method to which differences are taken: plain ERM, otherwise the first one.
        values: one row per run, rule that chose the epoch, head ("as trained" or "refitted") and measure
            ("worst_group_accuracy" or "average"): run, method, seed, chosen_by, epoch, strength (of the new head's
            penalty, inverse), head, measure, value (on test).
        summary: one row per method, rule, head and measure: method, chosen_by, head, measure, n_seeds, mean, std, and
            n_paired, difference, difference_std, low, high of `summarized`.
        notes: sentences that a reader of the frames must know.
    """

    baseline: str
    values: pd.DataFrame
    summary: pd.DataFrame
    notes: tuple[str, ...]


def refitted_heads(
    runs: Comparison | Iterable[Run | str | Path],
    *,
    data_folder: Path | None = None,
    execution: Execution | None = None,
) -> RefittedHeads:
    """Fit a new head on the features of every network of a comparison, and measure it on test.

    The new head is that of deep feature reweighting (`fit_head`; Kirichenko et al. 2023): fitted on group-balanced
    draws from one half of val, while the other half chooses the strength of the penalty. All other layers stay. So the
    new head shows what the features allow, whatever the method's own head makes of them (Izmailov et al. 2022, On
    Feature Learning in the Presence of Spurious Correlations). If the refitted heads of two methods are equally good,
    their features are equally good in this respect, and the methods differ in the head.

    Results are stored in each run, as RUN/refitted_heads/epoch_012.json, so that a second call only reads them.

    Arguments:
        runs: the result of `compare`, or its arguments.
        data_folder: where the runs' data are now, if they were moved; a comparison uses its own.
        execution: device, workers, batch size; changes no result. A `WorkerExecution` names where heads are fitted.

    Raises:
        UserError: as for `compare`; or another command is writing a run, or a stored result is broken.

    Example:
        ```python
        found = sm.refitted_heads(["runs/erm", "runs/groupdro"])
        found.summary.query("measure == 'worst_group_accuracy'")[["method", "chosen_by", "head", "mean", "difference"]]
        ```
    """
    found = runs if isinstance(runs, Comparison) else compare(runs, data_folder=data_folder)
    baseline = _baseline(found)
    fitting, selecting = val_halves(found.data)
    notes = _missing_groups(fitting)
    members: list[Member] = []
    for member in [] if notes else found.members:
        if _has_features(member.run):
            members.append(member)
        else:
            notes.append(f"No head of {member.run.path} is refitted: its logits don't come from one linear layer.")
    known = _stored_or_fitted(members, found, (fitting, selecting), execution or Execution())
    rows = [_values(member, found, known) for member in members]
    values = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=[*VALUE_COLUMNS])
    return RefittedHeads(baseline=baseline, values=values, summary=_summary(values, baseline), notes=tuple(notes))


def _baseline(found: Comparison) -> str:
    """Plain ERM, if one method is; otherwise the first method."""
    plain = dict.fromkeys(member.method for member in found.members if kind_of(member.run) == "erm")
    return next(iter(plain)) if len(plain) == 1 else found.methods[0]


def _missing_groups(fitting: Samples) -> list[str]:
    """A note if a group of the data has no sample to fit on."""
    names = fitting.dataset.groups.names
    missing = [names[group] for group in np.unique(fitting.dataset.g) if not (fitting.g == group).any()]
    if not missing:
        return []
    return [f"No head is refitted: group {missing[0]!r} has no sample to fit on; it needs at least two in val."]


def _has_features(run: Run) -> bool:
    """Whether the logits of a run's network come from one linear layer, or from prototypes in its place."""
    model = build(run.record.network)
    if prototypes_in(model) is not None:
        return True
    try:
        linear_head(model, "a new head")
    except UserError:
        return False
    return True


def _values(member: Member, found: Comparison, known: Mapping[HeadToFit, RefittedHead]) -> pd.DataFrame:
    """The rows of `RefittedHeads.values` for one run."""
    lines = []
    for rule, wanted in _heads_of(member, found).items():
        result = known[wanted]
        about = {"run": member.run.place, "method": member.method, "seed": member.seed, "chosen_by": rule}
        about |= {"epoch": wanted.epoch, "strength": result.strength}
        for head, correct in ((AS_TRAINED, result.correct_as_trained), (REFITTED, result.correct)):
            for measure, value in _accuracies(correct, result.n).items():
                lines.append({**about, "head": head, "measure": measure, "value": value})
    return pd.DataFrame(lines)[[*VALUE_COLUMNS]]


def _heads_of(member: Member, found: Comparison) -> dict[str, HeadToFit]:
    """The network of a run that each rule chooses."""
    tested = found.counts[(found.counts["run"] == member.run.place) & (found.counts["split"] == "test")]
    heads: dict[str, HeadToFit] = {}
    for rule in CHOSEN_BY:
        own = tested[tested["chosen_by"] == rule]
        by_group = own.set_index("group")[["n", "correct"]].reindex(range(len(found.data.groups)), fill_value=0)
        heads[rule] = HeadToFit(
            member.run.path,
            int(own["epoch"].iloc[0]),
            member.seed,
            tuple(by_group["n"].tolist()),
            tuple(by_group["correct"].tolist()),
        )
    return heads


def _stored_or_fitted(
    members: Sequence[Member], found: Comparison, halves: tuple[Samples, Samples], execution: Execution
) -> dict[HeadToFit, RefittedHead]:
    """The results of all networks: from the runs' folders, if they are there and were made alike. The others are
    measured and stored."""
    wanted = dict.fromkeys(head for member in members for head in _heads_of(member, found).values())
    stored = {head: _stored(head) for head in wanted}
    known = {head: result for head, result in stored.items() if result is not None}
    missing = [head for head in wanted if head not in known]
    if not missing:
        return known
    names = [f"a new head of epoch {head.epoch} of {head.run}" for head in missing]
    with ExitStack() as held:
        for path in dict.fromkeys(head.run for head in missing):
            held.enter_context(Run(path).writing())
        workers = held.enter_context(workers_for(execution, partial(_fitting, found.data, halves, execution)))
        for number, (correct, strength) in announced(workers.run(missing), names):
            head = missing[number]
            known[head] = RefittedHead.model_validate({**_key(head), "correct": correct, "strength": strength})
            write_text(_file(head), known[head].model_dump_json(indent=2) + "\n")
    return known


def _stored(head: HeadToFit) -> RefittedHead | None:
    """The stored result of a network, if it was made with the same settings from the same answers."""
    if not is_stored(_file(head)):
        return None
    result, key = _read(_file(head)), _key(head)
    return result if result.model_dump(mode="json", include=set(key)) == key else None


def _file(head: HeadToFit) -> Path:
    return head.run / "refitted_heads" / f"epoch_{head.epoch:03d}.json"


def _key(head: HeadToFit) -> dict[str, Any]:
    """What a stored result must agree with."""
    return {
        "seed": head.seed,
        "fit": DfrSettings().model_dump(mode="json"),
        "n": list(head.n),
        "correct_as_trained": list(head.correct_as_trained),
    }


def _read(file: Path) -> RefittedHead:
    stored = checked_record(file, read_json(file, REMEDY), RefittedHead, REMEDY)
    with reading(file, REMEDY):
        lengths = {len(stored.n), len(stored.correct), len(stored.correct_as_trained)}
        if len(lengths) > 1 or any(not 0 <= k <= n for k, n in zip(stored.correct, stored.n, strict=True)):
            raise BrokenFileError("its counts contradict each other")
    return stored


def _fitting(
    data: Dataset, halves: tuple[Samples, Samples], execution: Execution
) -> Callable[[HeadToFit], tuple[Counts, float]]:
    """What a worker holds: a function that fits a new head."""
    return partial(_fitted, data, halves, execution)


def _fitted(
    data: Dataset, halves: tuple[Samples, Samples], execution: Execution, wanted: HeadToFit
) -> tuple[Counts, float]:
    """Correct answers with a new head in each group of test, [groups], and the inverse strength of its penalty."""
    run = Run(wanted.run)
    model, precision = run.network(wanted.epoch), run.record.settings.get("precision", "float32")
    seen = data.with_transform(run.record.data.transform)

    def features(samples: Samples) -> Features:
        return features_of(model, Samples(seen, samples.index, samples.split), precision, execution)

    fitting, selecting = (features(half) for half in halves)
    head, strength = fit_head(fitting, selecting, DfrSettings(), wanted.seed)
    test = features(data.test)
    right = head.predict(test.values) == test.y
    return _counted(test.g[right], len(data.groups)), strength


def _counted(g: NDArray[np.int64], n_groups: int) -> Counts:
    return tuple(np.bincount(g, minlength=n_groups).tolist())


def _accuracies(correct: Sequence[int], n: Sequence[int]) -> dict[str, float]:
    k, of = np.array(correct), np.array(n)
    return {"worst_group_accuracy": float((k[of > 0] / of[of > 0]).min()), "average": float(k.sum() / of.sum())}


def _summary(values: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Means over seeds, and differences to the baseline; `summarized` knows the head as a split."""
    plain = values.rename(columns={"head": "split"}).assign(group=-1, low=np.nan, high=np.nan)
    summary = summarized(plain.astype({"value": float}), baseline)
    return summary.rename(columns={"split": "head"}).drop(columns=["group", "sample_low", "sample_high"])
