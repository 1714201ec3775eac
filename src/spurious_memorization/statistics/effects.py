"""The effects of edits: accuracy changes compared with those of null sets, and the answers to the questions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..datasets.samples import Dataset, Samples, checked_samples
from ..edits.edit import Edit
from ..engine.outcomes import Outcomes
from ..errors import UserError
from ..intervals import paired_interval
from .contrast import contrast_p
from .counts import COUNTS, count
from .damage import DamageMatched, SetEffects, damage_matched
from .influence import Influence, influence
from .sample_effects import SampleEffects, sample_effects
from .selectivity import GroupEffects, Selectivity, selectivity
from .verdicts import answer_questions

Array = NDArray[np.float64]

NO_DAMAGE = DamageMatched(
    n=0,
    n_near=0,
    damage=math.nan,
    damage_ratio=math.nan,
    p_localized=math.nan,
    drop=math.nan,
    p_memorizing=math.nan,
    contrast=math.nan,
    contrast_matched=math.nan,
)
"""Where the third question was not asked."""


def tested_split(effects: pd.DataFrame) -> str:
    """The split whose verdicts are summarized: training if it was measured, otherwise the first one."""
    return "train" if (effects["split"] == "train").any() else str(effects["split"].iloc[0])


def effects(
    outcomes: Outcomes, samples: Samples, *, unseen: tuple[Outcomes, Samples] | None = None, seed: int = 0
) -> pd.DataFrame:
    """The effect of every edit on every group: its accuracy change compared with its null sets, and the verdict.

    The p-values are adjusted over groups. They are valid only if the edited units were not selected on these samples.
    `study` takes care of that: it selects on one half of the samples and measures on the other.

    Arguments:
        outcomes: result of `evaluate`. Edits that name another one by `matched_to` stand beside it: those with as many
            units are its null sets (`null_sets`), and those with about its damage are its damage-matched sets
            (`sets_of_many_sizes`).
        samples: the training samples that were evaluated, or some of them.
        unseen: result of `evaluate` for the same edits on samples on which the network was not trained, and these
            samples.
        seed: of the permutations.

    Returns:
        One row per edit and group, without null sets and without empty groups. The columns are those of
        `compare_with_controls` and `verdict_columns`; `edit` is the position in `outcomes.edits`, `group` the name of
        the group.

    Raises:
        UserError: all edits belong to another one, or the unseen samples were evaluated with other edits.

    Example:
        ```python
        edits = [edit, *sm.null_sets(model, edit), *sm.sets_of_many_sizes(model, edit)]
        train, test = sm.evaluate(model, edits, data.train), sm.evaluate(model, edits, data.test)
        sm.effects(train, data.train, unseen=(test, data.test))
        ```
    """
    if all(edit.matched_to is not None for edit in outcomes.edits):
        raise UserError("every edit stands beside another one: evaluate at least one edit without matched_to")
    samples = checked_samples(samples)
    data = samples.dataset
    if unseen is not None:
        _check_unseen(outcomes, unseen, data)
    counted = _counted([(outcomes, samples), *([unseen] if unseen else [])])
    here = counted[counted["is_here"]]
    frames = []
    for position, edit in enumerate(outcomes.edits):
        if edit.matched_to is not None:
            continue
        beside = [i for i, other in enumerate(outcomes.edits) if other.matched_to == edit.digest()]
        alike = [i for i in beside if len(outcomes.edits[i].units) == len(edit.units)]
        control_changes = changes_per_control(here[here["edit"].isin(alike)])
        table = compare_with_controls(here[here["edit"] == position], control_changes)
        changes = np.vstack([table["accuracy_change"], control_changes.reindex(columns=table["group"]).to_numpy(float)])
        of_samples = _on_samples(outcomes, samples, position)
        selective = selectivity_of_sets(data, [of_samples], seed=seed)
        damage = _damage(data, counted, outcomes.edits, position, beside, selective)
        verdicts = verdict_columns(
            data,
            table,
            influence=influence(changes),
            selective={group: answers[0] for group, answers in selective.items()},
            damage=damage,
            p_contrast=_p_contrast(data, of_samples, position, unseen, damage, seed=seed),
            n_controls=len(alike),
        )
        frames.append(
            pd.concat([table, verdicts], axis=1).assign(edit=position, kind=str(edit), n_units=len(edit.units))
        )
    result = pd.concat(frames, ignore_index=True)
    result["group"] = [data.groups.names[g] for g in result["group"]]
    return result


def _check_unseen(outcomes: Outcomes, unseen: tuple[Outcomes, Samples], data: Dataset) -> None:
    others, samples = unseen
    is_same = [edit.digest() for edit in others.edits] == [edit.digest() for edit in outcomes.edits]
    if not is_same or samples.dataset is not data:
        raise UserError("the unseen samples need the same edits and the same data set: evaluate them on its test split")


def _counted(parts: Sequence[tuple[Outcomes, Samples]]) -> pd.DataFrame:
    """Counts of all edits; the first part is that of the samples themselves, the others are unseen."""
    frames = [
        count(of.before, of.after, samples).assign(split="unseen" if number else "train", is_here=not number)
        for number, (of, samples) in enumerate(parts)
    ]
    return pd.concat(frames, ignore_index=True)


def _damage(
    data: Dataset,
    counted: pd.DataFrame,
    edits: Sequence[Edit],
    position: int,
    beside: Sequence[int],
    groups: Mapping[int, object],
) -> Mapping[int, DamageMatched]:
    """Answers to the third question, by group. Without unseen samples there are none."""
    others = [i for i in beside if len(edits[i].units) != len(edits[position].units)]
    if not others or not (counted["split"] == "unseen").any():
        return {}
    own, random = counted[counted["edit"] == position], counted[counted["edit"].isin(others)]
    return {
        group: damage_matched(set_effects(own, data, group, "train"), set_effects(random, data, group, "train"))
        for group in groups
    }


def _on_samples(outcomes: Outcomes, samples: Samples, position: int) -> SampleEffects:
    """What an edit does to each of these samples. All of them count as one half."""
    one_half = np.zeros(len(samples.dataset), np.int64)
    of_all = sample_effects(outcomes.before, outcomes.after, position, one_half, samples.dataset)
    return of_all.where(np.isin(of_all.index, samples.index))


def _p_contrast(
    data: Dataset,
    train: SampleEffects,
    position: int,
    unseen: tuple[Outcomes, Samples] | None,
    groups: Iterable[int],
    *,
    seed: int,
) -> dict[int, float]:
    if unseen is None:
        return {}
    others = _on_samples(*unseen, position)
    return {group: contrast_of_group(data, train, others, group, seed=seed) for group in groups}


def contrast_of_group(data: Dataset, train: SampleEffects, unseen: SampleEffects, group: int, *, seed: int) -> float:
    """The p-value of a group's contrast; see `contrast_p`.

    Arguments:
        data: groups.
        train, unseen: what an edit does to training samples and to unseen samples of any groups.
        group: in question.
        seed: of the permutations.
    """
    own, others = (of.where(data.g[of.index] == group) for of in (train, unseen))
    return contrast_p(own, others, seed=seed)


def selectivity_of_sets(data: Dataset, sets: Sequence[SampleEffects], *, seed: int = 0) -> dict[int, list[Selectivity]]:
    """Every minority group compared with all majority groups of its label.

    Arguments:
        data: labels and groups.
        sets: effects of each set of a family on the same samples.
        seed: of the permutations.

    Returns:
        {group: the answer for each set}; minority groups with samples only.
    """
    first = sets[0]
    g = data.g[first.index]
    groups = [group for group in data.minority if (g == group).any()]
    compared = []
    for group in groups:
        label = data.groups.label_of(group)
        majority = [m for m in data.majority if data.groups.label_of(m) == label]
        chosen = (g == group) | np.isin(g, majority)
        compared.append(
            GroupEffects(
                is_minority=g[chosen] == group,
                half=first.half[chosen],
                margin_before=first.margin_before[chosen],
                accuracy_change=np.array([of.accuracy_change[chosen] for of in sets]),
                margin_change=np.array([of.margin_change[chosen] for of in sets]),
            )
        )
    return dict(zip(groups, selectivity(compared, seed=seed), strict=True)) if groups else {}


def set_effects(counted: pd.DataFrame, data: Dataset, group: int, split: str) -> SetEffects:
    """Damage of edits, and what they do to a group.

    Arguments:
        counted: counts of the edits: one row per edit, split, group and, with repeats, `repeat`. Rows that share these
            are parts of the samples and are summed.
        data: groups.
        group: whose drop and contrast are wanted.
        split: of the drop.

    Returns:
        One value per edit, in their order. The damage is taken over the majority groups in training and over all
        samples that are not in training.
    """
    keys = [name for name in ("edit", "repeat", "split", "group") if name in counted]
    sums = counted.groupby(keys)[[*COUNTS]].sum().groupby(["edit", "split", "group"]).mean().reset_index()
    edits = np.sort(sums["edit"].unique())

    def total(rows: pd.Series, *names: str) -> list[Array]:
        of_edit = sums[rows].groupby("edit")[list(names)].sum().reindex(edits, fill_value=0)
        return [of_edit[name].to_numpy(float) for name in names]

    is_train, is_group = sums["split"] == "train", sums["group"] == group
    squares, n = total(~is_train | sums["group"].isin(data.majority), "margin_change_squares", "n")
    before, after, n_here = total(is_group & (sums["split"] == split), "correct_before", "correct_after", "n")
    margins = []
    for rows in (is_group & is_train, is_group & ~is_train):
        margin_before, margin_after, n_margins = total(rows, "margin_before", "margin_after", "n")
        margins.append(_ratio(margin_before - margin_after, n_margins))
    return SetEffects(
        damage=np.sqrt(_ratio(squares, n)), drop=_ratio(before - after, n_here), contrast=margins[0] - margins[1]
    )


def _ratio(sums: Array, n: Array) -> Array:
    ratio: Array = np.divide(sums, n, out=np.full(len(n), np.nan), where=n > 0)
    return ratio


def compare_with_controls(selected: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Accuracy changes of a selected set, compared with those of its null sets.

    Arguments:
        selected: counts of one selected set, one row per repeat and group.
        controls: accuracy change of each null set on the same samples, as `changes_per_control` gives it.

    Returns:
        One row per group: group, n, accuracy_before, accuracy_after, accuracy_change, low, high (a paired 95 %
        interval; with repeats it is made from their mean counts and is wider than needed), margin_change, n_controls,
        control_low, control_median, control_high (of the null sets' accuracy changes) and n_controls_as_large (number
        of null sets that drop at least as much).
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
    """Accuracy change of each null set (rows) on each group (columns); a mean over repeats.

    Arguments:
        counted: counts of null sets: one row per edit, group and, with repeats, `repeat`. Rows that share these are
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
    influence: Influence,
    selective: Mapping[int, Selectivity],
    damage: Mapping[int, DamageMatched],
    p_contrast: Mapping[int, float],
    n_controls: int,
    is_unchanged: bool = False,
) -> pd.DataFrame:
    """The answers about one selected set, with the figures from which they follow.

    Arguments:
        data: labels and groups of the samples.
        table: one row per group, with its `group` and its `accuracy_change` on the samples on which the null sets were
            measured.
        influence: p-values of the first question, [rows].
        selective: answers to the second question, by group.
        damage: answers to the third question, by group; groups for which it was not asked are missing.
        p_contrast: p-values of the contrasts themselves, by group; missing as in `damage`.
        n_controls: number of null sets.
        is_unchanged: training left the units as they were.

    Returns:
        One row per group: p, p_adjusted, p_beyond_norm; difference, p_selective, p_selective_margin, majority_change,
        overlap (minority groups only); damage, n_damage_matched, damage_ratio, matched_drop, p_localized, contrast,
        matched_contrast, p_memorizing, p_contrast; influential, selective, localized, memorizing (None: not asked, or
        without an answer), verdict, reason.
    """
    rows = []
    for place, (group, change) in enumerate(zip(table["group"], table["accuracy_change"], strict=True)):
        second, third = selective.get(group), damage.get(group)
        answers = answer_questions(
            change,
            float(influence.p_decisive[place]),
            n_controls=n_controls,
            selective=second,
            damage=third,
            p_contrast=p_contrast.get(group, math.nan),
            is_unchanged=is_unchanged,
        )
        reason = answers.reason
        label = data.groups.label_of(group)
        if second is not None and not any(data.groups.label_of(m) == label for m in data.majority):
            reason = "; ".join(filter(None, [f"label {data.groups.classes[label]} has no majority group", reason]))
        figures = third or NO_DAMAGE
        rows.append(
            {
                "p": influence.p[place],
                "p_adjusted": influence.p_adjusted[place],
                "p_beyond_norm": influence.p_beyond_norm[place],
                "difference": second.difference if second else math.nan,
                "p_selective": second.p if second else math.nan,
                "p_selective_margin": second.p_margin if second else math.nan,
                "majority_change": second.majority_change if second else math.nan,
                "overlap": second.overlap if second else math.nan,
                "damage": figures.damage,
                "n_damage_matched": figures.n,
                "damage_ratio": figures.damage_ratio,
                "matched_drop": figures.drop,
                "p_localized": figures.p_localized,
                "contrast": figures.contrast,
                "matched_contrast": figures.contrast_matched,
                "p_memorizing": figures.p_memorizing,
                "p_contrast": p_contrast.get(group, math.nan),
                "influential": answers.influential,
                "selective": answers.selective,
                "localized": answers.localized,
                "memorizing": answers.memorizing,
                "verdict": answers.verdict,
                "reason": reason,
            }
        )
    answered = ("influential", "selective", "localized", "memorizing")
    return pd.DataFrame(rows, index=table.index).astype(dict.fromkeys(answered, object))
