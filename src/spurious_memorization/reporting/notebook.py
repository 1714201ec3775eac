"""Tables of data sets, runs, rankings and studies in notebooks: `%load_ext spurious_memorization`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from ..criteria.scores import Scores
from ..datasets.samples import Dataset
from ..runs.run import Run
from ..studies.study import Study, studies_of
from .tables.dataset_tables import group_counts_table
from .tables.findings import findings
from .tables.run_tables import accuracy_table
from .tables.study_tables import summary_table
from .tables.table import Column, Table


def load_ipython_extension(ipython: Any) -> None:
    """Let notebooks show data sets, runs, rankings and studies as tables.

    Called by `%load_ext spurious_memorization`.

    Arguments:
        ipython: the running shell.
    """
    html = ipython.display_formatter.formatters["text/html"]
    html.for_type(Dataset, dataset_html)
    html.for_type(Run, run_html)
    html.for_type(Scores, scores_html)
    html.for_type(Study, study_html)


def dataset_html(data: Dataset) -> str:
    """Samples per group and split, with each group's lift and role."""
    return _html(f"Data set {data.name}: {len(data)} samples", group_counts_table(data.counts(), "Samples per group"))


def run_html(run: Run) -> str:
    """Accuracy of every group in the last measured epoch, and what else the run holds."""
    record, history = run.record, run.history()
    epochs, studies = run.epochs(), [study.name for study in studies_of(run)]
    lines = [
        f"{record.network.model}, origin {record.origin}, {len(epochs)} epochs, last {epochs[-1] if epochs else '-'}",
        f"studies: {', '.join(studies) or 'none yet'}",
    ]
    if history.empty:
        return _html(f"Run {run.path}", None, [*lines, "nothing was measured yet"])
    last = int(history["epoch"].max())
    return _html(f"Run {run.path}", accuracy_table(history, last, record.data.groups, record.data.minority), lines)


def scores_html(scores: Scores) -> str:
    """The first units of the ranking."""
    first = scores.first()
    table = Table(
        title=f"The first {len(first)} of {scores.n} {scores.kind}s",
        rows=first,
        columns=(
            Column(name="rank", heading="rank", kind="count"),
            Column(name="unit", heading=scores.kind),
            Column(name="score", heading="score", kind="score"),
        ),
    )
    return _html("Ranking", table)


def study_html(study: Study) -> str:
    """The finding in sentences, and the verdict on each selected set and minority group."""
    if not study.is_complete:
        return _html(f"Study {study.name}", None, ["not finished: the same command continues it"])
    effects = study.effects()
    return _html(f"Study {study.name}", summary_table(effects), findings(effects, study.groups()))


def _html(title: str, table: Table | None, lines: Sequence[str] = ()) -> str:
    """A heading, lines and a table; all text is escaped."""
    parts = [f"<p><strong>{escape(title)}</strong></p>", *(f"<p>{escape(line)}</p>" for line in lines)]
    if table is not None:
        parts += [table.html(), f"<p>{escape(table.caption)}</p>" if table.caption else ""]
    return f"<div>{''.join(parts)}</div>"
