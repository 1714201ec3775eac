"""Tables of a study: its answer in one table, and everything behind it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from ...statistics.effects import tested_split
from ...studies.study import Study
from ..wording import damage_matched_text, is_usual_source, null_sets_text, source_flag, with_names
from .findings import FOUND, p_influential
from .number_formats import MISSING, Kind, format_value, interval, is_missing, p_text
from .table import Column, Row, Table

MAX_SUMMARY_ROWS = 24
"""Rows of the summary table. If there are more tests, those with the smallest p are shown."""

_SET = (
    Column(name="selected_by", heading="selected by"),
    Column(name="edit", heading="edit"),
    Column(name="size", heading="size"),
)
"""Columns that name a selected set."""

_VERDICT = Column(
    name="verdict",
    heading="verdict",
    strong="found",
    detail=lambda row: "" if is_usual_source(row["drawn_from"]) else f"({source_flag(row['drawn_from'])})",
)
"""A verdict against other null sets than those of the same layers names the flag."""


def groups_table(groups: pd.DataFrame) -> Table:
    """Question 0: which groups the network memorizes.

    Arguments:
        groups: as `Study.groups` gives them.
    """
    rows = groups.assign(found=[not is_missing(value) and bool(value) for value in groups["memorized"]])
    return Table(
        title="Which groups are memorized",
        rows=rows,
        columns=(
            Column(name="group_name", heading="group", detail=lambda row: "*" if row["minority"] else ""),
            Column(name="train_accuracy", heading="in training", kind="percent", detail=_n("n_train")),
            Column(name="unseen_accuracy", heading="unseen", kind="percent", detail=_n("n_unseen")),
            Column(
                name="difference",
                heading="difference",
                kind="points",
                detail=lambda row: interval(row["low"], row["high"], "points"),
            ),
            Column(name="memorized", heading="memorized", kind="yes_no", strong="found"),
        ),
        caption="Accuracy before any edit. * minority group. Unseen: samples of val or test, as far as they were "
        "measured. A group is memorized if the 95 % interval of the difference is above 0.",
    )


def groupings_table(groupings: pd.DataFrame) -> Table:
    """What the study says of candidate groups as each seed of the discovery draws them.

    Arguments:
        groupings: as `Study.groupings` gives them.
    """
    rows = groupings.assign(
        found=groupings["verdict"].isin(FOUND),
        memorized=[not is_missing(value) and bool(value) for value in groupings["memorized"]],
    )
    return Table(
        title="The candidate groups of each seed",
        rows=rows,
        columns=(
            Column(name="group_name", heading="group"),
            Column(name="grouping", heading="drawn by"),
            Column(name="n_train", heading="training samples", kind="count"),
            Column(name="memorized", heading="memorized", kind="yes_no"),
            Column(name="verdict", heading="strongest verdict", strong="found"),
            Column(name="units", heading="units"),
        ),
        caption="The whole study is repeated with the groups of each seed alone. A verdict that one grouping gives and "
        "others don't depends on the choice of the samples.",
    )


def _n(name: str) -> Callable[[Row], str]:
    return lambda row: f"(n={row[name]})"


def summary_table(effects: pd.DataFrame) -> Table:
    """A study's answer: one row per selected set and minority group.

    Each row has the accuracy change, the range of its null sets, the p-value and the verdict.

    Arguments:
        effects: of a study.
    """
    split = tested_split(effects)
    here = effects[effects["split"] == split]
    tests = with_names(here[here["minority"]] if here["minority"].any() else here)
    n_tests, edits = len(tests), tests["edit"].nunique()
    tests["change"] = tests["tested_accuracy_change"].where(tests["n_controls"] > 0, tests["accuracy_change"])
    tests["null_range"] = [_null_range(row) for row in tests.to_dict(orient="records")]
    tests["p_influential"] = p_influential(tests)
    tests["found"] = tests["verdict"].isin(FOUND)
    if n_tests > MAX_SUMMARY_ROWS:
        first = tests.sort_values(["found", "p_influential"], ascending=[False, True], kind="stable")
        tests = first.head(MAX_SUMMARY_ROWS).sort_index()
    columns = [column for column in _SET if column.name != "edit" or edits > 1]
    columns += [
        Column(name="group_name", heading="group"),
        Column(name="change", heading="accuracy change", kind="points"),
        Column(name="null_range", heading="null sets"),
        Column(name="p_influential", heading="p", kind="p"),
        _VERDICT,
    ]
    caption = ["Changes are in points of accuracy."]
    if (tests["n_controls"] > 0).any():
        caption += [
            "They are measured on samples that did not select the units.",
            f"Null sets: the range of {_null_sets(tests)}. p: adjusted over sizes and groups, and for the norm.",
        ]
    if n_tests > len(tests):
        caption.append(f"{len(tests)} of {n_tests} tests are shown, those with the smallest p.")
    what = "Minority groups" if tests["minority"].any() else "Groups"
    same_edit = f", edit {tests['edit'].iloc[0]}" if edits == 1 else ""
    return Table(
        title=f"{what} in {split}{same_edit}",
        rows=tests,
        columns=tuple(columns),
        caption=" ".join(caption),
    )


def _null_range(row: Row) -> str:
    return interval(row["control_low"], row["control_high"], "points").strip("()") or MISSING


def _null_sets(effects: pd.DataFrame) -> str:
    """ "19 to 999 sets of random units of the same layers"."""
    there = effects[effects["n_controls"] > 0]
    least, most = int(there["n_controls"].min()), int(there["n_controls"].max())
    numbers = f"{least} to {most}" if least < most else str(least)
    return f"{numbers} sets of {' or '.join(map(null_sets_text, there['drawn_from'].unique()))}"


def accuracy_change_table(effects: pd.DataFrame, split: str) -> Table:
    """Accuracy change of each selected set (rows) on each group (columns), with the range of its null sets, on one
    split."""
    here = with_names(effects[effects["split"] == split])
    has_null_sets = bool((here["n_controls"] > 0).any())
    names = list(dict.fromkeys(here.sort_values("group")["group_name"]))
    minority = set(here.loc[here["minority"], "group_name"])
    wanted = ["accuracy_change", "tested_accuracy_change", "control_low", "control_high", "n_controls", "controls_on"]
    rows = []
    for _, of_set in here.groupby("selected_set", sort=False):
        first = of_set.iloc[0]
        line = {name: first[name] for name in ("selected_by", "edit", "size")}
        by_group = of_set.set_index("group_name")
        for name in names:
            there = by_group.loc[name] if name in by_group.index else None
            line |= {f"{key}: {name}": None if there is None else there[key] for key in wanted}
            line[f"beyond: {name}"] = (
                there is not None
                and bool(there["n_controls"])
                and there["tested_accuracy_change"] < min(0.0, there["control_low"])
            )
        rows.append(line)
    groups = [
        Column(
            name=f"accuracy_change: {name}",
            heading=f"{name} *" if name in minority else name,
            kind="points",
            detail=_null_sets_below(name),
            is_detail_below=True,
            strong=f"beyond: {name}",
            strong_sign="▼",
        )
        for name in names
    ]
    caption = "* minority group."
    if has_null_sets:
        on_subset = (here["controls_on"] != "all").any()
        below = "the change on the null sets' samples | the null sets' range" if on_subset else "the null sets' range"
        caption += f" Below each change: {below}. Null sets: {_null_sets(here)}. ▼: the group loses more than with any."
    compared = ", compared with null sets" if has_null_sets else ""
    return Table(
        title=f"Accuracy change in {split}, in points{compared}",
        rows=pd.DataFrame(rows),
        columns=(*_SET, *groups),
        caption=caption,
    )


def _null_sets_below(name: str) -> Callable[[Row], str]:
    def detail(row: Row) -> str:
        if not row[f"n_controls: {name}"]:
            return ""
        low, high = row[f"control_low: {name}"], row[f"control_high: {name}"]
        spread = interval(low, high, "points").strip("()")
        if row[f"controls_on: {name}"] == "all":
            return spread
        return f"{format_value(row[f'tested_accuracy_change: {name}'], 'points')} | {spread}"

    return detail


def verdict_table(effects: pd.DataFrame, split: str) -> Table:
    """The answers about each selected set and minority group on one split, with the figures behind them."""
    rows = with_names(effects[(effects["split"] == split) & effects["minority"]])
    rows["found"] = rows["verdict"].isin(FOUND)
    rows["p_influential"] = p_influential(rows)
    rows["further_drop"] = -rows["tested_accuracy_change"] - rows["matched_drop"]
    rows["further_contrast"] = rows["contrast"] - rows["matched_contrast"]
    figures: dict[str, tuple[str, Kind, str]] = {
        "tested_accuracy_change": ("1 accuracy change", "points", "p_influential"),
        "difference": ("2 extra drop vs. majority", "points", "p_selective"),
        "further_drop": ("3 vs. same damage: extra drop", "points", "p_localized"),
        "contrast": ("contrast", "signed", "p_contrast"),
        "further_contrast": ("extra contrast", "signed", "p_memorizing"),
    }
    columns = [
        Column(name=name, heading=f"{heading} (p)", kind=kind, detail=_with_p(name, p), is_detail_below=True)
        for name, (heading, kind, p) in figures.items()
    ]
    columns.insert(2, Column(name="majority_change", heading="majority change", kind="points"))
    caption = [
        "Accuracy is in points, on samples that did not select the units. The level of each test is 5 %, that of the "
        "contrast 1 %.",
        f"1: p among {_null_sets(rows)}." if (rows["n_controls"] > 0).any() else "",
        "2: compared with majority samples of the same label and margin, whose own change stands beside it.",
        f"3: compared with the median of random sets that disturb the network as much{_wide(rows)}. Contrast: how much "
        "further the margins of training samples fall than those of unseen samples. -: not asked, or without an "
        "answer.",
    ]
    return Table(
        title=f"Verdicts on minority groups in {split}",
        rows=rows,
        columns=(*_SET, Column(name="group_name", heading="group"), *columns, _VERDICT),
        caption=" ".join(filter(None, caption)),
    )


def _with_p(value: str, p: str) -> Callable[[Row], str]:
    return lambda row: "" if is_missing(row[value]) else f"({p_text(row[p])})"


def agreement_table(pairs: pd.DataFrame) -> Table:
    """How many of their first units two rankings share, compared with chance."""
    k = int(pairs["k"].max())
    return Table(
        title=f"Agreement of rankings: units shared among the first {k}",
        rows=pairs,
        columns=(
            Column(name="one", heading="ranking"),
            Column(name="other", heading="and"),
            Column(name="shared", heading="shared", kind="count"),
            Column(name="expected", heading="by chance", kind="amount"),
            Column(name="p", heading="p", kind="p"),
            Column(name="rank_correlation", heading="rank correlation", kind="signed"),
        ),
    )


def other_epochs_table(rows: pd.DataFrame, effects: pd.DataFrame, split: str) -> Table:
    """Accuracy change of each selected set in the networks of other epochs, on one split."""
    here = rows[rows["split"] == split]
    groups = list(dict.fromkeys(here.sort_values("group")["group_name"]))
    about = with_names(effects.drop_duplicates("selected_set")).set_index("selected_set")
    lines = []
    for (number, epoch), of_set in here.groupby(["selected_set", "epoch"], sort=False):
        changes = of_set.set_index("group_name")["accuracy_change"]
        names = about.loc[number, ["selected_by", "edit", "size"]].to_dict()
        lines.append({**names, "epoch": epoch, **{name: changes.get(name) for name in groups}})
    return Table(
        title=f"The same edits in other epochs: accuracy change in {split}, in points",
        rows=pd.DataFrame(lines),
        columns=(
            *_SET,
            Column(name="epoch", heading="epoch", kind="count"),
            *(Column(name=name, heading=name, kind="points") for name in groups),
        ),
    )


def strongest_table(searched: pd.DataFrame, effects: pd.DataFrame) -> Table:
    """The strongest edit of each selected set, beside the strongest edits of random sets with the same norm.

    Arguments:
        searched: as `Study.strongest` gives it.
        effects: of the study.
    """
    about = with_names(effects.drop_duplicates("selected_set")).set_index("selected_set")
    lines = []
    for (number, group), rows in searched.groupby(["selected_set", "group_name"], sort=False):
        own = rows.loc[rows["control"] == -1, "accuracy_change"].iloc[0]
        random = rows.loc[rows["control"] >= 0, "accuracy_change"]
        lines.append(
            {
                **about.loc[number, ["selected_by", "edit", "size"]].to_dict(),
                "group_name": group,
                "own": own,
                "median": random.median(),
                "low": random.min(),
                "high": random.max(),
                "as_strong": int((random <= own + 1e-12).sum()),
                "n": len(random),
            }
        )
    return Table(
        title="The strongest edit of the same norm: accuracy change in train, in points",
        rows=pd.DataFrame(lines),
        columns=(
            *_SET,
            Column(name="group_name", heading="group"),
            Column(name="own", heading="selected units", kind="points"),
            Column(
                name="median",
                heading="random units (range)",
                kind="points",
                detail=lambda row: interval(row["low"], row["high"], "points"),
            ),
            Column(name="as_strong", heading="as strong", kind="count", detail=lambda row: f"of {row['n']}"),
        ),
        caption=(
            "Edits are searched on one half of the group's training samples and measured on the other. If random units "
            "do as much harm, success of an edit is no evidence that something is stored in the selected units."
        ),
    )


def all_study_tables(study: Study) -> list[Table]:
    """Every table of a finished study but its summary: groups, accuracy changes, verdicts and options."""
    effects, agreement, epochs = study.effects(), study.agreement(), study.other_epochs()
    searched = study.strongest()
    groups = study.groups()
    splits = list(dict.fromkeys(effects["split"]))
    controlled = set(effects.loc[effects["n_controls"] > 0, "split"])
    tables = [groups_table(groups)] if len(groups) else []
    tables += [accuracy_change_table(effects, split) for split in splits]
    tables += [verdict_table(effects, split) for split in splits if split in controlled]
    if epochs is not None:
        tables += [other_epochs_table(epochs, effects, split) for split in splits]
    if searched is not None and len(searched):
        tables.append(strongest_table(searched, effects))
    if (groupings := study.groupings()) is not None:
        tables.append(groupings_table(groupings))
    if agreement is not None and len(agreement):
        tables.append(agreement_table(agreement))
    return tables


def _wide(rows: pd.DataFrame) -> str:
    """Where damage-matched sets are, if not in the same layers alone."""
    is_wide = rows["matched_from"].map(damage_matched_text) != damage_matched_text(None)
    return " (of the whole network where no sets of the same layers do so)" if is_wide.any() else ""
