"""Tables for the terminal, from frames that a run or a study stores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from ..criteria.scores import Scores
from ..datasets.groups import Groups
from ..networks.units import Units, short_name
from ..statistics.intervals import wilson_interval


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
    rows = effects.set_index(["tensor", "index", "group"])[["accuracy_change", "margin_change"]].to_dict(orient="index")
    for rank, (tensor, index) in enumerate(units, 1):
        cells = [rows[tensor, index, name] for name in names]
        shown = (f"{100 * cell['accuracy_change']:+.1f} [dim]({cell['margin_change']:+.2f})[/dim]" for cell in cells)
        table.add_row(str(rank), f"{short_name(tensor)}:{index}", *shown)
    return table


def accuracy_change_table(effects: pd.DataFrame, split: str) -> Table:
    """Accuracy change of each selected set and group, beside the range of its matched controls, on one split."""
    rows = effects[effects["split"] == split]
    n_controls = int(rows["n_controls"].max()) if len(rows) else 0
    beside = f", beside {n_controls} matched controls" if n_controls else ""
    table = Table(title=f"Accuracy change in {split}, in points{beside}", title_justify="left")
    table.add_column("selected by")
    table.add_column("edit")
    table.add_column("size", justify="right")
    names = list(dict.fromkeys(rows.sort_values("group")["group_name"]))
    minority = set(rows.loc[rows["minority"], "group_name"])
    for name in names:
        table.add_column(_marked(name, name in minority), justify="right")
    for _, chosen in rows.groupby("selected_set", sort=False):
        first = chosen.iloc[0]
        cells = {row.group_name: _accuracy_change(row) for row in chosen.itertuples()}
        about = (escape(selected_by(first)), escape(edit_text(first)), str(first["size"]))
        table.add_row(*about, *(cells.get(name, "-") for name in names))
    on_subset = (rows["controls_on"] != "all").any()
    beneath = "on the controls' samples, its own | its controls' range" if on_subset else "the range of its controls"
    about_controls = f" Beneath each accuracy change: {beneath}. ▼: no control drops as far." if n_controls else ""
    table.caption = f"* minority group.{about_controls}"
    table.caption_justify = "left"
    return table


def selected_by(row: Mapping[str, Any]) -> str:
    """How a selected set was chosen: "gradient (waterbird on land)"."""
    return f"{row['criterion']} ({row['traced_on']})" if isinstance(row["traced_on"], str) else str(row["criterion"])


def edit_text(row: Mapping[str, Any]) -> str:
    """The edit of a row of effects: "zero", "random_noise std=0.02"."""
    stated = str(row["parameters"]).strip("{}").replace('"', "").replace(": ", "=")
    return f"{row['kind']} {stated}".strip()


def _named_units(row: Mapping[str, Any]) -> str:
    """ "3 channels (conv1:56,conv1:1,conv1:2)"; many units are only counted."""
    counted = f"{row['n_units']} {row['unit']}{'s' if row['n_units'] != 1 else ''}"
    return f"{counted} ({row['units']})" if isinstance(row["units"], str) else counted


def _accuracy_change(row: object) -> str:
    accuracy_change, n_controls_as_large = float(row.tested_accuracy_change), int(row.n_controls_as_large)  # type: ignore[attr-defined]
    text = f"{100 * float(row.accuracy_change):+.1f}"  # type: ignore[attr-defined]
    if not int(row.n_controls):  # type: ignore[attr-defined]
        return text
    if accuracy_change < 0 and n_controls_as_large == 0:
        text = f"[bold]▼ {text}[/bold]"
    low, high = float(row.control_low), float(row.control_high)  # type: ignore[attr-defined]
    own = "" if row.controls_on == "all" else f"{100 * accuracy_change:+.1f} | "  # type: ignore[attr-defined]
    return f"{text}\n[dim]{own}{100 * low:+.1f} to {100 * high:+.1f}[/dim]"


def _accuracy(correct: int, n: int) -> str:
    if not n:
        return "-"
    low, high = wilson_interval(correct, n)
    return f"{100 * correct / n:.1f} % [dim]({100 * float(low):.0f}-{100 * float(high):.0f}, n={n})[/dim]"


def _marked(name: str, is_minority: bool) -> str:
    return escape(f"{name} *" if is_minority else name)


def verdict_table(effects: pd.DataFrame, split: str) -> Table:
    """The three answers about each selected set and minority group on one split, with the figures beneath them."""
    rows = effects[(effects["split"] == split) & effects["minority"]]
    table = Table(title=f"Verdicts on minority groups in {split}", title_justify="left")
    for name in ("selected by", "edit"):
        table.add_column(name)
    table.add_column("size", justify="right")
    table.add_column("group")
    for name in ("drop (adjusted p)", "drop beyond majority (p)", "margin: training - unseen"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in rows.to_dict(orient="records"):
        about = (escape(selected_by(row)), escape(edit_text(row)), str(row["size"]), escape(row["group_name"]))
        verdict = escape(row["verdict"])
        table.add_row(
            *about,
            _with_p(0.0 - 100 * row["tested_accuracy_change"], row["p_adjusted"]),
            _with_p(100 * row["difference"], row["p_selective"]),
            _contrast(row),
            f"[bold]{verdict}[/bold]" if row["verdict"] in ("critical", "memorizing") else verdict,
        )
    table.caption = "Drops in points of accuracy, on samples that the units were not selected on. Level: 5 %."
    table.caption_justify = "left"
    return table


def agreement_table(pairs: pd.DataFrame) -> Table:
    """How many of their first units rankings share, beside chance."""
    k = int(pairs["k"].max())
    table = Table(title=f"Do rankings agree? Shared of the first {k} units", title_justify="left")
    for name in ("ranking", "and"):
        table.add_column(name)
    for name in ("shared", "by chance", "p", "rank correlation"):
        table.add_column(name, justify="right")
    for row in pairs.to_dict(orient="records"):
        names = escape(row["one"]), escape(row["other"])
        shared, expected = str(row["shared"]), f"{row['expected']:.1f}"
        table.add_row(*names, shared, expected, _p(row["p"]), f"{row['rank_correlation']:+.2f}")
    return table


def other_epochs_table(rows: pd.DataFrame, effects: pd.DataFrame, split: str) -> Table:
    """Accuracy change of each selected set in other epochs' networks, on one split."""
    here = rows[rows["split"] == split]
    table = Table(title=f"The same edits in other epochs: accuracy change in {split}, in points", title_justify="left")
    for name in ("selected by", "edit", "size", "epoch"):
        table.add_column(name)
    groups = list(dict.fromkeys(here.sort_values("group")["group_name"]))
    for name in groups:
        table.add_column(escape(name), justify="right")
    about = effects.drop_duplicates("selected_set").set_index("selected_set")
    for (number, epoch), chosen in here.groupby(["selected_set", "epoch"], sort=False):
        first = about.loc[number].to_dict()
        cells = {row.group_name: f"{100 * row.accuracy_change:+.1f}" for row in chosen.itertuples()}
        names = (escape(selected_by(first)), escape(edit_text(first)), str(first["size"]), str(epoch))
        table.add_row(*names, *(cells.get(name, "-") for name in groups))
    return table


def _with_p(points: float, p: float) -> str:
    return "-" if math.isnan(points) else f"{points + 0.0:+.1f} [dim]({_p(p)})[/dim]"


def _p(p: float) -> str:
    if math.isnan(p):
        return "no p"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _contrast(row: Mapping[str, Any]) -> str:
    if math.isnan(row["contrast"]):
        return "-"
    return f"{row['contrast']:+.2f} [dim]({row['contrast_low']:+.2f} to {row['contrast_high']:+.2f})[/dim]"


def findings(effects: pd.DataFrame) -> list[str]:
    """Two plain sentences made from the verdicts: what was found and how sure that is, and what was not found."""
    split = "train" if (effects["split"] == "train").any() else str(effects["split"].iloc[0])
    asked = effects[(effects["split"] == split) & effects["minority"]]
    if asked.empty:
        return ["No minority group was measured: nothing can be said about one."]
    told = asked[asked["verdict"] != "no verdict"]
    found = told[told["verdict"].isin(["critical", "memorizing"])]
    return [_found(found, told), _not_found(asked, told, found)]


def _found(found: pd.DataFrame, told: pd.DataFrame) -> str:
    if told.empty:
        return "Nothing was found, since no verdict could be given."
    if found.empty:
        return (
            f"No selected set is critical for a minority group: of {len(told)} questions asked, none has both answers."
        )
    first = found.loc[found["difference"].idxmax()]
    words = {
        "critical": "critical (influential and selective) but not shown to memorize: unseen samples lose as much",
        "memorizing": "critical and memorizing: its training samples lose more margin than unseen ones",
    }
    return (
        f"{edit_text(first)} on {_named_units(first)}, selected by {selected_by(first)}, is {words[first['verdict']]}, "
        f"for {first['group_name']}, which loses {-100 * first['tested_accuracy_change']:.1f} points of accuracy "
        f"(matched controls: {-100 * first['control_high']:+.1f} to {-100 * first['control_low']:+.1f}; "
        f"{_p(first['p_adjusted'])}), {100 * first['difference']:.1f} more than majority samples of its label and "
        f"margin ({_p(first['p_selective'])}); margin, training beyond unseen: {first['contrast']:+.2f} "
        f"({first['contrast_low']:+.2f} to {first['contrast_high']:+.2f}). {len(found)} of {len(told)} verdicts say so "
        "of some set and group."
    )


def _not_found(asked: pd.DataFrame, told: pd.DataFrame, found: pd.DataFrame) -> str:
    parts = []
    critical, counts = found["group_name"].unique(), told["verdict"].value_counts()
    others = [name for name in told["group_name"].unique() if name not in critical]
    if others:
        parts.append(f"no set is critical for {', '.join(others)}")
    if counts.get("influential", 0):
        parts.append(f"{counts['influential']} are influential without being selective")
    if len(found) and not (found["verdict"] == "memorizing").any():
        parts.append("memorizing was shown of none")
    untold = asked[asked["verdict"] == "no verdict"]
    if len(untold):
        parts.append(f"no verdict for {len(untold)} ({untold['reason'].iloc[0]})")
    if not parts:
        return "Every set that was asked about is critical."
    return f"Not found: {'; '.join(parts)}."
