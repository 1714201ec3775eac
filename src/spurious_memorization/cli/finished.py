"""The answer of every command that makes runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType

from .app import Answer

if TYPE_CHECKING:
    from ..runs.run import Run


def finished(runs: list[Run]) -> Answer:
    """The answer for new runs: the accuracies of their last epoch, and the next command."""
    from ..reporting.tables.run_tables import accuracy_table

    text: list[RenderableType] = []
    facts = []
    for run in runs:
        last = run.choose_epoch("last")
        best = run.choose_epoch("best") if "val" in set(run.history()["split"]) else last
        data = run.record.data
        text += [
            accuracy_table(run.history(), last, data.groups, data.minority),
            f"best epoch by {run.record.best_by.replace('_', ' ')} on val: {best}",
        ]
        history = run.history().query("epoch == @last")
        accuracy = history.to_dict(orient="records")
        facts.append({"run": str(run.path), "last": last, "best": best, "accuracy": accuracy})
    text.append(f"next: spurmem study {runs[-1].path}")
    return Answer(text, {"runs": facts})
