"""Tables of the rules that choose epochs, and of what they lose on test."""

from __future__ import annotations

from typing import get_args

import pandas as pd

from ...comparison.compare import Comparison
from ...comparison.selection_rules import ALL_METHODS, SelectionRule, mean_regrets
from .over_seeds import METHOD, spread
from .table import Column, Table

RULES: dict[SelectionRule, str] = {
    "worst_group_accuracy": "worst group *",
    "worst_group_bound": "lower bound of the worst group *",
    "worst_class_accuracy": "worst class",
    "average": "average",
    "held_out_memorization": "least memorization of the worst class",
}
assert set(RULES) == set(get_args(SelectionRule))

_COLUMNS = (
    Column(name="rule", heading="epochs by, on half of val"),
    Column(name="epochs", heading="epochs"),
    Column(
        name="worst_group_accuracy",
        heading="worst group",
        kind="percent_number",
        detail=spread("worst_group_accuracy_std", 100),
    ),
    Column(name="regret", heading="regret", kind="percent_number", detail=spread("regret_std", 100)),
)
_CAPTION = (
    "worst group: on test in %, mean ± standard deviation. "
    "regret: the best epoch by worst group on test less the chosen one, in points. * needs the groups of val."
)


def epoch_choices(found: Comparison) -> Table:
    """One row per method and rule: chosen epochs, worst-group accuracy on test in them, and the regret; at last over
    all methods."""
    means = _shown(found)
    return Table(
        title="Choosing the epoch: what each rule loses",
        rows=means,
        columns=(METHOD, *_COLUMNS),
        caption=f"{_CAPTION} Epochs are in the order of the seeds.",
        blocks=("method",),
    )


def epoch_choices_overall(found: Comparison) -> Table:
    """One row per rule, over all runs: worst-group accuracy on test, and the regret."""
    means = _shown(found)
    one = means[means["method"] == means["method"].iloc[-1]]
    return Table(
        title=f"Choosing the epoch: what each rule loses, over all {one['n_runs'].max()} runs",
        rows=one.reset_index(drop=True),
        columns=tuple(column for column in _COLUMNS if column.name != "epochs"),
        caption=_CAPTION,
    )


def _shown(found: Comparison) -> pd.DataFrame:
    means = mean_regrets(found.selections)
    every = means["method"] == ALL_METHODS
    return means.assign(rule=means["rule"].map(RULES), epochs=means["epochs"].mask(every))
