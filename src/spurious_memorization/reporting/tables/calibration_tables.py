"""Tables of the calibration: error rates of the tool where the correct answer is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from ...calibration.networks import FAMILIES
from ...calibration.rates import NULL_ROWS, Rate
from ...statistics.verdicts import VERDICTS
from .number_formats import Kind, interval
from .table import Column, Row, Table

KINDS = {
    "memory_10": "memory of 10 points",
    "memory_20": "memory of 20 points",
    "memory_30": "memory of 30 points",
    "memory_60": "memory of 60 points",
    "feature": "a feature",
    "distributed": "distributed memory, three of its channels",
    "polysemantic": "memory and majority in one",
    "example_tied": "example-tied dropout",
}


def false_rate_table(rates: Mapping[str, Rate]) -> Table:
    """False answers in each row of hard nulls."""
    rows = pd.DataFrame(
        [
            {
                **NULL_ROWS[name]._asdict(),
                "n": rate.n,
                "networks": rate.networks,
                "rate": rate.value,
                "low": rate.low,
                "high": rate.high,
                "p_above": rate.p_above,
            }
            for name, rate in rates.items()
        ]
    )
    return Table(
        title="False positive answers where there is nothing to find",
        rows=rows,
        columns=(
            Column(name="question", heading="question"),
            Column(name="null", heading="null"),
            Column(name="n", heading="answers", kind="count"),
            Column(name="networks", heading="networks", kind="count"),
            Column(name="rate", heading="false (95 % interval)", kind="percent", detail=_interval_of("low", "high")),
            Column(name="p_above", heading="p (rate over 5 %)", kind="p"),
        ),
        caption=(
            "Intervals and tests treat each network as one cluster. The third question (memorizing) was asked of every "
            "set; a verdict also needs the second one."
        ),
    )


def power_table(power: pd.DataFrame) -> Table:
    """How often planted memory is found, by the points of accuracy that it costs."""
    rows = power.assign(
        plant=[
            f"{target} points and more" if family == "strong" else f"{target} points"
            for target, family in zip(power["target"], power["family"], strict=True)
        ],
        family=power["family"].replace("strong", "all"),
    )
    return Table(
        title="Planted memory found, by what it costs",
        rows=rows,
        columns=(
            Column(name="plant", heading="made to cost"),
            Column(name="family", heading="networks"),
            Column(name="plants", heading="plants", kind="count"),
            Column(name="points", heading="measured cost", kind="amount"),
            Column(name="memorizing", heading="memorizing", kind="percent", detail=_interval_of("low", "high")),
            Column(name="lower_bound", heading="lower bound", kind="percent"),
            Column(name="critical", heading="at least critical", kind="percent"),
            Column(name="influential", heading="at least influential", kind="percent"),
        ),
        caption="Exact 95 % intervals. The lower bound is one-sided (95 %).",
    )


def verdicts_table(verdicts: pd.DataFrame) -> Table:
    """Verdicts on the known channels of each kind of network."""
    return Table(
        title="Verdicts on known channels",
        rows=verdicts.assign(kind=verdicts["kind"].map(KINDS)),
        columns=(
            Column(name="kind", heading="what the channels hold"),
            Column(name="made", heading="networks", kind="count"),
            Column(name="plants", heading="accepted", kind="count"),
            Column(name="points", heading="measured cost", kind="amount"),
            *(Column(name=verdict, heading=verdict, kind="count") for verdict in VERDICTS),
        ),
        caption="A network is accepted if zeroing the channels costs the group, and no other group, what it should.",
    )


def leaderboard(recalls: pd.DataFrame) -> Table:
    """Which criterion finds planted memory, and which one takes a feature for it."""
    headings: dict[str, str] = {family: f"memory, {family}" for family in FAMILIES}
    headings |= {"memory": "memory, all", "feature": "a feature (mistaken)"}
    return Table(
        title="Leaderboard of criteria: share of the known channels among the first units",
        rows=recalls,
        columns=(
            Column(name="criterion", heading="criterion"),
            *(
                Column(
                    name=f"{name} recall",
                    heading=f"{heading} ({int(recalls[f'{name} n'].max())})",
                    kind="decimal",
                    detail=_interval_of(f"{name} low", f"{name} high", "decimal"),
                )
                for name, heading in headings.items()
            ),
        ),
        caption=("As many first units are taken as are known. In brackets: numbers of networks, and 95 % intervals."),
    )


def _interval_of(low: str, high: str, kind: Kind = "percent") -> Callable[[Row], str]:
    return lambda row: interval(row[low], row[high], kind)
