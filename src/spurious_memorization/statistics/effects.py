"""The effects of edits: accuracy changes beside their controls, and the answers to the three questions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.samples import Dataset, Samples
from ..engine.outcomes import Block, Outcomes
from ..errors import UserError
from .counts import COUNTS, count
from .intervals import paired_interval
from .verdicts import Answers, Contrast, Selectivity, answers, influence, memorization, selectivity


@dataclass(frozen=True, eq=False)
class SampleEffects:
    """What an edit does to each sample.

    Arguments:
        index: of each sample in the data set, [samples].
        half: the half that it is of, [samples].
        drop: correct before minus correct after, [samples].
        margin_before: [samples].
        margin_drop: margin before minus after, [samples].
    """

    index: NDArray[np.int64]
    half: NDArray[np.int64]
    drop: NDArray[np.float64]
    margin_before: NDArray[np.float64]
    margin_drop: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> SampleEffects:
        return SampleEffects(
            self.index[chosen],
            self.half[chosen],
            self.drop[chosen],
            self.margin_before[chosen],
            self.margin_drop[chosen],
        )


NOTHING = SampleEffects(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0))
"""Effects on no samples."""


def sample_effects(before: Block, after: Block, row: int, halves: NDArray[np.int64], data: Dataset) -> SampleEffects:
    """What the edit of one row of a block does to each of its samples; `halves` are of the whole data set."""
    y = data.y[before.index]
    margin = before.margin[0].astype(np.float64)
    return SampleEffects(
        before.index,
        halves[before.index],
        (before.predicted[0] == y).astype(np.float64) - (after.predicted[row] == y),
        margin,
        margin - after.margin[row],
    )


def averaged(repeats: Sequence[SampleEffects]) -> SampleEffects:
    """The mean over repeats of an edit on the same samples."""
    drop, margin_drop = (np.mean([getattr(r, name) for r in repeats], axis=0) for name in ("drop", "margin_drop"))
    return replace(repeats[0], drop=drop, margin_drop=margin_drop)


def joined(parts: Iterable[SampleEffects]) -> SampleEffects:
    """Effects on several parts of the samples as one, in the order of the samples' indices."""
    several = list(parts)
    arrays = [np.concatenate([getattr(part, name) for part in several]) for name in SampleEffects.__dataclass_fields__]
    order = np.argsort(arrays[0], kind="stable")
    return SampleEffects(*(array[order] for array in arrays))


def effects(
    outcomes: Outcomes, samples: Samples, *, unseen: tuple[Outcomes, Samples] | None = None, seed: int = 0
) -> pd.DataFrame:
    """The effect of every edit that is no control, on every group: its accuracy change beside its controls, and the verdict.

    The p-values are adjusted over groups. They are honest only where the edited units were not selected on the
    samples given: `study` selects on one half and measures on the other.

    Arguments:
        outcomes: what `evaluate` gave.
        samples: those that it was given, or some of them.
        unseen: what `evaluate` gave for the same edits on samples that the network was not trained on, and these.
        seed: of the permutations.

    Returns:
        One row an edit and group with the columns of `beside_controls` and `verdict_columns`; `edit` is the position in
        `outcomes.edits`, `group` the group's name. Groups without samples are left out.

    Raises:
        UserError: there is no edit but controls, or the unseen samples were measured with other edits.

    Example:
        ```python
        edits = [edit, *sm.matched_controls(model, edit)]
        result = sm.evaluate(model, edits, data.train)
        sm.effects(result, data.train, unseen=(sm.evaluate(model, edits[:1], data.test), data.test))
        ```
    """
    if all(edit.matched_to is not None for edit in outcomes.edits):
        raise UserError("there is no edit to show: evaluate at least one that is no control")
    counted = count(outcomes.before, outcomes.after, samples)
    digests = [edit.digest() for edit in outcomes.edits]
    data = samples.dataset
    frames = []
    for position, edit in enumerate(outcomes.edits):
        if edit.matched_to is not None:
            continue
        controls = [i for i, other in enumerate(outcomes.edits) if other.matched_to == digests[position]]
        table = beside_controls(
            counted[counted["edit"] == position], per_control(counted[counted["edit"].isin(controls)])
        )
        together = np.zeros(len(data), np.int64)
        here = sample_effects(outcomes.before, outcomes.after, position, together, data)
        here = here.where(np.isin(here.index, samples.index))
        new = _unseen(unseen, digests[position], data)
        p, adjusted = _influence(table, per_control(counted[counted["edit"].isin(controls)]))
        verdicts = verdict_columns(data, table, p, adjusted, here, new, len(controls), math.nan, seed=seed)
        frames.append(
            pd.concat([table, verdicts], axis=1).assign(edit=position, kind=str(edit), n_units=len(edit.units))
        )
    result = pd.concat(frames, ignore_index=True)
    result["group"] = [data.groups.names[g] for g in result["group"]]
    return result


def _unseen(unseen: tuple[Outcomes, Samples] | None, digest: str, data: Dataset) -> SampleEffects | None:
    if unseen is None:
        return None
    outcomes, samples = unseen
    positions = [i for i, edit in enumerate(outcomes.edits) if edit.digest() == digest]
    if not positions or samples.dataset is not data:
        raise UserError("the unseen samples need the same edits and the same data set: evaluate them on its test split")
    return sample_effects(outcomes.before, outcomes.after, positions[0], np.zeros(len(data), np.int64), data)


def _influence(table: pd.DataFrame, controls: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    groups = table["group"]
    return influence(-table["accuracy_change"].to_numpy(float), -controls.reindex(columns=groups).to_numpy(float))


def beside_controls(selected: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Accuracy changes of a selected set beside those of its controls.

    Arguments:
        selected: counts of one selected set, one row a repeat and group.
        controls: accuracy change of each control, as `per_control` gives it, on the same samples.

    Returns:
        One row a group: group, n, accuracy_before, accuracy_after, accuracy change, low, high (a paired 95 % interval; with
        repeats from their mean counts, which is wider than needed), margin_change, n_controls, control_low,
        control_median, control_high (of their accuracy changes) and n_as_large (controls that drop at least as far).
    """
    mean = selected.groupby("group")[list(COUNTS)].mean()
    mean = mean[mean["n"] > 0]
    low, high = paired_interval(mean["became_right"], mean["became_wrong"], mean["n"])
    table = pd.DataFrame(
        {
            "n": mean["n"].astype(np.int64),
            "accuracy_before": mean["correct_before"] / mean["n"],
            "accuracy_after": mean["correct_after"] / mean["n"],
            "accuracy_change": (mean["correct_after"] - mean["correct_before"]) / mean["n"],
            "low": low,
            "high": high,
            "margin_change": (mean["margin_after"] - mean["margin_before"]) / mean["n"],
        }
    )
    for name, values in (
        ("control_low", controls.min()),
        ("control_median", controls.median()),
        ("control_high", controls.max()),
    ):
        table[name] = values.reindex(table.index).astype(float) if len(controls) else np.nan
    table["n_controls"] = len(controls)
    table["n_as_large"] = [
        int((controls[g] <= s + 1e-12).sum()) if g in controls else 0 for g, s in table["accuracy_change"].items()
    ]
    return table.reset_index()


def per_control(counted: pd.DataFrame) -> pd.DataFrame:
    """Accuracy change of each control, one row a control (`edit`), one column a group; a mean over repeats.

    Arguments:
        counted: counts of controls: one row an edit, group and, where there are such, `repeat`; rows of the same
            are parts of the samples and are summed.
    """
    there = counted[counted["n"] > 0]
    if there.empty:
        return pd.DataFrame()
    keys = [name for name in ("edit", "repeat", "group") if name in there]
    total = there.groupby(keys)[["n", "correct_before", "correct_after"]].sum()
    accuracy_changes = (total["correct_after"] - total["correct_before"]) / total["n"]
    return accuracy_changes.groupby(["edit", "group"]).mean().unstack()


def verdict_columns(
    data: Dataset,
    table: pd.DataFrame,
    p: NDArray[np.float64],
    adjusted: NDArray[np.float64],
    here: SampleEffects,
    unseen: SampleEffects | None,
    n_controls: int,
    norm_ratio: float,
    *,
    seed: int,
) -> pd.DataFrame:
    """The three answers about one selected set, beside the figures that they follow from.

    Arguments:
        table: one row a group, with its `group` and `accuracy_change` on the samples that the controls were measured on.
        p, adjusted: of the first question, for each row.
        here: effects on the samples of the split.
        unseen: effects on samples that the network was not trained on; None where `here` is not of the training split
            or nothing unseen was measured.
        n_controls, norm_ratio: of the matched controls.
        seed: of the permutations.

    Returns:
        One row a group: p, p_adjusted; difference, p_selective, overlap (minority groups only); contrast, contrast_low,
        contrast_high, n_unseen; influential, selective, memorizing (None: can't be told), verdict, reason.
    """
    rows = []
    for group, accuracy_change, p_one, p_all in zip(table["group"], table["accuracy_change"], p, adjusted, strict=True):
        chosen = _selectivity(data, group, here, seed) if group in data.minority else None
        contrast = None if unseen is None else _contrast(data, group, here, unseen)
        found = answers(-accuracy_change, p_all, n_controls, norm_ratio, chosen, contrast)
        rows.append(
            {"p": p_one, "p_adjusted": p_all, **_stated(chosen, contrast), **_words(found, data, group, chosen)}
        )
    return pd.DataFrame(rows, index=table.index).astype(
        dict.fromkeys(("influential", "selective", "memorizing"), object)
    )


def _selectivity(data: Dataset, group: int, here: SampleEffects, seed: int) -> Selectivity:
    """The minority beside all majority groups of its label."""
    label, g = data.groups.label_of(group), data.g[here.index]
    majority = [m for m in data.majority if data.groups.label_of(m) == label]
    chosen = here.where((g == group) | np.isin(g, majority))
    member = data.g[chosen.index] == group
    return selectivity(chosen.drop, member, chosen.margin_before, chosen.half, seed=seed)


def _contrast(data: Dataset, group: int, here: SampleEffects, unseen: SampleEffects) -> Contrast:
    return memorization(
        here.margin_drop[data.g[here.index] == group], unseen.margin_drop[data.g[unseen.index] == group]
    )


def _stated(chosen: Selectivity | None, contrast: Contrast | None) -> Mapping[str, float]:
    return {
        "difference": chosen.difference if chosen else math.nan,
        "p_selective": chosen.p if chosen else math.nan,
        "overlap": chosen.overlap if chosen else math.nan,
        "contrast": contrast.value if contrast else math.nan,
        "contrast_low": contrast.low if contrast else math.nan,
        "contrast_high": contrast.high if contrast else math.nan,
        "n_unseen": contrast.n_unseen if contrast else 0,
    }


def _words(found: Answers, data: Dataset, group: int, chosen: Selectivity | None) -> Mapping[str, object]:
    label = data.groups.label_of(group)
    reason = found.reason
    if chosen is not None and not any(data.groups.label_of(m) == label for m in data.majority):
        reason = "; ".join(filter(None, [f"label {data.groups.classes[label]} has no majority group", reason]))
    return {
        "influential": found.influential,
        "selective": found.selective,
        "memorizing": found.memorizing,
        "verdict": found.verdict,
        "reason": reason,
    }
