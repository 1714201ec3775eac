"""The answer of every command that makes runs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.console import RenderableType

from .app import Answer

if TYPE_CHECKING:
    from ..runs.run import Run


def finished(runs: list[Run]) -> Answer:
    """The answer for new runs: the accuracies of their last epoch, and the next command."""
    from ..reporting.tables.run_tables import accuracy_table
    from ..runs.epochs import best_epoch

    text: list[RenderableType] = []
    facts = []
    for run in runs:
        last = run.choose_epoch("last")
        history, rule = run.history(), run.record.best_by
        data, is_validated = run.record.data, "val" in set(history["split"])
        best = best_epoch(history, rule, run.candidate_epochs(), data.groups.label_of) if is_validated else None
        text += [
            accuracy_table(history, last, data.groups, data.minority),
            *([] if best is None else [f"best epoch by {rule.replace('_', ' ')} on val: {best.epoch}"]),
            *([best.tie] if best and best.tie else []),
        ]
        accuracy = history.query("epoch == @last").to_dict(orient="records")
        chosen = {"best": best.epoch, "tied": list(best.tied)} if best else {"best": last, "tied": [last]}
        facts.append({"run": run.place, "last": last, **chosen, "accuracy": accuracy})
    text.append(f"next: {shlex.join(['spurmem', 'study', runs[-1].place])}")
    return Answer(text, {"runs": facts})
