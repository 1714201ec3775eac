"""Tables of what became of a study's units in the runs of a comparison."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from ..comparison.epochs import CHOSEN_BY
from ..comparison.unit_tracking import TOGETHER, UnitTracking
from .comparison import Shown

_RULES = {"worst_group_accuracy": "worst group", "average": "average"}
_PER_SEED = ["method", "seed", "chosen_by", "epoch", "criterion", "traced_on"]


def unit_tracking_tables(found: UnitTracking) -> list[Shown]:
    """The fate of the units, where runs keep the channels of a studied one, and the new traces of the others."""
    return [
        *([tracked_units(found)] if len(found.units) else []),
        *([traces_beside(found)] if len(found.traces) else []),
    ]


def tracked_units(found: UnitTracking) -> Shown:
    """Folded norms and accuracy changes of the followed sets, one row a method, rule, ranking and minority group; means over
    seeds."""
    lines = []
    for about, rows in _blocks(found.units):
        for group, of_group in rows.groupby("group_name", sort=False):
            sets = of_group[of_group["unit"] == TOGETHER]
            alone = (
                of_group[of_group["unit"] != TOGETHER]
                .groupby(_PER_SEED)[["accuracy_change_start", "accuracy_change_chosen"]]
                .mean()
            )
            stated = [f"{row.n_units} {row.called}" for row in sets.itertuples()]
            lines.append(
                {
                    **about,
                    "units": ", ".join(stated if len(set(stated)) > 1 else stated[:1]),
                    "norm": f"x {_mean(sets['norm_ratio'], '.2f')}",
                    "zeroed in train, of": group,
                    **{f"alone, {at}": _points(alone[f"accuracy_change_{at}"]) for at in ("start", "chosen")},
                    **{f"together, {at}": _points(sets[f"accuracy_change_{at}"]) for at in ("start", "chosen")},
                }
            )
            about = dict.fromkeys(about, "")
    title = f"What became of the units of study {found.study}: accuracy changes in points in the starting and the chosen network"
    caption = (
        "Mean ± standard deviation over seeds. norm: folded norm in the chosen network over that in the starting one, "
        "mean over units. alone: mean over units, each zeroed alone. critical: by the study's verdicts; selected: not."
    )
    return Shown(title, pd.DataFrame(lines), caption, 4)


def traces_beside(found: UnitTracking) -> Shown:
    """Overlap of the first units of new traces with those of the studied run, one row a method, rule and ranking."""
    lines = []
    for about, rows in _blocks(found.traces):
        lines.append(
            {
                **about,
                "first units": _same(rows["k"]),
                "of": _same(rows["n"]),
                "shared": _mean(rows["shared"].astype(float), ".1f"),
                "by chance": f"{rows['expected'].mean():.1f}",
                "rank correlation": _mean(rows["rank_correlation"], ".2f"),
            }
        )
    title = f"Traced anew by the rankings of study {found.study}: units shared with the studied run of the same seed"
    caption = "Mean ± standard deviation over seeds. by chance: as many as two random rankings share on average."
    return Shown(title, pd.DataFrame(lines), caption, 4)


def _blocks(frame: pd.DataFrame) -> Iterable[tuple[dict[str, str], pd.DataFrame]]:
    """What a line is about, and its rows over seeds; rules that chose the same epochs share their lines."""
    for method, of_method in frame.groupby("method", sort=False):
        epochs = {rule: of_method[of_method["chosen_by"] == rule].groupby("run")["epoch"].first() for rule in CHOSEN_BY}
        first, second = CHOSEN_BY
        alike = epochs[first].equals(epochs[second])
        for rule in CHOSEN_BY[:1] if alike else CHOSEN_BY:
            own = of_method[of_method["chosen_by"] == rule]
            for (criterion, traced_on), rows in own.groupby(["criterion", "traced_on"], sort=False):
                about = {
                    "method": str(method),
                    "seeds": str(rows["seed"].nunique()),
                    "epochs by": "both" if alike else _RULES[rule],
                    "traced by": f"{criterion} ({traced_on})" if traced_on else str(criterion),
                }
                yield about, rows


def _points(shares: pd.Series) -> str:
    return _mean(100 * shares, "+.1f")


def _mean(values: pd.Series, style: str) -> str:
    if values.isna().all():
        return "-"
    spread = "" if values.count() < 2 else f" ±{values.std():{style.removeprefix('+')}}"
    return f"{round(values.mean(), 4) + 0.0:{style}}{spread}"


def _same(numbers: pd.Series) -> str:
    return ", ".join(map(str, dict.fromkeys(numbers)))
