"""Tables for the terminal, from frames that a run or a study stores."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich.markup import escape
from rich.table import Table

from ..criteria.scores import Scores
from ..data.groups import Groups
from ..study.statistics import wilson_interval
from ..units import Units, short_name


def accuracy_table(history: pd.DataFrame, epoch: int, groups: Groups, minority: Sequence[str]) -> Table:
    """Accuracy of every group on every split in one epoch, with 95 % Wilson intervals."""
    rows = history[(history["epoch"] == epoch) & (history["n"] > 0)]
    splits = [split for split in ("train", "val", "test") if (rows["split"] == split).any()]
    table = Table(title=f"Accuracy after epoch {epoch}, with 95 % intervals", title_justify="left")
    table.add_column("group")
    for split in splits:
        table.add_column(split, justify="right")
    for group, name in enumerate(groups.names):
        cells = []
        for split in splits:
            here = rows[(rows["split"] == split) & (rows["group"] == group)]
            cells.append(_accuracy(int(here["correct"].sum()), int(here["n"].sum())))
        table.add_row(_marked(name, name in minority), *cells)
    table.caption = "* minority group"
    table.caption_justify = "left"
    return table


def ranking_table(scores: Scores, units: Units, label: str) -> Table:
    """The first units of a ranking with their scores."""
    table = Table(
        title=f"{scores.kind}s by {escape(label)}, first {len(units)} of {scores.n}", title_justify="left", min_width=72
    )
    table.add_column("rank", justify="right")
    table.add_column(scores.kind)
    table.add_column("score", justify="right")
    for rank, (name, index) in enumerate(units, 1):
        table.add_row(str(rank), f"{short_name(name)}:{index}", f"{float(scores[name].flatten()[index]):.4g}")
    return table


def ablation_table(effects: pd.DataFrame, units: Units, label: str) -> Table:
    """The first units of an ablation: what zeroing each alone does to every group's accuracy and mean margin."""
    n = len(effects.drop_duplicates(["tensor", "index"]))
    table = Table(
        title=f"{units.kind}s by {escape(label)}, first {len(units)} of {n} measured: points of accuracy (mean margin)",
        title_justify="left",
    )
    table.add_column("rank", justify="right")
    table.add_column(units.kind)
    names = list(dict.fromkeys(effects["group"]))
    for name in names:
        table.add_column(escape(name), justify="right")
    rows = effects.set_index(["tensor", "index", "group"])[["shift", "margin_shift"]].to_dict(orient="index")
    for rank, (tensor, index) in enumerate(units, 1):
        cells = [rows[tensor, index, name] for name in names]
        shown = (f"{100 * cell['shift']:+.1f} [dim]({cell['margin_shift']:+.2f})[/dim]" for cell in cells)
        table.add_row(str(rank), f"{short_name(tensor)}:{index}", *shown)
    return table


def shift_table(effects: pd.DataFrame, split: str) -> Table:
    """Shift of accuracy of each selected set and group, beside the range of its random controls, on one split."""
    rows = effects[effects["split"] == split]
    n_controls = int(rows["n_controls"].max()) if len(rows) else 0
    table = Table(
        title=f"Shift of accuracy in {split}, in points, beside {n_controls} random controls", title_justify="left"
    )
    table.add_column("selected by")
    table.add_column("edit")
    table.add_column("size", justify="right")
    names = list(dict.fromkeys(rows.sort_values("group")["group_name"]))
    minority = set(rows.loc[rows["minority"], "group_name"])
    for name in names:
        table.add_column(_marked(name, name in minority), justify="right")
    for _, chosen in rows.groupby("selected_set", sort=False):
        first = chosen.iloc[0]
        cells = {row.group_name: _shift(row) for row in chosen.itertuples()}
        about = (escape(selected_by(first)), escape(edit_text(first)), str(first["size"]))
        table.add_row(*about, *(cells.get(name, "-") for name in names))
    on_subset = (rows["controls_on"] != "all").any()
    beneath = "on the controls' samples, its own | its controls' range" if on_subset else "the range of its controls"
    table.caption = f"* minority group. Beneath each shift: {beneath}. ▼: no control drops as far."
    table.caption_justify = "left"
    return table


def selected_by(row: pd.Series) -> str:
    """How a selected set was chosen: "gradient (waterbird on land)"."""
    return f"{row['criterion']} ({row['traced_on']})" if isinstance(row["traced_on"], str) else str(row["criterion"])


def edit_text(row: pd.Series) -> str:
    """The edit of a row of effects: "zero", "random_noise std=0.02"."""
    stated = str(row["parameters"]).strip("{}").replace('"', "").replace(": ", "=")
    return f"{row['kind']} {stated}".strip()


def _on_subset(row: pd.Series) -> str:
    if row["controls_on"] == "all":
        return ""
    return f" ({100 * row['shift_beside_controls']:+.1f} on the controls' samples)"


def _named_units(row: pd.Series) -> str:
    """ "3 channels (conv1:56,conv1:1,conv1:2)"; many units are only counted."""
    counted = f"{row['n_units']} {row['unit']}{'s' if row['n_units'] != 1 else ''}"
    return f"{counted} ({row['units']})" if isinstance(row["units"], str) else counted


def _shift(row: object) -> str:
    shift, n_as_large = float(row.shift_beside_controls), int(row.n_as_large)  # type: ignore[attr-defined]
    text = f"{100 * float(row.shift):+.1f}"  # type: ignore[attr-defined]
    if not int(row.n_controls):  # type: ignore[attr-defined]
        return text
    if shift < 0 and n_as_large == 0:
        text = f"[bold]▼ {text}[/bold]"
    low, high = float(row.control_low), float(row.control_high)  # type: ignore[attr-defined]
    own = "" if row.controls_on == "all" else f"{100 * shift:+.1f} | "  # type: ignore[attr-defined]
    return f"{text}\n[dim]{own}{100 * low:+.1f} to {100 * high:+.1f}[/dim]"


def _accuracy(correct: int, n: int) -> str:
    if not n:
        return "-"
    low, high = wilson_interval(correct, n)
    return f"{100 * correct / n:.1f} % [dim]({100 * float(low):.0f}-{100 * float(high):.0f}, n={n})[/dim]"


def _marked(name: str, is_minority: bool) -> str:
    return escape(f"{name} *" if is_minority else name)


def findings(effects: pd.DataFrame) -> list[str]:
    """In plain sentences, for each split: what the selected sets cost minority groups beyond their controls, or that
    they don't. No verdict: those need the statistics of a calibrated test."""
    sentences = []
    for split, rows in effects[effects["n_controls"] > 0].groupby("split", sort=False):
        minority = rows[rows["minority"]]
        if minority.empty:
            continue
        beyond = minority[(minority["shift_beside_controls"] < 0) & (minority["n_as_large"] == 0)]
        if beyond.empty:
            low, high = minority["accuracy_before"].min(), minority["accuracy_before"].max()
            sentences.append(
                f"In {split}, no selected set costs a minority group more than its random controls do; "
                f"before the edits these groups were right in {100 * low:.1f} to {100 * high:.1f} %."
            )
            continue
        worst = beyond.loc[beyond["shift"].idxmin()]
        others = rows[(rows["selected_set"] == worst["selected_set"]) & ~rows["minority"]]
        sentences.append(
            f"In {split}, {edit_text(worst)} on {_named_units(worst)}, selected by {selected_by(worst)}, "
            f"shifts {worst['group_name']} by {100 * worst['shift']:+.1f} points{_on_subset(worst)}; "
            f"its {worst['n_controls']} controls range from {100 * worst['control_low']:+.1f} to "
            f"{100 * worst['control_high']:+.1f}. Other groups: "
            + ", ".join(f"{row.group_name} {100 * row.shift:+.1f}" for row in others.itertuples())
            + "."
        )
    return sentences
