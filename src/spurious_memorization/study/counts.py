"""Counts per group from outcomes, and the effects of selected sets beside their controls."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..data.samples import Samples
from ..engine.outcomes import Block, Outcomes
from ..errors import UserError
from .statistics import paired_interval

COUNTS = (
    "n",
    "correct_before",
    "correct_after",
    "became_wrong",
    "became_right",
    "loss_before",
    "loss_after",
    "margin_before",
    "margin_after",
)


def count(before: Block, after: Block, samples: Samples) -> pd.DataFrame:
    """Exact counts and sums for each edit and group, on the samples given.

    Arguments:
        before: outcomes of the network before any edit: one row.
        after: outcomes of edited networks on the same samples.
        samples: those to count, all among the outcomes' samples.

    Returns:
        One row an edit and group: edit (its position), group, and the columns of `COUNTS`. Losses and margins are sums.

    Raises:
        UserError: a sample is not among the outcomes' samples.
    """
    if not np.isin(samples.index, before.index).all():
        raise UserError(f"some of the samples ({samples.split}) have no outcomes: give those that were evaluated")
    where = np.searchsorted(before.index, samples.index)
    y, g, groups = samples.y, samples.g, len(samples.dataset.groups)
    right_before = before.predicted[0, where] == y
    frames = []
    for row, edit in enumerate(after.edits):
        right = after.predicted[row, where] == y
        columns = {
            "n": np.ones(len(y)),
            "correct_before": right_before,
            "correct_after": right,
            "became_wrong": right_before & ~right,
            "became_right": ~right_before & right,
            "loss_before": before.loss[0, where],
            "loss_after": after.loss[row, where],
            "margin_before": before.margin[0, where],
            "margin_after": after.margin[row, where],
        }
        sums = {name: np.bincount(g, weights=values, minlength=groups) for name, values in columns.items()}
        frames.append(pd.DataFrame({"edit": edit, "group": np.arange(groups), **sums}))
    whole = [name for name in COUNTS if not name.startswith(("loss", "margin"))]
    return pd.concat(frames, ignore_index=True).astype(dict.fromkeys(whole, np.int64))


def effects(outcomes: Outcomes, samples: Samples) -> pd.DataFrame:
    """The effect of every edit that is no control, on every group, beside the controls matched to it.

    Arguments:
        outcomes: what `evaluate` gave.
        samples: those that it was given, or some of them.

    Returns:
        One row an edit and group with the columns of `compare`; `edit` is the position in `outcomes.edits`, `group`
        the group's name. Groups without samples are left out.

    Raises:
        UserError: there is no edit but controls.

    Example:
        ```python
        result = sm.evaluate(model, [edit, *sm.random_controls(model, edit)], data.train)
        sm.effects(result, data.train)
        ```
    """
    if all(edit.matched_to is not None for edit in outcomes.edits):
        raise UserError("there is no edit to show: evaluate at least one that is no control")
    counted = count(outcomes.before, outcomes.after, samples)
    digests = [edit.digest() for edit in outcomes.edits]
    frames = []
    for position, edit in enumerate(outcomes.edits):
        if edit.matched_to is not None:
            continue
        controls = [i for i, other in enumerate(outcomes.edits) if other.matched_to == digests[position]]
        compared = compare(counted[counted["edit"] == position], counted[counted["edit"].isin(controls)])
        frames.append(compared.assign(edit=position, kind=str(edit), n_units=len(edit.units)))
    result = pd.concat(frames, ignore_index=True)
    result["group"] = [samples.dataset.groups.names[g] for g in result["group"]]
    return result


def compare(selected: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Shifts of a selected set beside those of its controls.

    Arguments:
        selected: counts of one selected set, one row a repeat and group.
        controls: counts of its controls on the same samples, one row a control and group; `edit` tells them apart.

    Returns:
        One row a group: group, n, accuracy_before, accuracy_after, shift, low, high (a paired 95 % interval; with
        repeats from their mean counts, which is wider than needed), margin_shift, n_controls, control_low,
        control_median, control_high (of their shifts) and n_as_large (controls that drop at least as far).
    """
    mean = selected.groupby("group")[list(COUNTS)].mean()
    mean = mean[mean["n"] > 0]
    low, high = paired_interval(mean["became_right"], mean["became_wrong"], mean["n"])
    table = pd.DataFrame(
        {
            "n": mean["n"].astype(np.int64),
            "accuracy_before": mean["correct_before"] / mean["n"],
            "accuracy_after": mean["correct_after"] / mean["n"],
            "shift": (mean["correct_after"] - mean["correct_before"]) / mean["n"],
            "low": low,
            "high": high,
            "margin_shift": (mean["margin_after"] - mean["margin_before"]) / mean["n"],
        }
    )
    per_control = _shifts(controls)
    for name, values in (
        ("control_low", per_control.min()),
        ("control_median", per_control.median()),
        ("control_high", per_control.max()),
    ):
        table[name] = values.reindex(table.index).astype(float) if len(per_control) else np.nan
    table["n_controls"] = len(per_control)
    table["n_as_large"] = [
        int((per_control[g] <= s + 1e-12).sum()) if len(per_control) else 0 for g, s in table["shift"].items()
    ]
    return table.reset_index()


def _shifts(controls: pd.DataFrame) -> pd.DataFrame:
    """Shift of each control, one row a control, one column a group."""
    if controls.empty:
        return pd.DataFrame()
    there = controls[controls["n"] > 0]
    shifts = (there["correct_after"] - there["correct_before"]) / there["n"]
    return shifts.groupby([there["edit"], there["group"]]).mean().unstack()


def control_shifts(results: pd.DataFrame, variants: pd.DataFrame) -> pd.DataFrame:
    """Shift of every control: one row a selected set, control, split and group, mean over repeats."""
    controls = variants.loc[variants["family"] == "random", ["variant", "selected_set", "control"]]
    rows = results[results["n"] > 0].merge(controls, on="variant", how="inner")
    rows["shift"] = (rows["correct_after"] - rows["correct_before"]) / rows["n"]
    return rows.groupby(["selected_set", "control", "split", "group"], as_index=False)["shift"].mean()
