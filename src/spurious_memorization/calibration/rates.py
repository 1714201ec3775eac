"""Rates of false answers, power, and the leaderboard of criteria, from the records of a calibration.

`published_rates.json` holds the rates of the calibration in docs/calibration.md. Reports show them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from ..statistics.sequential import LEVEL
from ..statistics.verdicts import VERDICTS
from .networks import FAMILIES


class NullRow(NamedTuple):
    """A row of the table of false answers: what was asked of which networks."""

    question: str
    null: str


NULL_ROWS: dict[str, NullRow] = {
    "influential_random": NullRow("influential", "random units of a layer, a family of sizes 1 to 3 and all groups"),
    "influential_large": NullRow("influential", "ten random units of a layer, all groups"),
    "influential_large_norms": NullRow(
        "influential", "three random units of the quarter with the largest norms, all groups"
    ),
    "selective_like_margins": NullRow(
        "selective", "part of the majority with the minority's margins; by gradient, and large"
    ),
    "memorizing_random": NullRow("memorizing", "three random units of a layer, in networks that memorize"),
    "never_trained_question": NullRow("memorizing", "layers that were never trained, by gradient"),
    "never_trained_verdict": NullRow("verdict memorizing", "layers that were never trained, by gradient"),
    "feature_question": NullRow("memorizing", "channels that hold a feature, in networks that memorize"),
    "feature_verdict": NullRow("verdict memorizing", "channels that hold a feature, in networks that memorize"),
}
"""Questions whose true answer is no. The third question was asked of every set, whatever the first two answers were."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A rate over networks, where each network is one cluster of answers.

    Arguments:
        value: mean of the networks' own rates.
        low, high: 95 % interval of the mean, by the t distribution. If all networks have the same rate, it is the
            interval of Clopper and Pearson (1934), with one trial per network.
        n: number of answers.
        networks: number of networks with at least one answer.
        p_above: one-sided p-value of the null hypothesis that the rate is at most 5 %.
    """

    value: float
    low: float
    high: float
    n: int
    networks: int
    p_above: float


def false_rate(answers: Sequence[Sequence[bool]]) -> Rate:
    """The rate of false answers over networks.

    Arguments:
        answers: the answers of each network. Networks without answers are left out.
    """
    given = [np.asarray(of_one, float) for of_one in answers if len(of_one)]
    rates, n = np.array([of_one.mean() for of_one in given]), sum(map(len, given))
    if not len(rates):
        return Rate(value=np.nan, low=np.nan, high=np.nan, n=0, networks=0, p_above=np.nan)
    mean, k = float(rates.mean()), len(rates)
    if rates.std() == 0:
        exact = stats.binomtest(round(mean * k), k, LEVEL, alternative="greater")
        interval = stats.binomtest(round(mean * k), k).proportion_ci(method="exact")
        low, high, p_above = float(interval.low), float(interval.high), float(exact.pvalue)
    else:
        low, high = _interval_of_mean(rates)
        p_above = float(stats.ttest_1samp(rates, LEVEL, alternative="greater").pvalue)
    return Rate(value=mean, low=low, high=high, n=n, networks=k, p_above=p_above)


def false_rates(records: pd.DataFrame) -> dict[str, Rate]:
    """The rate of "yes" in each row of the table of false answers that has answers."""
    given = [of if isinstance(of, dict) else {} for of in records["answers"]]
    rates = {row: false_rate([of[row] for of in given if row in of]) for row in NULL_ROWS}
    return {row: rate for row, rate in rates.items() if rate.networks}


@dataclass(frozen=True, eq=False, kw_only=True)
class PublishedRates:
    """What a full calibration of this version printed.

    Arguments:
        command: the calibration.
        rates: of false answers, by row.
        power: as `power` returns it.
    """

    command: str
    rates: dict[str, Rate]
    power: pd.DataFrame


@cache
def published_rates() -> PublishedRates:
    """The rates that come with this package."""
    stored = json.loads((Path(__file__).parent / "published_rates.json").read_text(encoding="utf-8"))
    rates = {row: Rate(**rate) for row, rate in stored["rates"].items()}
    return PublishedRates(command=stored["command"], rates=rates, power=pd.DataFrame(stored["power"]))


def power(records: pd.DataFrame) -> pd.DataFrame:
    """How often planted memory was found.

    Returns:
        One row per target and family ("all" for both): target (points of accuracy that the plant was made to cost),
        family, plants (number of accepted networks), points (their mean measured cost), and the shares with the
        verdict memorizing (memorizing, low, high: exact 95 % interval; lower_bound: one-sided 95 %), at least critical
        (critical) and at least influential (influential).
    """
    plants = accepted_plants(records)
    plants = plants[plants["kind"].str.startswith("memory_")]
    rows = []
    for target in sorted(plants["target"].unique()):
        for family in (*FAMILIES, "all"):
            here = plants[(plants["target"] == target) & ((plants["family"] == family) | (family == "all"))]
            if len(here):
                rows.append({"target": int(target), "family": family, **_found(here)})
    strong = plants[plants["target"] >= STRONG]
    if len(strong):
        rows.append({"target": STRONG, "family": "strong", **_found(strong)})
    return pd.DataFrame(rows)


STRONG = 30
"""Memory plants of this number of points and more must be found."""


def _found(plants: pd.DataFrame) -> dict[str, float]:
    verdicts, n = plants["verdict"], len(plants)
    k = int((verdicts == "memorizing").sum())
    interval = stats.binomtest(k, n).proportion_ci(method="exact")
    bound = stats.binomtest(k, n, alternative="greater").proportion_ci(method="exact")
    return {
        "plants": n,
        "points": float(plants["points"].mean()),
        "memorizing": k / n,
        "low": float(interval.low),
        "high": float(interval.high),
        "lower_bound": float(bound.low),
        "critical": float(verdicts.isin(("memorizing", "critical")).mean()),
        "influential": float(verdicts.isin(("memorizing", "critical", "influential")).mean()),
    }


def recalls(records: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard of criteria: share of the known channels among the first units, as many as are known.

    Returns:
        One row per criterion, the best one first: criterion, and for the memory plants of each family, for all of them
        and for the channels that hold a feature: recall (mean over networks), low, high (95 % interval of the mean) and
        n (networks), with names such as "resnet recall".
    """
    plants = accepted_plants(records)
    memory = plants[plants["kind"].str.startswith("memory_")]
    columns: dict[str, pd.DataFrame] = {family: memory[memory["family"] == family] for family in FAMILIES}
    columns |= {"memory": memory, "feature": plants[plants["kind"] == "feature"]}
    names = dict.fromkeys(name for recall in plants["recall"] for name in recall)
    rows = []
    for criterion in names:
        row: dict[str, Any] = {"criterion": criterion}
        for column, here in columns.items():
            values = np.array([recall[criterion] for recall in here["recall"] if criterion in recall])
            low, high = _interval_of_mean(values)
            mean = float(values.mean()) if len(values) else np.nan
            row |= {f"{column} recall": mean, f"{column} low": low, f"{column} high": high, f"{column} n": len(values)}
        rows.append(row)
    return pd.DataFrame(rows).sort_values("memory recall", ascending=False, kind="stable", ignore_index=True)


def described_verdicts(records: pd.DataFrame) -> pd.DataFrame:
    """The verdicts on the known channels, for each kind of planted network.

    Returns:
        One row per kind: kind, made (networks), plants (accepted ones), points (mean measured cost), and the number of
        each verdict.
    """
    rows = []
    for kind, here in records[records["accepted"].notna()].groupby("kind"):
        accepted = here[here["accepted"].astype(bool)]
        counts = accepted["verdict"].value_counts()
        points = float(accepted["points"].mean()) if len(accepted) else np.nan
        row: dict[str, Any] = {"kind": kind, "made": len(here), "plants": len(accepted), "points": points}
        for verdict in VERDICTS:
            row[verdict] = int(counts.get(verdict, 0))
        rows.append(row)
    return pd.DataFrame(rows)


def accepted_plants(records: pd.DataFrame) -> pd.DataFrame:
    """The records of planted networks in which the known answer holds."""
    if "accepted" not in records:
        return records.iloc[:0].assign(recall=[], verdict=[], target=[])
    return records[records["accepted"].map(lambda value: value is True or value == 1).astype(bool)]


def _interval_of_mean(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    if len(values) < 2 or values.std() == 0:
        return (float(values.mean()),) * 2 if len(values) else (np.nan, np.nan)
    interval = stats.ttest_1samp(values, 0).confidence_interval()
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))
