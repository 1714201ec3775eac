"""Tables of published accuracies, of the commands that would reproduce them, and of what was measured."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from ...published.overview import KEYS, PublishedResults
from .number_formats import Kind, format_value, is_missing
from .table import Column, Row, Table

NAMES = {"waterbirds": "Waterbirds", "celeba": "CelebA", "multinli": "MultiNLI", "civilcomments": "CivilComments"}

NOT_MEASURED = "not run"
NO_COMMAND = "not in this tool"

CAPTION = (
    "Figures of other people, as published: accuracy on test, ± standard deviation. Groups: whether the method knows "
    "the groups of training samples, and those of validation samples. Measured: with this tool, from the ledgers."
)
CAPTIONS = {
    "waterbirds": f"{CAPTION} Averages weight the groups as in training in most papers.",
    "civilcomments": f"{CAPTION} Papers define the groups differently here, so compare within one source only.",
}


PREPARED = {
    "waterbirds": "spurmem data prepare waterbirds --out data/waterbirds",
    "celeba": "spurmem data prepare celeba ARCHIVE --out data/celeba",
}
"""The command that makes the data folder. Other data sets are texts."""


def results_tables(known: PublishedResults) -> list[Table]:
    """For each data set, the published accuracies."""
    return [_results_table(known, name) for name in dict.fromkeys(known.results["data_set"])]


def command_lines(known: PublishedResults) -> list[str]:
    """The commands as lines to copy. Each follows a comment that names its method."""
    return [line for name in dict.fromkeys(known.results["data_set"]) for line in _lines_of(known, name)]


def _lines_of(known: PublishedResults, data_set: str) -> list[str]:
    rows = known.commands[known.commands["data_set"] == data_set]
    methods = dict.fromkeys(known.results.loc[known.results["data_set"] == data_set, "method"])
    lines = [f"Commands that would reproduce those on {NAMES[data_set]}:"]
    lines += [f"# {PREPARED[data_set]}"] if data_set in PREPARED else []
    for (method, settings_from), of_method in rows.groupby(["method", "settings_from"], sort=False):
        lines += [f"# {method}; settings: {settings_from}", *of_method["command"]]
    without = [method for method in methods if method not in set(rows["method"])]
    return [*lines, f"{NO_COMMAND}: {', '.join(without)}", ""] if without else [*lines, ""]


def _results_table(known: PublishedResults, data_set: str) -> Table:
    rows = known.results[known.results["data_set"] == data_set]
    measured = known.measured[known.measured["data_set"] == data_set]
    here = [_measured_text(measured[measured["method"] == method]) for method in rows["method"]]
    return Table(
        title=f"Published accuracy on {NAMES[data_set]}",
        rows=rows.assign(measured=here),
        columns=(
            Column(name="method", heading="method", is_narrow=True),
            Column(name="worst_group", heading="worst group", kind="percent", detail=_deviation("worst_group_std")),
            Column(name="average", heading="average", kind="percent", detail=_deviation("average_std")),
            Column(name="groups_in_training", heading="train groups", kind="yes_no", is_narrow=True),
            Column(name="groups_in_validation", heading="val groups", is_narrow=True),
            Column(name="source", heading="source", detail=_collected_by, is_detail_below=True, is_long=True),
            Column(name="measured", heading="measured worst group"),
        ),
        caption=CAPTIONS.get(data_set, CAPTION),
        blocks=("method",),
    )


def commands_table(known: PublishedResults) -> Table:
    """The commands of every method. Methods without one are listed too."""
    rows = known.results[KEYS].drop_duplicates().merge(known.commands, how="left", on=KEYS)
    rows["command"] = rows["command"].fillna(NO_COMMAND)
    return Table(
        title="Commands that would reproduce them",
        rows=rows,
        columns=(
            Column(name="data_set", heading="data set"),
            Column(name="method", heading="method"),
            Column(name="command", heading="command", is_long=True),
            Column(name="settings_from", heading="settings from", is_long=True),
        ),
        caption=(
            f"Data: {'; '.join(PREPARED.values())}. What starts from runs/.../erm needs the command of ERM before. "
            "Published figures often come from a search over settings, so a command may give others."
        ),
        blocks=("data_set", "method"),
    )


def measured_table(known: PublishedResults) -> Table:
    """Every line of the ledgers beside the range of published accuracies of the same method."""
    ranges = known.results.groupby(KEYS)["worst_group"].agg(["min", "max"]).reset_index()
    return Table(
        title="Measured with this tool",
        rows=known.measured.merge(ranges, how="left", on=KEYS),
        columns=(
            Column(name="data_set", heading="data set"),
            Column(name="method", heading="method"),
            Column(name="worst_group", heading="worst group", kind="percent"),
            Column(name="min", heading="published", kind="percent", detail=_up_to),
            Column(name="average", heading="average", kind="percent"),
            Column(name="seeds", heading="seeds", kind="count"),
            Column(name="hardware", heading="hardware"),
            Column(name="commit", heading="commit"),
            Column(name="date", heading="date"),
            Column(name="by", heading="by"),
            Column(name="command", heading="command", is_long=True),
        ),
        caption="Lines of ledgers, as their authors wrote them.",
    )


def _measured_text(lines: pd.DataFrame) -> str:
    shares = [format_value(value, "percent") for value in lines["worst_group"]]
    return ", ".join(shares) or NOT_MEASURED


def _deviation(name: str) -> Callable[[Row], str]:
    kind: Kind = "percent_number"
    return lambda row: "" if is_missing(row[name]) else f"±{format_value(row[name], kind)}"


def _collected_by(row: Row) -> str:
    return f"(read in: {row['collected_by']})" if row["collected_by"] else ""


def _up_to(row: Row) -> str:
    return "" if is_missing(row["max"]) or row["max"] == row["min"] else f"to {format_value(row['max'], 'percent')}"
