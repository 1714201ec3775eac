"""Tables of a study: its answer in one table, and everything behind it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from ...studies.study import Study
from ..wording import with_names
from .findings import FOUND, tested_split
from .number_formats import MISSING, format_value, interval, p_text
from .table import Column, Row, Table

MAX_SUMMARY_ROWS = 24
"""Rows of the summary table. If there are more tests, those with the smallest p are shown."""

_SET = (
    Column(name="selected_by", heading="selected by"),
    Column(name="edit", heading="edit"),
    Column(name="size", heading="size"),
)
"""Columns that name a selected set."""


def summary_table(effects: pd.DataFrame) -> Table:
    """A study's answer: one row per selected set and minority group.

    Each row has the accuracy change, the range of its controls, the p-value and the verdict.

    Arguments:
        effects: of a study.
    """
    split = tested_split(effects)
    here = effects[effects["split"] == split]
    tests = with_names(here[here["minority"]] if here["minority"].any() else here)
    n_tests, edits = len(tests), tests["edit"].nunique()
    controlled = (tests["n_controls"] > 0).any()
    tests["change"] = tests["tested_accuracy_change"].where(tests["n_controls"] > 0, tests["accuracy_change"])
    tests["controls_range"] = [_controls_range(row) for row in tests.to_dict(orient="records")]
    tests["found"] = tests["verdict"].isin(FOUND)
    if n_tests > MAX_SUMMARY_ROWS:
        first = tests.sort_values(["found", "p_adjusted"], ascending=[False, True], kind="stable")
        tests = first.head(MAX_SUMMARY_ROWS).sort_index()
    columns = [column for column in _SET if column.name != "edit" or edits > 1]
    columns += [
        Column(name="group_name", heading="group"),
        Column(name="change", heading="accuracy change", kind="points"),
        Column(name="controls_range", heading="controls"),
        Column(name="p_adjusted", heading="p", kind="p"),
        Column(name="verdict", heading="verdict", strong="found"),
    ]
    caption = ["Changes are in points of accuracy."]
    if controlled:
        n_controls = int(tests["n_controls"].max())
        caption += [
            "They are measured on samples that did not select the units.",
            f"Controls: the range of {n_controls} matched random sets. p: adjusted over sizes and groups.",
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


def _controls_range(row: Row) -> str:
    return interval(row["control_low"], row["control_high"], "points").strip("()") or MISSING


def accuracy_change_table(effects: pd.DataFrame, split: str) -> Table:
    """Accuracy change of each selected set (rows) on each group (columns), with its controls' range, on one split."""
    here = with_names(effects[effects["split"] == split])
    n_controls = int(here["n_controls"].max()) if len(here) else 0
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
            detail=_beside_controls(name),
            is_detail_below=True,
            strong=f"beyond: {name}",
            strong_sign="▼",
        )
        for name in names
    ]
    caption = "* minority group."
    if n_controls:
        on_subset = (here["controls_on"] != "all").any()
        below = "the change on the controls' samples | the controls' range" if on_subset else "the controls' range"
        caption += f" Below each change: {below}. ▼: the group loses more than with any control."
    controls = f", compared with {n_controls} matched controls" if n_controls else ""
    return Table(
        title=f"Accuracy change in {split}, in points{controls}",
        rows=pd.DataFrame(rows),
        columns=(*_SET, *groups),
        caption=caption,
    )


def _beside_controls(name: str) -> Callable[[Row], str]:
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
    """The three answers about each selected set and minority group on one split, with the numbers behind them."""
    rows = with_names(effects[(effects["split"] == split) & effects["minority"]])
    rows["found"] = rows["verdict"].isin(FOUND)
    return Table(
        title=f"Verdicts on minority groups in {split}",
        rows=rows,
        columns=(
            *_SET,
            Column(name="group_name", heading="group"),
            Column(
                name="tested_accuracy_change",
                heading="accuracy change (adjusted p)",
                kind="points",
                detail=_with_p("tested_accuracy_change", "p_adjusted"),
            ),
            Column(
                name="difference",
                heading="extra drop vs. majority (p)",
                kind="points",
                detail=_with_p("difference", "p_selective"),
            ),
            Column(
                name="contrast",
                heading="margin drop: training - unseen",
                kind="signed",
                detail=lambda row: interval(row["contrast_low"], row["contrast_high"], "signed"),
            ),
            Column(name="verdict", heading="verdict", strong="found"),
        ),
        caption="In points of accuracy, on samples that did not select the units. The level of the tests is 5 %.",
    )


def _with_p(value: str, p: str) -> Callable[[Row], str]:
    return lambda row: "" if pd.isna(row[value]) else f"({p_text(row[p])})"


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


def all_study_tables(study: Study) -> list[Table]:
    """Every table of a finished study except its summary: accuracy changes, verdicts, other epochs, agreement."""
    effects, agreement, epochs = study.effects(), study.agreement(), study.other_epochs()
    splits = list(dict.fromkeys(effects["split"]))
    controlled = set(effects.loc[effects["n_controls"] > 0, "split"])
    tables = [accuracy_change_table(effects, split) for split in splits]
    tables += [verdict_table(effects, split) for split in splits if split in controlled]
    if epochs is not None:
        tables += [other_epochs_table(epochs, effects, split) for split in splits]
    if agreement is not None and len(agreement):
        tables.append(agreement_table(agreement))
    return tables
