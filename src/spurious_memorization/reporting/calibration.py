"""Tables of the calibration: how often the tool is wrong where the answer is known."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from rich.table import Table

from ..calibration.rates import Rate

_NULLS = {
    "influential": "units picked at random, a family of 3 sizes x 4 groups each",
    "selective": "pseudo-minorities, units by gradient on them",
    "memorizing": '"training" and "unseen" are one random split of unseen samples',
}
_DESCRIBED = {
    "no_correlation": "no spurious correlation",
    "permuted_labels": "permuted labels",
    "untrained": "untrained weights",
}


def false_rate_table(rates: Mapping[str, Rate]) -> Table:
    """False answers to each question under exact nulls."""
    table = Table(title="False answers where nothing is to be found", title_justify="left")
    for name in ("question", "null"):
        table.add_column(name)
    for name in ("answers", "networks", "false", "95 % interval", "p (rate over 5 %)"):
        table.add_column(name, justify="right")
    for question, rate in rates.items():
        table.add_row(question, _NULLS[question], str(rate.n), str(rate.networks), *_rate(rate), f"{rate.p_above:.2f}")
    table.caption = "Networks are the clusters of intervals and tests. The third question is answered by an interval."
    table.caption_justify = "left"
    return table


def recall_table(recalls: pd.DataFrame) -> Table:
    """Recall of each criterion at the planted number of channels."""
    table = Table(title="Planted channels found: recall at the planted number", title_justify="left")
    table.add_column("criterion")
    families = list(dict.fromkeys(recalls["family"]))
    for family in families:
        plants = int(recalls.loc[recalls["family"] == family, "plants"].max())
        table.add_column(f"{family} ({plants} plants)", justify="right")
    for criterion, rows in recalls.groupby("criterion", sort=False):
        by_family = {
            row.family: f"{row.recall:.2f} [dim]({row.low:.2f}-{row.high:.2f})[/dim]" for row in rows.itertuples()
        }
        table.add_row(str(criterion), *(by_family[family] for family in families))
    return table


def planted_lines(records: pd.DataFrame) -> list[str]:
    """In words: plants that were accepted, and the verdicts on them."""
    rows = records[records["kind"] == "planted"]
    accepted = rows[rows["accepted"].astype(bool)]
    counts = ", ".join(f"{verdict} {n}" for verdict, n in accepted["verdict"].value_counts().items())
    rejected = len(rows) - len(accepted)
    return [
        f"{len(accepted)} of {len(rows)} plants were accepted (ablating them costs the planted group its accuracy, and "
        f"no other group more than a point){f'; {rejected} were not and are left out' if rejected else ''}.",
        f"Verdicts on the planted sets: {counts or 'none'}.",
    ]


def described_table(rates: Mapping[str, Mapping[str, Rate]]) -> Table:
    """Answers on networks where little should be found, without a claim about their rate."""
    table = Table(title="Yes to each question, three channels by gradient on each named group", title_justify="left")
    table.add_column("network")
    for question in ("influential", "selective", "memorizing"):
        table.add_column(question, justify="right")
    for kind, found in rates.items():
        table.add_row(_DESCRIBED[kind], *(f"{_rate(rate)[0]} of {rate.n}" for rate in found.values()))
    return table


def _rate(rate: Rate) -> tuple[str, str]:
    if math.isnan(rate.value):
        return "-", "-"
    return f"{100 * rate.value:.1f} %", f"{100 * rate.low:.1f}-{100 * rate.high:.1f} %"
