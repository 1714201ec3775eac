"""Tables of what became of a study's units in the runs of a comparison."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ...comparison.epochs import CHOSEN_BY
from ...comparison.studied_units import TOGETHER
from ...comparison.unit_tracking import UnitTracking
from .number_formats import Kind
from .over_seeds import METHOD, RULE_NAMES, spread
from .table import Column, Table

_PER_SEED = ["method", "seed", "chosen_by", "epoch", "criterion", "traced_on"]

_BLOCK = ("method", "seeds", "chosen_by", "ranking")
_BLOCK_COLUMNS = (
    METHOD,
    Column(name="seeds", heading="seeds", kind="count"),
    Column(name="chosen_by", heading="epochs by"),
    Column(name="ranking", heading="ranking"),
)


def unit_tracking_tables(found: UnitTracking) -> list[Table]:
    """The units in runs that keep the channels of a studied run, and the new rankings of other runs."""
    return [
        *([tracked_units(found)] if len(found.units) else []),
        *([new_rankings(found)] if len(found.traces) else []),
    ]


def tracked_units(found: UnitTracking) -> Table:
    """Folded norms and accuracy changes of the tracked sets.

    One row per method, rule, ranking and minority group; means over seeds.
    """
    lines = []
    for about, rows in _blocks(found.units):
        for group, of_group in rows.groupby("group_name", sort=False):
            sets = of_group[of_group["unit"] == TOGETHER]
            alone = (
                of_group[of_group["unit"] != TOGETHER]
                .groupby(_PER_SEED)[["accuracy_change_start", "accuracy_change_chosen"]]
                .mean()
            )
            counts = [f"{row.n_units} {row.called}" for row in sets.itertuples()]
            lines.append(
                {
                    **about,
                    "units": ", ".join(counts if len(set(counts)) > 1 else counts[:1]),
                    **_mean_and_std("norm_ratio", sets["norm_ratio"]),
                    "group": group,
                    **{
                        name: value
                        for at in ("start", "chosen")
                        for what, frame in (("alone", alone), ("together", sets))
                        for name, value in _mean_and_std(f"{what}_{at}", frame[f"accuracy_change_{at}"]).items()
                    },
                }
            )
    points = {"alone": "alone", "together": "together"}
    return Table(
        title=f"What became of the units of study {found.study}: accuracy changes when zeroed, in points",
        rows=pd.DataFrame(lines),
        columns=(
            *_BLOCK_COLUMNS,
            Column(name="units", heading="units"),
            _mean_column("norm_ratio", "norm ratio", "decimal"),
            Column(name="group", heading="group in train"),
            *(
                _mean_column(f"{what}_{at}", f"{text}, {at}", "points")
                for what, text in points.items()
                for at in ("start", "chosen")
            ),
        ),
        caption=(
            "Mean ± standard deviation over seeds. start, chosen: in the starting and in the chosen network. "
            "norm ratio: folded norm in the chosen network divided by that in the starting one, mean over units. "
            "alone: mean over units, each zeroed alone. critical: by the study's verdicts; selected: not critical."
        ),
        blocks=_BLOCK,
    )


def new_rankings(found: UnitTracking) -> Table:
    """Overlap of the first units of new rankings with those of the studied run.

    One row per method, rule and ranking.
    """
    lines = [
        {
            **about,
            "k": _same(rows["k"]),
            "n": _same(rows["n"]),
            **_mean_and_std("shared", rows["shared"].astype(float)),
            "expected": rows["expected"].mean(),
            **_mean_and_std("rank_correlation", rows["rank_correlation"]),
        }
        for about, rows in _blocks(found.traces)
    ]
    return Table(
        title=f"New rankings, compared with those of study {found.study} on the run of the same seed",
        rows=pd.DataFrame(lines),
        columns=(
            *_BLOCK_COLUMNS,
            Column(name="k", heading="first units"),
            Column(name="n", heading="of"),
            _mean_column("shared", "shared", "amount"),
            Column(name="expected", heading="by chance", kind="amount"),
            _mean_column("rank_correlation", "rank correlation", "signed"),
        ),
        caption=(
            "Mean ± standard deviation over seeds. "
            "by chance: the number of units that two random rankings share on average."
        ),
        blocks=_BLOCK,
    )


def _blocks(frame: pd.DataFrame) -> Iterable[tuple[dict[str, Any], pd.DataFrame]]:
    """What a row is about, and its data over seeds. Rules that chose the same epochs share their rows."""
    for method, of_method in frame.groupby("method", sort=False):
        epochs = {rule: of_method[of_method["chosen_by"] == rule].groupby("run")["epoch"].first() for rule in CHOSEN_BY}
        first, second = CHOSEN_BY
        is_same = epochs[first].equals(epochs[second])
        for rule in CHOSEN_BY[:1] if is_same else CHOSEN_BY:
            own = of_method[of_method["chosen_by"] == rule]
            for (criterion, traced_on), rows in own.groupby(["criterion", "traced_on"], sort=False):
                about = {
                    "method": str(method),
                    "seeds": rows["seed"].nunique(),
                    "chosen_by": "both" if is_same else RULE_NAMES[rule],
                    "ranking": f"{criterion} ({traced_on})" if traced_on else str(criterion),
                }
                yield about, rows


def _mean_and_std(name: str, values: pd.Series) -> dict[str, float]:
    return {name: float(values.mean()), f"{name}_std": float(values.std())}


def _mean_column(name: str, heading: str, kind: Kind) -> Column:
    scale, digits = (100.0, 1) if kind == "points" else (1.0, 1 if kind == "amount" else 2)
    return Column(name=name, heading=heading, kind=kind, detail=spread(f"{name}_std", scale, digits))


def _same(numbers: pd.Series) -> str:
    return ", ".join(map(str, dict.fromkeys(numbers)))
