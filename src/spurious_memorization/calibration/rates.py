"""Rates of false verdicts, and recall of the planted channels, from the records of a calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..statistics.sequential import LEVEL
from .networks import FAMILIES

QUESTIONS = ("influential", "selective", "memorizing")
CRITERIA = ("ablation", "gradient", "taylor", "weight_norm", "random")


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


def false_rates(records: pd.DataFrame, kind: str = "exact_nulls") -> dict[str, Rate]:
    """The rate of "yes" to each question in the trials of one kind."""
    rows = records[records["kind"] == kind]
    return {question: false_rate(list(rows[question])) for question in QUESTIONS}


def recalls(records: pd.DataFrame) -> pd.DataFrame:
    """Recall of each criterion when it selects as many channels as were planted.

    Returns:
        One row per network family and criterion: family ("all" for both), criterion, plants (number of accepted
        plants), recall (mean over them), and low and high (95 % interval of the mean).
    """
    rows = []
    accepted = accepted_plants(records)
    for family in (*FAMILIES, "all"):
        here = accepted if family == "all" else accepted[accepted["family"] == family]
        for criterion in CRITERIA:
            values = np.array([recall[criterion] for recall in here["recall"]])
            low, high = _interval_of_mean(values)
            rows.append((family, criterion, len(values), values.mean() if len(values) else np.nan, low, high))
    return pd.DataFrame(rows, columns=["family", "criterion", "plants", "recall", "low", "high"])


def planted_verdicts(records: pd.DataFrame) -> Mapping[str, int]:
    """How often each verdict was given on the planted set."""
    counts = accepted_plants(records)["verdict"].value_counts()
    return {str(verdict): int(n) for verdict, n in counts.items()}


def accepted_plants(records: pd.DataFrame) -> pd.DataFrame:
    """The records of planted networks in which the known answer holds."""
    rows = records[records["kind"] == "planted"]
    return rows[rows["accepted"].astype(bool)] if len(rows) else rows.assign(recall=[], verdict=[])


def _interval_of_mean(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    if len(values) < 2 or values.std() == 0:
        return (float(values.mean()),) * 2 if len(values) else (np.nan, np.nan)
    interval = stats.ttest_1samp(values, 0).confidence_interval()
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))
