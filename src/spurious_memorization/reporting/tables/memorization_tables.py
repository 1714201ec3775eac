"""Tables of memorization scores."""

from __future__ import annotations

import pandas as pd

from .number_formats import format_value
from .table import Column, Row, Table


def memorization_table(groups: pd.DataFrame, n_networks: int) -> Table:
    """Memorization scores by group.

    Arguments:
        groups: as `MemorizationScores.groups` returns it.
        n_networks: number of networks behind the scores.
    """
    return Table(
        title="Memorization scores",
        rows=groups,
        columns=(
            Column(name="group_name", heading="group", strong="minority", strong_sign="*"),
            Column(name="n", heading="samples", kind="count"),
            Column(name="score", heading="mean score (standard error)", kind="decimal", detail=_error),
            Column(name="accuracy_in", heading="accuracy if trained on", kind="percent"),
            Column(name="accuracy_out", heading="if left out", kind="percent"),
            Column(name="memorized", heading="score of 0.25 or more", kind="percent"),
        ),
        caption=(
            f"Score of a sample: accuracy of the networks that were trained on it minus accuracy of the others, over "
            f"{n_networks} networks (Feldman and Zhang 2020). *: minority group."
        ),
    )


def most_memorized(scores: pd.DataFrame, n: int) -> pd.DataFrame:
    """The `n` rows with the highest scores, the highest first."""
    return scores.dropna(subset="score").sort_values(["score", "sample"], ascending=[False, True]).head(n)


def most_memorized_table(scores: pd.DataFrame, n: int) -> Table:
    """The samples with the highest scores."""
    rows = most_memorized(scores, n)
    paths = zip(rows["path"], rows["sample"], strict=True)
    rows = rows.assign(name=[path if isinstance(path, str) else f"sample {index}" for path, index in paths])
    return Table(
        title="Most memorized samples",
        rows=rows,
        columns=(
            Column(name="name", heading="sample"),
            Column(name="label", heading="label"),
            Column(name="group_name", heading="group", strong="minority", strong_sign="*"),
            Column(name="score", heading="score (standard error)", kind="decimal", detail=_error),
            Column(name="accuracy_in", heading="accuracy if trained on", kind="percent"),
            Column(name="accuracy_out", heading="if left out", kind="percent"),
        ),
    )


def proxies_table(correlations: pd.DataFrame) -> Table:
    """Rank correlations of cheap proxies with the scores: one row per proxy, one column per group."""
    names = list(dict.fromkeys(correlations["group_name"]))
    rows = correlations.pivot(index="proxy", columns="group_name", values="rank_correlation")
    rows = rows.loc[list(dict.fromkeys(correlations["proxy"]))].reset_index()
    rows["proxy"] = rows["proxy"].str.replace("_", " ")
    return Table(
        title="Rank correlation of cheap proxies with the scores",
        rows=rows,
        columns=(
            Column(name="proxy", heading="proxy"),
            *(Column(name=name, heading=name, kind="signed") for name in names),
        ),
        caption=(
            "Spearman's rank correlation. Loss and gradient norm are those of the last epoch; first error is the norm "
            "of probabilities minus label after the first epoch. -: one of the two is constant."
        ),
    )


def _error(row: Row) -> str:
    return f"(±{format_value(row['standard_error'], 'decimal')})"
