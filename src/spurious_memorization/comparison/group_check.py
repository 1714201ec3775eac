"""A check of groups: which accuracies are below a limit, and which of these failures chance alone can explain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import UserError
from ..intervals import wilson_interval
from ..runs.epochs import EQUAL
from ..runs.run import Run
from ..settings import MAX_COUNT
from ..statistics.noise_band import noise_band, sidak_level
from .methods import runs_at

LEVEL = 0.95


@dataclass(frozen=True, eq=False, kw_only=True)
class GroupCheck:
    """The result of `check_groups`.

    Arguments:
        max_gap: the limit in points; None if there is none.
        min_worst: the limit in percent; None if there is none.
        split: on which the accuracies were measured.
        confident: whether failures within noise were let pass.
        min_samples: groups with fewer samples were not checked.
        level: of every single noise band; together they have the level 0.95 (Šidák 1967).
        checks: one row per run, group and criterion: run, epoch, group, group_name, minority, n, correct, accuracy, its
            95 % Wilson interval (low, high), average (of the run), criterion ("min_worst" or "max_gap"), threshold (the
            least accuracy that is no failure), the noise band at this threshold (noise_low, noise_high), below (whether
            the accuracy is below the threshold), within_noise (below, but in the band), and outcome ("passed", "failed"
            or "not checked").
        runs: one row per run: run, epoch, n, average, the worst group that was checked (worst_group, worst_n,
            worst_accuracy, low, high), gap (average minus worst), n_checks and n_failed.
    """

    max_gap: float | None
    min_worst: float | None
    split: str
    confident: bool
    min_samples: int
    level: float
    checks: pd.DataFrame
    runs: pd.DataFrame

    @property
    def failed(self) -> pd.DataFrame:
        """The rows of `checks` that fail."""
        return self.checks[self.checks["outcome"] == "failed"]

    @property
    def n_checks(self) -> int:
        """Number of rows of `checks` without those that are not checked."""
        return int((self.checks["outcome"] != "not checked").sum())

    @property
    def passed(self) -> bool:
        """Whether no group of any run fails."""
        return bool(self.failed.empty)


def check_groups(
    *runs: Run | str | Path,
    max_gap: float | None = None,
    min_worst: float | None = None,
    epoch: str | int = "best",
    split: str = "test",
    confident: bool = False,
    min_samples: int = 1,
) -> GroupCheck:
    """Check that no group of a run is much worse than the average, or worse than a limit.

    Both criteria ask whether the accuracy of a group is below a threshold. The average is that over all samples of the
    split. It counts as known when the noise band of `max_gap` is made. The group is a part of it and moves it in the
    same direction, so that this band is a little too wide for a large group.

    Arguments:
        runs: the runs, or their folders; a folder that `--seeds` made stands for all runs in it.
        max_gap: the largest allowed gap in percentage points: average accuracy minus the accuracy of a group.
        min_worst: the least allowed accuracy of a group, in percent.
        epoch: "best" (by the run's validation rule), "last" or a number.
        split: "test", "val" or "train".
        confident: a group below a threshold only fails if it is also below the noise band.
        min_samples: groups with fewer samples are not checked.

    Raises:
        UserError: no limit is given, or one is out of range; a folder is no run; a run has no such epoch, or nothing
            was measured on the split; no group of a run has enough samples.

    Example:
        ```python
        found = sm.check_groups("runs/first", min_worst=70, max_gap=10)
        assert found.passed, found.failed[["group_name", "criterion", "accuracy", "n", "within_noise"]]
        ```
    """
    _check_limits(max_gap, min_worst, min_samples)
    opened = {run.path: run for place in runs for run in ([place] if isinstance(place, Run) else runs_at(place))}
    if not opened:
        raise UserError("no run is given: name the runs to check, such as runs/first")
    counts = pd.concat([group_counts_of(run, epoch, split) for run in opened.values()], ignore_index=True)
    for path, n in counts.groupby("run")["n"].max().items():
        if n < min_samples:
            raise UserError(f"{path}: no group has {min_samples} samples on {split}: lower --min-samples")
    checks, level = checks_of(
        counts, max_gap=max_gap, min_worst=min_worst, confident=confident, min_samples=min_samples
    )
    return GroupCheck(
        max_gap=max_gap,
        min_worst=min_worst,
        split=split,
        confident=confident,
        min_samples=min_samples,
        level=level,
        checks=checks,
        runs=pd.DataFrame([_run_row(rows) for _, rows in checks.groupby("run", sort=False)]),
    )


def group_counts_of(run: Run, epoch: str | int, split: str) -> pd.DataFrame:
    """Samples and correct answers of every group of a run's data, those without samples included.

    Arguments:
        run: the run.
        epoch: "best", "last" or a number.
        split: on which they were counted.

    Returns:
        One row per group: run, epoch, group, group_name, minority, n, correct.

    Raises:
        UserError: there is no such epoch, or nothing was measured on the split.
    """
    chosen, history, data = run.choose_epoch(epoch), run.history(), run.record.data
    measured = history[(history["epoch"] == chosen) & (history["n"] > 0)]
    rows = measured[measured["split"] == split]
    if rows.empty:
        there = ", ".join(dict.fromkeys(measured["split"])) or "none"
        raise UserError(f"{run.path} has no accuracies of epoch {chosen} on {split!r}: choose --split among {there}")
    names = data.groups.names
    counts = rows.set_index("group")[["n", "correct"]].reindex(range(len(names)), fill_value=0).astype(np.int64)
    return pd.DataFrame(
        {
            "run": run.place,
            "epoch": chosen,
            "group": range(len(names)),
            "group_name": names,
            "minority": [name in data.minority for name in names],
            "n": counts["n"],
            "correct": counts["correct"],
        }
    )


def checks_of(
    counts: pd.DataFrame, *, max_gap: float | None, min_worst: float | None, confident: bool, min_samples: int
) -> tuple[pd.DataFrame, float]:
    """The checks of all groups, and the level of each noise band.

    Arguments:
        counts: one row per run and group: at least run, n and correct, as `group_counts_of` returns them.
        max_gap, min_worst, confident, min_samples: as in `check_groups`.

    Returns:
        The rows of `GroupCheck.checks`, and the level. It is adjusted for the number of groups and criteria of all
        runs, without those that are not checked.
    """
    sums = counts.groupby("run", sort=False)[["n", "correct"]].transform("sum")
    average = sums["correct"] / sums["n"]
    low, high = wilson_interval(counts["correct"], counts["n"], LEVEL)
    rows = counts.assign(accuracy=counts["correct"] / counts["n"], low=low, high=high, average=average)
    criteria = []
    if min_worst is not None:
        criteria.append(rows.assign(criterion="min_worst", threshold=min_worst / 100))
    if max_gap is not None:
        criteria.append(rows.assign(criterion="max_gap", threshold=average - max_gap / 100))
    checks = pd.concat(criteria).sort_index(kind="stable").reset_index(drop=True)
    is_checked = checks["n"] >= min_samples
    level = sidak_level(int(is_checked.sum()), LEVEL)
    noise_low, noise_high = noise_band(checks["threshold"], checks["n"], level)
    below = is_checked & (checks["accuracy"] < checks["threshold"] - EQUAL)
    within_noise = below & (checks["accuracy"] >= noise_low)
    failed = below & ~within_noise if confident else below
    return checks.assign(
        noise_low=noise_low,
        noise_high=noise_high,
        below=below,
        within_noise=within_noise,
        outcome=np.select([~is_checked, failed], ["not checked", "failed"], "passed"),
    ), level


def _check_limits(max_gap: float | None, min_worst: float | None, min_samples: int) -> None:
    if max_gap is None and min_worst is None:
        raise UserError("no limit is given: give --min-worst 70 (percent), --max-gap 10 (points), or both")
    for flag, limit in (("--max-gap", max_gap), ("--min-worst", min_worst)):
        if limit is not None and not 0 <= limit <= 100:
            raise UserError(f"{flag} {limit}: choose a number from 0 to 100")
    if min_worst is not None and 0 < min_worst <= 1:
        raise UserError(f"--min-worst {min_worst} is in percent: for an accuracy of 70 % write 70")
    if not 1 <= min_samples <= MAX_COUNT:
        raise UserError(f"--min-samples {min_samples}: choose a number from 1 to {MAX_COUNT}")


def _run_row(checks: pd.DataFrame) -> dict[str, object]:
    of_groups = checks.drop_duplicates("group")
    checked = checks[checks["outcome"] != "not checked"]
    worst = checked.loc[checked["accuracy"].idxmin()]
    return {
        "run": worst["run"],
        "epoch": worst["epoch"],
        "n": of_groups["n"].sum(),
        "average": worst["average"],
        "worst_group": worst["group_name"],
        "worst_n": worst["n"],
        "worst_accuracy": worst["accuracy"],
        "low": worst["low"],
        "high": worst["high"],
        "gap": worst["average"] - worst["accuracy"],
        "n_checks": len(checked),
        "n_failed": int((checks["outcome"] == "failed").sum()),
    }
