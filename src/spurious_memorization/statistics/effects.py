"""The effects of edits: accuracy changes compared with those of controls, and the answers to the three questions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.samples import Dataset, Samples, checked_samples
from ..engine.outcomes import Outcomes
from ..errors import UserError
from .counts import COUNTS, count
from .intervals import Difference, difference_of_means, paired_interval
from .permutation import Selectivity, influence, selectivity
from .sample_effects import SampleEffects, sample_effects
from .verdicts import Answers, answer_questions


def effects(
    outcomes: Outcomes, samples: Samples, *, unseen: tuple[Outcomes, Samples] | None = None, seed: int = 0
) -> pd.DataFrame:
    """The effect of every edit on every group: its accuracy change compared with its controls, and the verdict.

    The p-values are adjusted over groups. They are valid only if the edited units were not selected on these samples.
    `study` takes care of that: it selects on one half of the samples and measures on the other.

    Arguments:
        outcomes: result of `evaluate`.
        samples: the samples that were evaluated, or some of them.
        unseen: result of `evaluate` for the same edits on samples on which the network was not trained, and these
            samples.
        seed: of the permutations.

    Returns:
        One row per edit and group, without controls and without empty groups. The columns are those of
        `compare_with_controls` and `verdict_columns`; `edit` is the position in `outcomes.edits`, `group` the name of
        the group.

    Raises:
        UserError: all edits are controls, or the unseen samples were evaluated with other edits.

    Example:
        ```python
        edits = [edit, *sm.matched_controls(model, edit)]
        result = sm.evaluate(model, edits, data.train)
        sm.effects(result, data.train, unseen=(sm.evaluate(model, edits[:1], data.test), data.test))
        ```
    """
    if all(edit.matched_to is not None for edit in outcomes.edits):
        raise UserError("all edits are controls: evaluate at least one edit that is no control")
    samples = checked_samples(samples)
    counted = count(outcomes.before, outcomes.after, samples)
    digests = [edit.digest() for edit in outcomes.edits]
    data = samples.dataset
    frames = []
    for position, edit in enumerate(outcomes.edits):
        if edit.matched_to is not None:
            continue
        controls = [i for i, other in enumerate(outcomes.edits) if other.matched_to == digests[position]]
        control_changes = changes_per_control(counted[counted["edit"].isin(controls)])
        table = compare_with_controls(counted[counted["edit"] == position], control_changes)
        one_half = np.zeros(len(data), np.int64)
        here = sample_effects(outcomes.before, outcomes.after, position, one_half, data)
        here = here.where(np.isin(here.index, samples.index))
        p, adjusted = influence(
            table["accuracy_change"].to_numpy(float), control_changes.reindex(columns=table["group"]).to_numpy(float)
        )
        verdicts = verdict_columns(
            data,
            table,
            p=p,
            adjusted=adjusted,
            here=here,
            unseen=_unseen_effects(unseen, digests[position], data),
            n_controls=len(controls),
            norm_ratio=math.nan,
            seed=seed,
        )
        frames.append(
            pd.concat([table, verdicts], axis=1).assign(edit=position, kind=str(edit), n_units=len(edit.units))
        )
    result = pd.concat(frames, ignore_index=True)
    result["group"] = [data.groups.names[g] for g in result["group"]]
    return result


def _unseen_effects(unseen: tuple[Outcomes, Samples] | None, digest: str, data: Dataset) -> SampleEffects | None:
    if unseen is None:
        return None
    outcomes, samples = unseen
    positions = [i for i, edit in enumerate(outcomes.edits) if edit.digest() == digest]
    if not positions or samples.dataset is not data:
        raise UserError("the unseen samples need the same edits and the same data set: evaluate them on its test split")
    return sample_effects(outcomes.before, outcomes.after, positions[0], np.zeros(len(data), np.int64), data)


def compare_with_controls(selected: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Accuracy changes of a selected set, compared with those of its controls.

    Arguments:
        selected: counts of one selected set, one row per repeat and group.
        controls: accuracy change of each control on the same samples, as `changes_per_control` gives it.

    Returns:
        One row per group: group, n, accuracy_before, accuracy_after, accuracy_change, low, high (a paired 95 %
        interval; with repeats it is made from their mean counts and is wider than needed), margin_change, n_controls,
        control_low, control_median, control_high (of the controls' accuracy changes) and n_controls_as_large (number
        of controls that drop at least as much).
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
    table["n_controls_as_large"] = [
        int((controls[g] <= change + 1e-12).sum()) if g in controls else 0
        for g, change in table["accuracy_change"].items()
    ]
    return table.reset_index()


def changes_per_control(counted: pd.DataFrame) -> pd.DataFrame:
    """Accuracy change of each control (rows) on each group (columns); a mean over repeats.

    Arguments:
        counted: counts of controls: one row per edit, group and, with repeats, `repeat`. Rows that share these are
            parts of the samples and are summed.
    """
    measured = counted[counted["n"] > 0]
    if measured.empty:
        return pd.DataFrame()
    keys = [name for name in ("edit", "repeat", "group") if name in measured]
    total = measured.groupby(keys)[["n", "correct_before", "correct_after"]].sum()
    changes = (total["correct_after"] - total["correct_before"]) / total["n"]
    return changes.groupby(["edit", "group"]).mean().unstack()


def verdict_columns(
    data: Dataset,
    table: pd.DataFrame,
    *,
    p: NDArray[np.float64],
    adjusted: NDArray[np.float64],
    here: SampleEffects,
    unseen: SampleEffects | None,
    n_controls: int,
    norm_ratio: float,
    seed: int,
) -> pd.DataFrame:
    """The three answers about one selected set, with the figures from which they follow.

    Arguments:
        data: labels and groups of the samples.
        table: one row per group, with its `group` and its `accuracy_change` on the samples on which the controls were
            measured.
        p, adjusted: p-values of the first question, [rows].
        here: effects on the samples of the split.
        unseen: effects on samples on which the network was not trained; None where `here` is not from the training
            split or nothing unseen was measured.
        n_controls, norm_ratio: of the matched controls.
        seed: of the permutations.

    Returns:
        One row per group: p, p_adjusted; difference, p_selective, overlap (minority groups only); contrast,
        contrast_low, contrast_high, n_unseen; influential, selective, memorizing (None: can't be answered), verdict,
        reason.
    """
    rows = []
    for group, change, p_one, p_all in zip(table["group"], table["accuracy_change"], p, adjusted, strict=True):
        selective = _selectivity(data, group, here, seed) if group in data.minority else None
        contrast = None if unseen is None else _contrast(data, group, here, unseen)
        answers = answer_questions(
            change, p_all, n_controls=n_controls, norm_ratio=norm_ratio, selective=selective, contrast=contrast
        )
        figures = _figures(selective, contrast)
        rows.append({"p": p_one, "p_adjusted": p_all, **figures, **_answer_columns(answers, data, group, selective)})
    return pd.DataFrame(rows, index=table.index).astype(
        dict.fromkeys(("influential", "selective", "memorizing"), object)
    )


def _selectivity(data: Dataset, group: int, here: SampleEffects, seed: int) -> Selectivity:
    """The minority group compared with all majority groups of its label."""
    label, g = data.groups.label_of(group), data.g[here.index]
    majority = [m for m in data.majority if data.groups.label_of(m) == label]
    compared = here.where((g == group) | np.isin(g, majority))
    member = data.g[compared.index] == group
    return selectivity(compared.accuracy_change, member, compared.margin_before, compared.half, seed=seed)


def _contrast(data: Dataset, group: int, here: SampleEffects, unseen: SampleEffects) -> Difference:
    """How much further the margin of a group's training samples drops than that of its unseen samples.

    A channel that holds a feature of the group hurts both. One that holds its samples hurts only the training samples.
    """
    return difference_of_means(
        -here.margin_change[data.g[here.index] == group], -unseen.margin_change[data.g[unseen.index] == group]
    )


def _figures(selective: Selectivity | None, contrast: Difference | None) -> Mapping[str, float]:
    return {
        "difference": selective.difference if selective else math.nan,
        "p_selective": selective.p if selective else math.nan,
        "overlap": selective.overlap if selective else math.nan,
        "contrast": contrast.value if contrast else math.nan,
        "contrast_low": contrast.low if contrast else math.nan,
        "contrast_high": contrast.high if contrast else math.nan,
        "n_unseen": contrast.n_second if contrast else 0,
    }


def _answer_columns(answers: Answers, data: Dataset, group: int, selective: Selectivity | None) -> Mapping[str, object]:
    label = data.groups.label_of(group)
    reason = answers.reason
    if selective is not None and not any(data.groups.label_of(m) == label for m in data.majority):
        reason = "; ".join(filter(None, [f"label {data.groups.classes[label]} has no majority group", reason]))
    return {
        "influential": answers.influential,
        "selective": answers.selective,
        "memorizing": answers.memorizing,
        "verdict": answers.verdict,
        "reason": reason,
    }
