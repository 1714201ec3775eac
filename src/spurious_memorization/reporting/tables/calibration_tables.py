"""Tables of the calibration: error rates of the tool where the correct answer is known."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ...calibration.rates import Rate
from .number_formats import interval
from .table import Column, Row, Table

_NULLS = {
    "influential": "units picked at random, a family of 3 sizes x 4 groups each",
    "selective": "pseudo-minorities, units by gradient on them",
    "memorizing": '"training" and "unseen" are one random split of unseen samples',
}
_NETWORKS = {
    "no_correlation": "no spurious correlation",
    "permuted_labels": "permuted labels",
    "untrained": "untrained weights",
}


def false_rate_table(rates: Mapping[str, Rate]) -> Table:
    """False answers to each question under exact nulls."""
    rows = pd.DataFrame(
        [
            {
                "question": question,
                "null": _NULLS[question],
                "n": rate.n,
                "networks": rate.networks,
                "rate": rate.value,
                "low": rate.low,
                "high": rate.high,
                "p_above": rate.p_above,
            }
            for question, rate in rates.items()
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
            Column(name="rate", heading="false (95 % interval)", kind="percent", detail=_rate_interval),
            Column(name="p_above", heading="p (rate over 5 %)", kind="p"),
        ),
        caption=(
            "Intervals and tests treat each network as one cluster. "
            "The third question is answered by an interval, not by a p-value."
        ),
    )


def recall_table(recalls: pd.DataFrame) -> Table:
    """Recall of each criterion at the planted number of channels."""
    families = list(dict.fromkeys(recalls["family"]))
    lines = []
    for criterion, rows in recalls.groupby("criterion", sort=False):
        by_family = rows.set_index("family")[["recall", "low", "high"]]
        lines.append(
            {
                "criterion": criterion,
                **{f"{family} {name}": by_family.loc[family, name] for family in families for name in by_family},
            }
        )
    columns = [Column(name="criterion", heading="criterion")]
    for family in families:
        plants = int(recalls.loc[recalls["family"] == family, "plants"].max())
        columns.append(
            Column(
                name=f"{family} recall",
                heading=f"{family} ({plants} plants)",
                kind="decimal",
                detail=lambda row, family=family: interval(row[f"{family} low"], row[f"{family} high"], "decimal"),  # type: ignore[misc]
            )
        )
    return Table(
        title="Planted channels found: recall at the planted number", rows=pd.DataFrame(lines), columns=tuple(columns)
    )


def planted_lines(records: pd.DataFrame) -> list[str]:
    """In words: how many plants were accepted, and the verdicts on them."""
    rows = records[records["kind"] == "planted"]
    accepted = rows[rows["accepted"].astype(bool)]
    counts = ", ".join(f"{verdict} {n}" for verdict, n in accepted["verdict"].value_counts().items())
    rejected = len(rows) - len(accepted)
    left_out = f" The other {rejected} {'is' if rejected == 1 else 'are'} left out." if rejected else ""
    return [
        f"{len(accepted)} of {len(rows)} plants were accepted: ablating them costs the planted group its accuracy, and "
        f"no other group more than one point.{left_out}",
        f"Verdicts on the planted sets: {counts or 'none'}.",
    ]


def positive_rate_table(rates: Mapping[str, Mapping[str, Rate]]) -> Table:
    """Positive answers on networks where little should be found; no claim is made about their rate."""
    questions = ("influential", "selective", "memorizing")
    lines = [
        {
            "network": _NETWORKS[kind],
            **{f"{question} rate": found[question].value for question in questions},
            **{f"{question} n": found[question].n for question in questions},
        }
        for kind, found in rates.items()
    ]
    return Table(
        title="Positive answers to each question: three channels by gradient on each named group",
        rows=pd.DataFrame(lines),
        columns=(
            Column(name="network", heading="network"),
            *(
                Column(
                    name=f"{question} rate",
                    heading=question,
                    kind="percent",
                    detail=lambda row, question=question: f"of {row[f'{question} n']}",  # type: ignore[misc]
                )
                for question in questions
            ),
        ),
    )


def _rate_interval(row: Row) -> str:
    return interval(row["low"], row["high"], "percent")
