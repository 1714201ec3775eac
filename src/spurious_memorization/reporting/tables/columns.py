"""The columns of the report's tables: their headings, and the kind of their values."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from .table import Column, Table

_COLUMNS = {
    column.name: column
    for column in (
        Column(name="criterion", heading="selected by"),
        Column(name="n", heading="n", kind="count"),
        Column(name="correct", heading="correct", kind="count"),
        Column(name="accuracy", heading="accuracy", kind="percent"),
        Column(name="low", heading="95 % from", kind="percent"),
        Column(name="high", heading="to", kind="percent"),
        Column(name="train", heading="train", kind="percent"),
        Column(name="val", heading="val", kind="percent"),
        Column(name="test", heading="test", kind="percent"),
        Column(name="epoch", heading="epoch", kind="count"),
        Column(name="n_train", heading="n train", kind="count"),
        Column(name="n_val", heading="n val", kind="count"),
        Column(name="n_test", heading="n test", kind="count"),
        Column(name="gap", heading="train - test", kind="points"),
        Column(name="lift", heading="lift", kind="decimal"),
        Column(name="accuracy_before", heading="before", kind="percent"),
        Column(name="accuracy_after", heading="after", kind="percent"),
        Column(name="accuracy_change", heading="accuracy change", kind="points"),
        Column(name="accuracy_change_low", heading="95 % from", kind="points"),
        Column(name="accuracy_change_high", heading="to", kind="points"),
        Column(name="margin_change", heading="margin change", kind="signed"),
        Column(name="tested_accuracy_change", heading="change on null sets' samples", kind="points"),
        Column(name="control_low", heading="null sets from", kind="points"),
        Column(name="control_median", heading="median", kind="points"),
        Column(name="control_high", heading="to", kind="points"),
        Column(name="n_controls", heading="null sets", kind="count"),
        Column(name="n_controls_as_large", heading="null sets that lose as much", kind="count"),
        Column(name="norm_ratio", heading="norm of null sets / of set", kind="decimal"),
        Column(name="drawn_from", heading="null sets are"),
        Column(name="p_adjusted", heading="adjusted p", kind="p"),
        Column(name="p_beyond_norm", heading="p beyond norm", kind="p"),
        Column(name="influential", heading="influential", kind="yes_no"),
        Column(name="difference", heading="extra drop vs. majority", kind="points"),
        Column(name="p_selective", heading="p of the extra drop", kind="p"),
        Column(name="p_selective_margin", heading="p of the extra margin drop", kind="p"),
        Column(name="majority_change", heading="change of these majority samples", kind="points"),
        Column(name="overlap", heading="minority compared", kind="percent"),
        Column(name="selective", heading="selective", kind="yes_no"),
        Column(name="damage", heading="damage", kind="decimal"),
        Column(name="n_damage_matched", heading="damage-matched sets", kind="count"),
        Column(name="matched_from", heading="they are"),
        Column(name="damage_ratio", heading="their damage / of set", kind="decimal"),
        Column(name="matched_drop", heading="their drop", kind="points"),
        Column(name="p_localized", heading="p localized", kind="p"),
        Column(name="localized", heading="localized", kind="yes_no"),
        Column(name="contrast", heading="contrast: training - unseen", kind="signed"),
        Column(name="matched_contrast", heading="their contrast", kind="signed"),
        Column(name="p_memorizing", heading="p memorizing", kind="p"),
        Column(name="p_contrast", heading="p of the contrast", kind="p"),
        Column(name="memorizing", heading="memorizing", kind="yes_no"),
        Column(name="train_accuracy", heading="in training", kind="percent"),
        Column(name="n_unseen", heading="n unseen", kind="count"),
        Column(name="unseen_accuracy", heading="unseen", kind="percent"),
        Column(name="memorized", heading="memorized", kind="yes_no"),
        Column(name="reason", heading="reason", is_long=True),
        Column(name="n_in_layer", heading="channels", kind="count"),
        Column(name="least", heading="least", kind="signed"),
        Column(name="lower", heading="5 %", kind="signed"),
        Column(name="middle", heading="median", kind="signed"),
        Column(name="upper", heading="95 %", kind="signed"),
        Column(name="most", heading="most", kind="signed"),
        Column(name="before", heading="predicted before"),
        Column(name="after", heading="predicted after"),
        Column(name="activation", heading="activation", kind="decimal"),
        Column(name="sample", heading="sample", kind="count"),
    )
}


def table_of(rows: pd.DataFrame, title: str, caption: str = "", *, strong: str | None = None) -> Table:
    """A table that shows every column of a frame, under its known heading or its own name.

    Arguments:
        rows: the numbers.
        title, caption: of the table.
        strong: name of a column of truth values, which is not shown; rows where it is true are emphasized.
    """
    names: Sequence[str] = [name for name in rows if name != strong]
    columns = tuple(_COLUMNS.get(name, Column(name=name, heading=name.replace("_", " "))) for name in names)
    return Table(title=title, rows=rows, columns=columns, caption=caption, strong=strong)
